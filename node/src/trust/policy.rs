//! A VM's own policy: ordered rules, the first match decides, and what no rule names is denied.
//!
//! The effective right of a release in a VM is the group document ∩ the publisher document ∩ this
//! policy (design §4). The first two are checked when the entry is accepted; this is the third.

use stork_wire::ids::{PublisherId, TreeId};
use stork_wire::text::{PackageName, Pattern};

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The release may be shown.
    Allow,
    /// It may not.
    Deny,
}

/// Whom or what a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Every publisher of the VM's groups.
    Any,
    /// A publisher by the name that its groups give it.
    Name(String),
    /// A publisher by its id.
    Id(PublisherId),
    /// One exact content.
    Tree(TreeId),
}

/// One rule of a VM's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Allow or deny.
    pub effect: Effect,
    /// Whom.
    pub subject: Subject,
    /// Which packages; none: every one.
    pub packages: Vec<Pattern>,
}

/// A rule that says nothing sensible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(pub String);

/// The outcome for one release, with the rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Allowed or denied.
    pub effect: Effect,
    /// The rule's place in the file, from 0; `None`: no rule matched, so it is denied.
    pub rule: Option<usize>,
}

impl Subject {
    /// Reads `*`, a publisher's name, a publisher's id, or `tree:ID`.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(id) = text.strip_prefix("tree:") {
            return id.parse().map(Self::Tree).map_err(|e| RuleError(e.to_string()));
        }
        if let Ok(id) = text.parse::<PublisherId>() {
            return Ok(Self::Id(id));
        }
        if text.is_empty() {
            return Err(RuleError("a trust rule must name a publisher, or `*`".into()));
        }
        Ok(Self::Name(text.to_owned()))
    }

    fn matches(&self, publisher: PublisherId, name: &str, tree: TreeId) -> bool {
        match self {
            Self::Any => true,
            Self::Name(n) => n == name,
            Self::Id(id) => *id == publisher,
            Self::Tree(t) => *t == tree,
        }
    }
}

impl core::fmt::Display for Subject {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(n) => f.write_str(n),
            Self::Id(id) => write!(f, "{id}"),
            Self::Tree(t) => write!(f, "tree:{t}"),
        }
    }
}

/// Decides by the first rule that matches.
#[must_use]
pub fn decide(
    rules: &[Rule],
    publisher: PublisherId,
    publisher_name: &str,
    package: &PackageName,
    tree: TreeId,
) -> Decision {
    let found = rules.iter().enumerate().find(|(_, r)| {
        r.subject.matches(publisher, publisher_name, tree)
            && (r.packages.is_empty() || r.packages.iter().any(|p| p.matches(package.as_str())))
    });
    match found {
        Some((i, r)) => Decision { effect: r.effect, rule: Some(i) },
        None => Decision { effect: Effect::Deny, rule: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(effect: Effect, who: &str, packages: &[&str]) -> Rule {
        Rule {
            effect,
            subject: Subject::parse(who).unwrap(),
            packages: packages.iter().map(|p| p.parse().unwrap()).collect(),
        }
    }

    /// The first match decides, and what no rule names is denied.
    #[test]
    fn first_match_and_implicit_deny() {
        let rules = [rule(Effect::Deny, "*", &["evil*"]), rule(Effect::Allow, "acme", &[])];
        let at = |name: &str, package: &str| {
            decide(&rules, PublisherId([1; 32]), name, &package.parse().unwrap(), TreeId([0; 32]))
        };
        assert_eq!(at("acme", "hello"), Decision { effect: Effect::Allow, rule: Some(1) });
        assert_eq!(at("acme", "evil-tool"), Decision { effect: Effect::Deny, rule: Some(0) });
        assert_eq!(at("other", "hello"), Decision { effect: Effect::Deny, rule: None });
    }
}
