//! A VM's own policy: ordered rules, the first match decides, and what no rule names is denied.
//!
//! The effective right of a release in a VM is the group document ∩ the publisher document ∩ this
//! policy (design §4). The first two are checked when the entry is accepted, and once more by the
//! newest documents when a VM is planned; this is the third.

use stork_wire::ids::{PublisherId, TreeId};
use stork_wire::text::{PackageName, Pattern};

use super::Search;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The release may be shown.
    Allow,
    /// It may not.
    Deny,
}

/// What a VM makes of a feed that is not fresh: this host may be cut off from its news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStale {
    /// What is known is served, and flagged.
    #[default]
    Serve,
    /// Nothing is installed anew; what is shown stays.
    NoNew,
    /// Nothing of it is shown.
    Hide,
}

impl core::fmt::Display for OnStale {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Serve => "serve",
            Self::NoNew => "no_new",
            Self::Hide => "hide",
        })
    }
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

/// So many of some publishers must announce the same content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// How many; from 1 to as many as there are.
    pub need: usize,
    /// Of whom.
    pub of: Vec<Subject>,
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
    /// Names that such a release may provide in this VM beside its own; `None`: all that its group
    /// lets it provide.
    pub provides: Option<Vec<Pattern>>,
    /// Who must have announced the same.
    pub publishers: Option<Attested>,
    /// What a feed that is not fresh means; `None`: what the VM's file says for all rules.
    pub freshness: Option<OnStale>,
    /// Those to whom the publisher delegates count as well.
    pub delegations: bool,
    /// Its line in the VM's file, from 1.
    pub line: usize,
}

/// A rule that says nothing sensible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(pub String);

/// A release, as rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Who announced it.
    pub publisher: PublisherId,
    /// The name that the VM's groups give its publisher; `None`: none of them names it.
    pub name: Option<&'a str>,
    /// The package.
    pub package: &'a PackageName,
    /// The content.
    pub tree: TreeId,
}

/// The outcome for one release, with the rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Allowed or denied.
    pub effect: Effect,
    /// The rule's place in the file, from 0; `None`: no rule matched, so it is denied.
    pub rule: Option<usize>,
    /// The place among the delegates of the rule's publisher, from 1; 0: the publisher itself.
    pub place: usize,
    /// The way of delegations, where it is a delegate's.
    pub via: Vec<PublisherId>,
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

    /// Is it about this release?
    #[must_use]
    pub fn matches(&self, c: &Candidate<'_>) -> bool {
        match self {
            Self::Any => c.name.is_some(),
            Self::Name(n) => c.name == Some(n.as_str()),
            Self::Id(id) => *id == c.publisher,
            Self::Tree(t) => *t == c.tree,
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

impl Rule {
    fn names(&self, package: &PackageName) -> bool {
        self.packages.is_empty() || self.packages.iter().any(|p| p.matches(package.as_str()))
    }

    /// May a release that this rule allows provide the name in this VM?
    #[must_use]
    pub fn lets_provide(&self, name: &PackageName) -> bool {
        let all = self.provides.as_ref();
        all.is_none_or(|all| all.iter().any(|p| p.matches(name.as_str())))
    }
}

/// Decides by the first rule that matches. `delegates` searches whom the publishers of a rule let
/// release the package; it is asked only of rules that follow delegations.
pub fn decide(
    rules: &[Rule],
    candidate: &Candidate<'_>,
    mut delegates: impl FnMut(&Rule) -> Vec<Search>,
) -> Decision {
    for (i, r) in rules.iter().enumerate().filter(|(_, r)| r.names(candidate.package)) {
        let decision = |place, via| Decision { effect: r.effect, rule: Some(i), place, via };
        if r.subject.matches(candidate) {
            return decision(0, Vec::new());
        }
        if !r.delegations {
            continue;
        }
        let mut before = 0;
        for search in delegates(r) {
            if let Some(at) = search.place_of(candidate.publisher) {
                let via = search.delegates.into_iter().nth(at).map(|d| d.via).unwrap_or_default();
                return decision(before + at + 1, via);
            }
            before += search.delegates.len();
        }
    }
    Decision { effect: Effect::Deny, rule: None, place: 0, via: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(effect: Effect, who: &str, packages: &[&str]) -> Rule {
        Rule {
            effect,
            subject: Subject::parse(who).unwrap(),
            packages: packages.iter().map(|p| p.parse().unwrap()).collect(),
            provides: None,
            publishers: None,
            freshness: None,
            delegations: false,
            line: 1,
        }
    }

    /// The first match decides, and what no rule names is denied.
    #[test]
    fn first_match_and_implicit_deny() {
        let rules = [rule(Effect::Deny, "*", &["evil*"]), rule(Effect::Allow, "acme", &[])];
        let at = |name: &str, package: &str| {
            let package = package.parse().unwrap();
            let (publisher, tree) = (PublisherId([1; 32]), TreeId([0; 32]));
            let c = Candidate { publisher, name: Some(name), package: &package, tree };
            let d = decide(&rules, &c, |_| Vec::new());
            (d.effect, d.rule)
        };
        assert_eq!(at("acme", "hello"), (Effect::Allow, Some(1)));
        assert_eq!(at("acme", "evil-tool"), (Effect::Deny, Some(0)));
        assert_eq!(at("other", "hello"), (Effect::Deny, None));
    }
}
