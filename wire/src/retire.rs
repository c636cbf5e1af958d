//! Entries that retire releases: how a feed with a bounded number of live ones goes on for ever.

use serde::{Deserialize, Serialize};

use crate::codec::List;
use crate::ids::Position;
use crate::limits::RETIRED_AT_ONCE;

/// Releases that are not live any more, although nothing is wrong with them: newer ones have taken
/// their place. So a feed can go on for ever, whose live releases are bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retire {
    /// The places of the entries that announced them, rising: they name nothing, so that sealed
    /// releases are retired in the same way. What is not live is passed over.
    pub releases: List<Position, RETIRED_AT_ONCE>,
}

impl Retire {
    pub(crate) fn check(&self, at: Position) -> Result<(), String> {
        if self.releases.is_empty() {
            return Err("retires nothing".into());
        }
        if !self.releases.windows(2).all(|w| matches!(w, [a, b] if a < b)) {
            return Err("what is retired is not sorted, or twice the same".into());
        }
        if self.releases.iter().any(|r| *r >= at) {
            return Err("retires what is yet to come".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;
    use crate::feed::tests::recall;
    use crate::feed::{Entry, Kind};
    use crate::ids::{FleetId, ItemHash};
    use crate::limits::ENTRY_LEN_MAX;
    use crate::sign::{Body, Envelope, SecretKey};

    /// What is retired is named once, in order, lies before the entry; no delegated key says it.
    #[test]
    fn what_may_be_retired() {
        let at = |epoch, seq| Position { epoch, seq };
        let retire = |places: &[Position]| Entry {
            epoch: 2,
            seq: 3,
            prev: Some(ItemHash([1; 32])),
            kind: Kind::Retire(Retire { releases: List::truncated(places.iter().copied()) }),
            ..recall()
        };
        let good = retire(&[at(1, 9), at(2, 1), at(2, 2)]);
        assert_eq!(good.check(), Ok(()));
        let bytes = encode(&good);
        let kind = [3, 3, 1, 9, 2, 1, 2, 2];
        assert!(bytes.ends_with(&kind), "{bytes:?}");
        assert_eq!(crate::codec::decode::<Entry>(&bytes, ENTRY_LEN_MAX), Ok(good.clone()));
        for bad in [&[][..], &[at(2, 2), at(2, 1)], &[at(1, 1), at(1, 1)], &[at(2, 3)]] {
            assert!(retire(bad).check().is_err(), "{bad:?}");
        }
        let some: Vec<Position> = (1..).take(RETIRED_AT_ONCE).map(|e| at(e, u64::MAX)).collect();
        let most = Entry { epoch: u32::MAX, ..retire(&some) };
        assert!(Envelope::unsigned(&most).is_ok(), "as many as there may be are an entry");
        let via = Envelope::sign(&recall(), FleetId([1; 32]), &SecretKey::from_seed(&[1; 32]));
        let by = Entry { via: Some(Box::new(via.unwrap())), ..good };
        assert!(by.check().unwrap_err().contains("a delegated key"));
    }
}
