//! Denials: a security team says that something must not be installed, or the fleet that a host
//! must not connect any more.
//!
//! A denial stands in a log of its own, named after what is denied and who denies it: so two
//! members of a team never sign one number, a key that is stolen replaces nobody else's denial, and
//! there is nothing to fork. Its number is the time at which it was signed, and only the newest
//! counts. It has no end: a group's document lifts it ([`crate::charter::Lift`]), or for a host a
//! certificate that is issued later.

use serde::{Deserialize, Serialize};

use crate::charter::{BODY_VERSION, UnixSeconds};
use crate::codec::encode;
use crate::ids::{GroupId, LogId, NodeId, PublicKey, PublisherId, TreeId};
use crate::item::{Item, ItemKind, is_moment};
use crate::limits::NARROW_LEN_MAX;
use crate::sign::{Body, Envelope};
use crate::text::{Line, Pattern};

/// What must not be installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// What a VM would be shown, whoever announces it and under whatever name.
    Tree(TreeId),
    /// Releases of one publisher, by their counters.
    Releases {
        /// Whose.
        publisher: PublisherId,
        /// Of which packages.
        package: Pattern,
        /// The first counter.
        from: u64,
        /// The last counter.
        to: u64,
    },
}

/// What is denied, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denied {
    /// Content, for the VMs of one group.
    Content {
        /// Which group.
        group: GroupId,
        /// The veto key of the group that says so.
        signer: PublicKey,
        /// What.
        what: Content,
    },
    /// A host: certificates that it got until then are void. The fleet's admission keys say so.
    Host(NodeId),
}

/// A denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// What is denied, and by whom.
    pub what: Denied,
    /// When it was signed; its number.
    pub signed_at: UnixSeconds,
    /// Why, for people.
    pub reason: Line,
}

impl Denied {
    /// The log of all denials of this by this key.
    #[must_use]
    pub fn log(&self) -> LogId {
        LogId::first(b'D', &encode(self))
    }
}

impl Denial {
    /// The item that carries it in its envelope.
    #[must_use]
    pub fn item(&self, envelope: Envelope) -> Item {
        Item { kind: ItemKind::Deny, log: self.what.log(), seq: self.signed_at, envelope }
    }
}

impl Body for Denial {
    const CONTEXT: &'static str = "deny";
    const LEN_MAX: usize = NARROW_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        if self.version != BODY_VERSION {
            return Err(format!("version {} of this body is not known here", self.version));
        }
        if !is_moment(self.signed_at) {
            return Err("it was signed before there was anything to deny".into());
        }
        match &self.what {
            Denied::Content { what: Content::Releases { from, to, .. }, .. } if from > to => {
                Err("the first release comes after the last".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::hex;

    fn denial(what: Content) -> Denial {
        let (group, signer) = (GroupId([1; 32]), PublicKey([2; 32]));
        Denial {
            version: 1,
            what: Denied::Content { group, signer, what },
            signed_at: 1_800_000_000,
            reason: "bad".parse().unwrap(),
        }
    }

    /// The bytes of the body and its log, so that a change of the format is seen.
    #[test]
    fn golden_vectors() {
        let tree = denial(Content::Tree(TreeId([3; 32])));
        let [g, k, t, p] = ["01", "02", "03", "04"].map(|b| b.repeat(32));
        let rest = "80a4a7da0603626164";
        assert_eq!(hex(&encode(&tree)), format!("0100{g}{k}00{t}{rest}"));
        let range = denial(Content::Releases {
            publisher: PublisherId([4; 32]),
            package: "a*".parse().unwrap(),
            from: 1,
            to: 300,
        });
        assert_eq!(hex(&encode(&range)), format!("0100{g}{k}01{p}02612a01ac02{rest}"));
        let host = Denial { what: Denied::Host(NodeId([5; 32])), ..tree.clone() };
        assert_eq!(hex(&encode(&host)), format!("0101{}{rest}", "05".repeat(32)));
        let logs = [&tree, &range, &host].map(|d| d.what.log());
        assert_eq!(logs.map(|l| l.short()), ["5d98dff6a1", "f2c670caf3", "39edd19172"]);
        assert!(logs.iter().all(LogId::is_first));
        assert_eq!(hex(&encode(&ItemKind::Deny)), "06");
    }

    /// Who denies is part of the log: nobody else's denial is replaced.
    #[test]
    fn each_key_has_its_own_log() {
        let what = |signer: u8| Denied::Content {
            group: GroupId([1; 32]),
            signer: PublicKey([signer; 32]),
            what: Content::Tree(TreeId([3; 32])),
        };
        assert_ne!(what(1).log(), what(2).log());
    }

    /// What contradicts itself is refused.
    #[test]
    fn denials_that_are_refused() {
        let good = denial(Content::Tree(TreeId([3; 32])));
        assert!(good.check().is_ok());
        assert!(Denial { version: 2, ..good.clone() }.check().is_err());
        assert!(Denial { signed_at: 7, ..good }.check().is_err());
        let (publisher, package) = (PublisherId([4; 32]), "*".parse().unwrap());
        let empty = Content::Releases { publisher, package, from: 2, to: 1 };
        assert!(denial(empty).check().is_err());
    }
}
