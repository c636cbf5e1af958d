//! What concerns one host: its certificate, its own record, the token that lets it join, and the
//! short certificate of a publisher's TLS key.

use core::net::SocketAddr;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{UnixSeconds, check_head, check_sorted};
use crate::codec::{List, decode, encode};
use crate::ids::{FleetId, GroupId, NodeId, PublicKey, PublisherId, hex, unhex};
use crate::limits::{
    ADDRS_MAX, CELL_GROUPS_MAX, GRANTS_MAX, LABELS_MAX, RECORD_LEN_MAX, SUBSCRIBED_GROUPS_MAX,
};
use crate::sign::{Body, Envelope, is_sound};
use crate::text::Label;

/// Signed by an admission key: this node may take part, under this name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCert {
    /// [`super::BODY_VERSION`].
    pub version: u8,
    /// The host's key.
    pub node: NodeId,
    /// Its name for people.
    pub name: Label,
    /// Its site: hosts of one site have good links between them.
    pub site: Label,
    /// When it was made.
    pub issued: UnixSeconds,
    /// When it must have been renewed.
    pub expires: UnixSeconds,
    /// Labels, and the private groups that it may take part in. It is not there where it has no
    /// value: then the host has no labels and may take part in all.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::delegated::last"
    )]
    pub scope: Option<Box<HostScope>>,
}

/// What an admission key says of a host beside its name: who it is for, and what it may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostScope {
    /// Labels for people and rules, sorted.
    pub labels: List<Label, LABELS_MAX>,
    /// Private groups that it may take part in, sorted; `None`: all.
    pub groups: Option<List<GroupId, GRANTS_MAX>>,
}

impl HostScope {
    fn check(scope: Option<&Self>) -> Result<(), String> {
        let Some(scope) = scope else { return Ok(()) };
        if scope.says_nothing() {
            return Err("a scope that says nothing".into());
        }
        scope.check_lists()
    }
    /// Sorted, each once.
    pub(crate) fn check_lists(&self) -> Result<(), String> {
        check_sorted(&self.labels, "labels")?;
        self.groups.as_ref().map_or(Ok(()), |g| check_sorted(g, "granted groups"))
    }
    /// No labels, and all groups: what a certificate without a scope says.
    #[must_use]
    pub fn says_nothing(&self) -> bool {
        self.labels.is_empty() && self.groups.is_none()
    }
    /// May a host with this scope take part in a private group?
    #[must_use]
    pub fn grants(scope: Option<&Self>, group: &GroupId) -> bool {
        let groups = scope.and_then(|s| s.groups.as_ref());
        groups.is_none_or(|g| g.binary_search(group).is_ok())
    }
}

impl HostCert {
    /// May this host take part in a private group?
    #[must_use]
    pub fn grants(&self, group: &GroupId) -> bool {
        HostScope::grants(self.scope.as_deref(), group)
    }
}

impl Body for HostCert {
    const CONTEXT: &'static str = "host certificate";
    const LEN_MAX: usize = RECORD_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        check_head(self.version, self.issued, self.expires)?;
        if !is_sound(&PublicKey(self.node.0)) {
            return Err("the node's key is weak or no key".into());
        }
        HostScope::check(self.scope.as_deref())
    }
}

/// The first 8 bytes of a group's id. A false match only costs a question in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShortGroup(pub [u8; 8]);

impl ShortGroup {
    /// Of a group.
    #[must_use]
    pub fn of(group: &GroupId) -> Self {
        let mut cut = [0; 8];
        for (slot, b) in cut.iter_mut().zip(group.as_bytes()) {
            *slot = *b;
        }
        Self(cut)
    }
}

/// What the hosts of one cell, a site, subscribe to, summed by one of them for the other sites
/// (design.md §5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Hosts of the site that its contact knows, itself included.
    pub hosts: u32,
    /// Groups that any of them subscribes to, sorted.
    pub groups: List<ShortGroup, CELL_GROUPS_MAX>,
    /// Are there more groups than could be named?
    pub more: bool,
}

impl Cell {
    /// May a host of the cell want this group?
    #[must_use]
    pub fn may_want(&self, group: &GroupId) -> bool {
        self.more || self.groups.binary_search(&ShortGroup::of(group)).is_ok()
    }
}

/// Signed by the host itself: how to reach it, and which groups its VMs want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// [`super::BODY_VERSION`].
    pub version: u8,
    /// The host's key, which signs this.
    pub node: NodeId,
    /// Rises with every change and restart: a newer record replaces an older one.
    pub incarnation: u64,
    /// Where it listens.
    pub addrs: List<SocketAddr, ADDRS_MAX>,
    /// Its site, as in its certificate.
    pub site: Label,
    /// Groups that its VMs subscribe to, sorted.
    pub groups: List<GroupId, SUBSCRIBED_GROUPS_MAX>,
    /// Its cell, where the host speaks for it in a large fleet.
    pub cell: Option<Cell>,
    /// Does it hold an admission key that is in force? Such a host renews certificates.
    pub admits: bool,
    /// When it was made.
    pub issued: UnixSeconds,
    /// When it is worth nothing any more.
    pub expires: UnixSeconds,
}

impl Body for PeerRecord {
    const CONTEXT: &'static str = "peer record";
    const LEN_MAX: usize = 10 * 1024;
    fn check(&self) -> Result<(), String> {
        check_head(self.version, self.issued, self.expires)?;
        check_sorted(&self.groups, "groups")?;
        self.cell.as_ref().map_or(Ok(()), |c| check_sorted(&c.groups, "groups of the cell"))
    }
}

/// Signed by a release key: for ten minutes this TLS key pushes for the publisher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushCert {
    /// [`super::BODY_VERSION`].
    pub version: u8,
    /// The ephemeral TLS key.
    pub tls_key: PublicKey,
    /// The publisher.
    pub publisher: PublisherId,
    /// When it was made.
    pub issued: UnixSeconds,
    /// Ten minutes later.
    pub expires: UnixSeconds,
}

impl Body for PushCert {
    const CONTEXT: &'static str = "push certificate";
    const LEN_MAX: usize = RECORD_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        check_head(self.version, self.issued, self.expires)?;
        if self.expires - self.issued > 600 {
            return Err("a push certificate lives ten minutes at the most".into());
        }
        Ok(())
    }
}

/// Signed by an admission key: whoever holds this may join once, at one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// [`super::BODY_VERSION`].
    pub version: u8,
    /// The fleet, whose first root document must hash to this.
    pub fleet: FleetId,
    /// Random: the admitting node remembers it as used.
    pub id: [u8; 16],
    /// The node that admits; no other honours this token, so that "once" is certain.
    pub admitter: NodeId,
    /// Where that node listens.
    pub addrs: List<SocketAddr, ADDRS_MAX>,
    /// The name that the host gets; `None`: the host may choose.
    pub name: Option<Label>,
    /// The site that the host gets.
    pub site: Label,
    /// When it was made.
    pub issued: UnixSeconds,
    /// When it is worth nothing any more.
    pub expires: UnixSeconds,
    /// What the host's certificate says beside its name; not there where it has no value.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::delegated::last"
    )]
    pub scope: Option<Box<HostScope>>,
}

impl Body for JoinToken {
    const CONTEXT: &'static str = "join token";
    const LEN_MAX: usize = RECORD_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        check_head(self.version, self.issued, self.expires)?;
        if self.addrs.is_empty() {
            return Err("names no address".into());
        }
        HostScope::check(self.scope.as_deref())
    }
}

/// Why a text is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token: {0}")]
pub struct TokenError(String);

const TOKEN_PREFIX: &str = "stork1-";

impl JoinToken {
    /// The token as the text that is carried to the new host.
    #[must_use]
    pub fn to_text(envelope: &Envelope) -> String {
        let bytes = encode(envelope);
        let sum = blake3::derive_key("stork 2026 token sum v1", &bytes);
        let sum = hex(&sum);
        format!("{TOKEN_PREFIX}{}{}", hex(&bytes), sum.get(..8).unwrap_or_default())
    }

    /// Reads a token's text. The signature is left to the admitting node; the text's own check sum
    /// finds a token that was cut when copied.
    pub fn from_text(text: &str) -> Result<(Self, Envelope), TokenError> {
        let err = |m: &str| TokenError(m.to_owned());
        let body = text
            .trim()
            .strip_prefix(TOKEN_PREFIX)
            .ok_or_else(|| err("it must begin with `stork1-`"))?;
        let at = body.len().checked_sub(8).ok_or_else(|| err("it is too short"))?;
        let (body, sum) =
            body.split_at_checked(at).ok_or_else(|| err("it holds odd characters"))?;
        let bytes = unhex(body).ok_or_else(|| err("it holds odd characters, or was cut"))?;
        let good = hex(&blake3::derive_key("stork 2026 token sum v1", &bytes));
        if !good.starts_with(sum) {
            return Err(err("its check sum is wrong: was it cut when copied?"));
        }
        let envelope: Envelope = decode(&bytes, RECORD_LEN_MAX).map_err(|e| err(&e.to_string()))?;
        let token = envelope.claimed().map_err(|e| err(&e.to_string()))?;
        Ok((token, envelope))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;
    fn from_str(s: &str) -> Result<Self, TokenError> {
        Self::from_text(s).map(|(t, _)| t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SecretKey;

    /// A token survives being carried as text, and one that was cut says so.
    #[test]
    fn token_text() {
        let key = SecretKey::from_seed(&[3; 32]);
        let token = JoinToken {
            version: 1,
            fleet: FleetId([1; 32]),
            id: [2; 16],
            admitter: NodeId(key.public().0),
            addrs: List::new(vec!["127.0.0.1:7749".parse().unwrap()]).unwrap(),
            name: None,
            site: "default".parse().unwrap(),
            issued: 10,
            expires: 20,
            scope: None,
        };
        let envelope = Envelope::sign(&token, token.fleet, &key).unwrap();
        let text = JoinToken::to_text(&envelope);
        assert_eq!(JoinToken::from_text(&text), Ok((token, envelope)));
        let cut = &text[..text.len() - 3];
        assert!(JoinToken::from_text(cut).unwrap_err().to_string().contains("cut"));
        assert!("nonsense".parse::<JoinToken>().is_err());
    }
}
