//! Withdrawals: a publisher takes releases back, or halts what it releases, beside its feed.
//!
//! A recall inside of the feed stands behind all entries before it, and a feed that is frozen takes
//! none. These pass both: each has a log of its own, named after what it says, so that there is no
//! order in which they must come and nothing to fork. They only narrow. The feed's view root stays
//! over the feed's own live releases; hosts take away from them what is withdrawn.
//!
//! A recall is for ever. It names releases by their hashes, so that a stolen key cannot withdraw
//! what does not exist yet. A halt can be ended by whoever may make it.

use serde::{Deserialize, Serialize};

use crate::charter::{BODY_VERSION, UnixSeconds};
use crate::codec::{List, encode};
use crate::ids::{LogId, PublisherId, ReleaseHash};
use crate::item::{Item, ItemKind, is_moment};
use crate::limits::{NARROW_LEN_MAX, RECALLED_MAX};
use crate::sign::{Body, Envelope};
use crate::text::{Line, PackageName};

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// One release key, for the packages that it may release; or the root.
    Release,
    /// The publisher's root.
    Root,
}

/// What is withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Releases of one package, for ever: VMs go back to the newest one that is left.
    Recall {
        /// The package.
        package: PackageName,
        /// The releases, sorted.
        releases: List<ReleaseHash, RECALLED_MAX>,
    },
    /// Nothing is installed anew, or is again. What is shown stays.
    Halt {
        /// Of which package; `None`: of all.
        package: Option<PackageName>,
        /// Is it halted from now on? Otherwise it goes on.
        halted: bool,
    },
}

/// A withdrawal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// [`BODY_VERSION`].
    pub version: u8,
    /// Whose releases.
    pub publisher: PublisherId,
    /// The feed's epoch: releases of a later one are not touched, and a halt ends with its epoch.
    pub epoch: u32,
    /// The number of the publisher document under which this was signed.
    pub document: u64,
    /// Who says so.
    pub by: Level,
    /// When it was signed.
    pub signed_at: UnixSeconds,
    /// What is withdrawn.
    pub what: What,
    /// Why, for people.
    pub reason: Line,
}

impl Withdrawal {
    /// Its log: of one recall, or of all halts of one package on one level.
    #[must_use]
    pub fn log(&self) -> LogId {
        let whose = (self.publisher, self.epoch);
        let id = match &self.what {
            What::Recall { package, releases } => encode(&(whose, 0u8, package, releases)),
            What::Halt { package, .. } => encode(&(whose, 1u8, package, self.by)),
        };
        LogId::first(b'W', &id)
    }

    /// Its number in the log. Of a halt the newest counts, and in one second it beats its end.
    #[must_use]
    pub fn seq(&self) -> u64 {
        match self.what {
            What::Recall { .. } => 1,
            What::Halt { halted, .. } => self.signed_at.saturating_mul(2) + u64::from(halted),
        }
    }

    /// The item that carries it in its envelope.
    #[must_use]
    pub fn item(&self, envelope: Envelope) -> Item {
        Item { kind: ItemKind::Withdrawal, log: self.log(), seq: self.seq(), envelope }
    }
}

impl Body for Withdrawal {
    const CONTEXT: &'static str = "withdrawal";
    const LEN_MAX: usize = NARROW_LEN_MAX;
    fn check(&self) -> Result<(), String> {
        if self.version != BODY_VERSION {
            return Err(format!("version {} of this body is not known here", self.version));
        }
        if self.epoch == 0 || self.document == 0 {
            return Err("epochs and documents are numbered from 1".into());
        }
        if !is_moment(self.signed_at) || self.signed_at >= u64::MAX / 4 {
            return Err("it was signed at no time".into());
        }
        match &self.what {
            What::Recall { releases, .. } if releases.is_empty() => Err("recalls nothing".into()),
            What::Recall { releases, .. }
                if !releases.windows(2).all(|w| matches!(w, [a, b] if a < b)) =>
            {
                Err("releases are not sorted, or twice the same".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::hex;

    fn withdrawal(what: What) -> Withdrawal {
        Withdrawal {
            version: 1,
            publisher: PublisherId([7; 32]),
            epoch: 2,
            document: 3,
            by: Level::Root,
            signed_at: 1_800_000_000,
            what,
            reason: "bad".parse().unwrap(),
        }
    }

    fn recall(releases: &[u8]) -> What {
        let releases = List::truncated(releases.iter().map(|b| ReleaseHash([*b; 32])));
        What::Recall { package: "hello".parse().unwrap(), releases }
    }

    /// The bytes of the bodies and their logs, so that a change of the format is seen.
    #[test]
    fn golden_vectors() {
        let id = "07".repeat(32);
        let gone = withdrawal(recall(&[3]));
        let head = format!("01{id}02030180a4a7da06");
        let golden = format!("{head}000568656c6c6f01{}03626164", "03".repeat(32));
        assert_eq!(hex(&encode(&gone)), golden);
        let package = Some("hello".parse().unwrap());
        let halt = withdrawal(What::Halt { package, halted: true });
        assert_eq!(hex(&encode(&halt)), format!("{head}01010568656c6c6f0103626164"));
        let on = withdrawal(What::Halt { package: None, halted: false });
        assert_eq!(hex(&encode(&on)), format!("{head}01000003626164"));
        assert_eq!((gone.seq(), halt.seq(), on.seq()), (1, 3_600_000_001, 3_600_000_000));
        assert_eq!(
            [&gone, &halt, &on].map(|w| w.log().short()),
            ["5a20189b61", "efb7cc1272", "b78621561e"]
        );
        assert!(gone.log().is_first());
        assert_eq!(hex(&encode(&ItemKind::Withdrawal)), "08");
    }

    /// The levels of a halt have logs of their own: a release key ends no halt of the root.
    #[test]
    fn levels_do_not_meet() {
        let root = withdrawal(What::Halt { package: None, halted: true });
        let release = Withdrawal { by: Level::Release, ..root.clone() };
        assert_ne!(root.log(), release.log());
        let later = Withdrawal { epoch: 3, ..root.clone() };
        assert_ne!(root.log(), later.log());
    }

    /// What contradicts itself is refused.
    #[test]
    fn withdrawals_that_are_refused() {
        let good = withdrawal(recall(&[3, 4]));
        assert!(good.check().is_ok());
        let bad = [
            Withdrawal { version: 2, ..good.clone() },
            Withdrawal { epoch: 0, ..good.clone() },
            Withdrawal { document: 0, ..good.clone() },
            Withdrawal { signed_at: 1, ..good.clone() },
            Withdrawal { signed_at: u64::MAX, ..good },
            withdrawal(recall(&[])),
            withdrawal(recall(&[4, 3])),
            withdrawal(recall(&[3, 3])),
        ];
        assert!(bad.iter().all(|w| w.check().is_err()));
    }
}
