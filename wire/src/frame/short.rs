//! Shorter forms of frames, for hosts that said that they know them ([`OverlayFrame::Knows`]).
//!
//! An entry of a feed names its publisher, epoch and number in its signed body, from which its log
//! follows. A push that says them again beside it is a fifteenth longer than an entry of 512 bytes
//! needs.

use super::OverlayFrame;
use crate::ids::{LogId, PublisherId};
use crate::item::{Item, ItemKind};
use crate::sign::Envelope;

/// Bit of [`OverlayFrame::Knows`]: the sender reads [`OverlayFrame::PushEntry`].
const PUSH_ENTRY: u64 = 1;

/// The log and the number that the body of a feed's entry claims, read from its beginning alone
/// (version, publisher, epoch, number). Nothing else of the body is looked at.
fn claimed_place(body: &[u8]) -> Option<(LogId, u64)> {
    let begin = postcard::take_from_bytes::<(u8, PublisherId, u32, u64)>(body);
    let ((_, publisher, epoch, seq), _) = begin.ok()?;
    Some((LogId::feed_epoch(publisher, epoch), seq))
}

impl Item {
    /// The item of a feed's entry, with the place that its body claims; `None` where the body is
    /// too short for one. As unverified as an item that says its place beside it.
    #[must_use]
    pub fn of_entry(envelope: Envelope) -> Option<Self> {
        let (log, seq) = claimed_place(&envelope.body)?;
        Some(Self { kind: ItemKind::Entry, log, seq, envelope })
    }
}

impl OverlayFrame {
    /// What this version says as a connection begins.
    pub const OURS: Self = Self::Knows(PUSH_ENTRY);

    /// The frame in its shortest form that a host reads which knows this.
    #[must_use]
    pub fn shortened(self, knows: u64) -> Self {
        match self {
            Self::Push { hop, age_ms, entry, item }
                if knows & PUSH_ENTRY != 0
                    && item.kind == ItemKind::Entry
                    && claimed_place(&item.envelope.body) == Some((item.log, item.seq)) =>
            {
                let Item { envelope, .. } = *item;
                Self::PushEntry { hop, age_ms, entry, envelope: Box::new(envelope) }
            }
            long => long,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Blob, List, encode};
    use crate::feed::Entry;
    use crate::feed::tests::recall;

    fn push(item: Item) -> OverlayFrame {
        OverlayFrame::Push { hop: 2, age_ms: 40, entry: 9, item: Box::new(item) }
    }

    /// What is left out comes back from the body, in every epoch, and only whoever knows the short
    /// form gets it.
    #[test]
    fn a_short_push_is_the_same_item() {
        for (epoch, seq) in [(1, 1), (1, 300), (7, 1 << 40)] {
            let entry = Entry { epoch, seq, ..recall() };
            let log = LogId::feed_epoch(entry.publisher, epoch);
            let body = Blob::new(encode(&entry)).unwrap();
            let envelope = Envelope { body, signatures: List::empty() };
            let item = Item { kind: ItemKind::Entry, log, seq, envelope };
            let long = push(item.clone());
            let short = long.clone().shortened(PUSH_ENTRY);
            let saved = encode(&long).len() - encode(&short).len();
            assert!(saved >= 34, "{saved}");
            let OverlayFrame::PushEntry { hop: 2, age_ms: 40, entry: 9, envelope } = short else {
                panic!("it was not shortened");
            };
            assert_eq!(Item::of_entry(*envelope), Some(item));
            assert_eq!(long.clone().shortened(!PUSH_ENTRY), long);
        }
    }

    /// What does not lie where its body says, or is no entry, goes as it is.
    #[test]
    fn other_pushes_stay_long() {
        let envelope = Envelope::unsigned(&recall()).unwrap();
        let log = LogId::feed(recall().publisher);
        let good = Item { kind: ItemKind::Entry, log, seq: 1, envelope };
        let empty = Envelope { body: Blob::new(vec![1; 33]).unwrap(), signatures: List::empty() };
        let others = [
            Item { seq: 2, ..good.clone() },
            Item { log: LogId::beacon(recall().publisher), ..good.clone() },
            Item { kind: ItemKind::Beacon, ..good.clone() },
            Item { envelope: empty.clone(), ..good },
        ];
        for item in others {
            let long = push(item);
            assert_eq!(long.clone().shortened(u64::MAX), long);
        }
        assert_eq!(Item::of_entry(empty), None);
    }
}
