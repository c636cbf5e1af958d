//! What one host may take part in, said anew: its labels and private groups, without another join.
//!
//! The newest word counts beside whatever the host's certificate says, so that a host whose rights
//! were narrowed wins nothing by an older certificate, nor by one that another host renews which
//! has not heard of it yet. As with denials each admission key has a log of its own for each host,
//! whose number is the time: nobody replaces another key's word, and there is nothing to fork.

use serde::{Deserialize, Serialize};

use crate::charter::{BODY_VERSION, HostScope, UnixSeconds};
use crate::ids::{LogId, NodeId, PublicKey};
use crate::item::{Item, ItemKind, is_moment};
use crate::limits::NARROW_LEN_MAX;
use crate::sign::{Body, Envelope, is_sound};

/// What a host may take part in from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostGrant {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// Which host.
    pub node: NodeId,
    /// The admission key that says so, and signs this.
    pub signer: PublicKey,
    /// All of it: nothing of what was said before is added.
    pub scope: HostScope,
    /// When it was signed; its number.
    pub signed_at: UnixSeconds,
}

impl HostGrant {
    /// The log of all that this key says of this host.
    #[must_use]
    pub fn log(&self) -> LogId {
        LogId::first(b'H', &[self.node.0, self.signer.0].concat())
    }

    /// The item that carries it in its envelope.
    #[must_use]
    pub fn item(&self, envelope: Envelope) -> Item {
        Item { kind: ItemKind::Grant, log: self.log(), seq: self.signed_at, envelope }
    }
}

impl Body for HostGrant {
    const CONTEXT: &'static str = "host grant";
    const LEN_MAX: usize = NARROW_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        if self.version != BODY_VERSION {
            return Err(format!("version {} of this body is not known here", self.version));
        }
        if !is_moment(self.signed_at) {
            return Err("it was signed before there was anything to grant".into());
        }
        if !is_sound(&PublicKey(self.node.0)) || !is_sound(&self.signer) {
            return Err("the host's or the signer's key is weak or no key".into());
        }
        self.scope.check_lists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{List, encode};
    use crate::ids::{GroupId, hex};
    use crate::sign::SecretKey;

    fn grant() -> HostGrant {
        let key = |n| SecretKey::from_seed(&[n; 32]).public();
        let groups = Some(List::truncated([GroupId([1; 32])]));
        let scope = HostScope { labels: List::truncated(["edge".parse().unwrap()]), groups };
        let node = NodeId(key(7).0);
        HostGrant { version: 1, node, signer: key(2), scope, signed_at: 1_800_000_000 }
    }

    /// The bytes of the body and its log, so that a change of the format is seen.
    #[test]
    fn golden_vectors() {
        let (g, one) = (grant(), "01".repeat(32));
        let (node, signer) = (hex(&g.node.0), hex(&g.signer.0));
        let golden = format!("01{node}{signer}010465646765010{}80a4a7da06", &format!("1{one}"));
        assert_eq!(hex(&encode(&g)), golden);
        assert!(g.check().is_ok() && g.log().is_first());
        assert_eq!(g.log().short(), "dc61a97904");
        assert_eq!(hex(&encode(&ItemKind::Grant)), "09");
    }

    /// Nothing at all may be said, which a certificate says by having no scope; odd ones are
    /// refused.
    #[test]
    fn grants_that_are_refused() {
        let all = HostScope { labels: List::empty(), groups: None };
        assert!(HostGrant { scope: all, ..grant() }.check().is_ok());
        assert!(HostGrant { version: 2, ..grant() }.check().is_err());
        assert!(HostGrant { signed_at: 7, ..grant() }.check().is_err());
        assert!(HostGrant { signer: PublicKey([0; 32]), ..grant() }.check().is_err());
        let twice = Some(List::truncated([GroupId([1; 32]); 2]));
        let twice = HostScope { groups: twice, ..grant().scope };
        assert!(HostGrant { scope: twice, ..grant() }.check().is_err());
    }
}
