//! The rules of trust: bytes become a sequence of signed items, in any order, changed, or signed
//! again by other keys, judged at any time.

use stork_node::trust::{Fact, PENDING_MAX, Trust, Verdict};
use stork_wire::beacon::Beacon;
use stork_wire::codec::{Blob, encode};
use stork_wire::deny::Denial;
use stork_wire::feed::Entry;
use stork_wire::grant::HostGrant;
use stork_wire::ids::LogId;
use stork_wire::item::{Item, ItemKind};
use stork_wire::sign::{Body, Envelope, signed_bytes};
use stork_wire::suicide::Suicide;
use stork_wire::withdrawal::Withdrawal;

use super::bytes::Bytes;
use super::samples::{Fleet, NOW, group_key, key};

const STEPS_MAX: usize = 60;
const KINDS: [ItemKind; 10] = [
    ItemKind::Root,
    ItemKind::Group,
    ItemKind::Publisher,
    ItemKind::Entry,
    ItemKind::Proof,
    ItemKind::Beacon,
    ItemKind::Deny,
    ItemKind::Suicide,
    ItemKind::Withdrawal,
    ItemKind::Grant,
];

/// Signs an item's body again, as it stands, by some key.
fn sign_again(item: &mut Item, fleet: &Fleet, by: u8) {
    let context = match item.kind {
        ItemKind::Root => "root",
        ItemKind::Group => "group",
        ItemKind::Publisher => "publisher",
        ItemKind::Entry | ItemKind::Proof => Entry::CONTEXT,
        ItemKind::Beacon => Beacon::CONTEXT,
        ItemKind::Deny => Denial::CONTEXT,
        ItemKind::Suicide => Suicide::CONTEXT,
        ItemKind::Withdrawal => Withdrawal::CONTEXT,
        ItemKind::Grant => HostGrant::CONTEXT,
        ItemKind::Later(_) => return,
    };
    let message = signed_bytes(context, fleet.fleet, &item.envelope.body);
    drop(item.envelope.add(key(by).public(), key(by).sign(&message)));
}

/// An entry with other numbers and times, signed by a key that may.
fn other_entry(bytes: &mut Bytes<'_>, fleet: &Fleet, item: &Item) -> Option<Item> {
    let mut entry: Entry = item.envelope.claimed().ok()?;
    for _ in 0..=bytes.below(3) {
        let n = bytes.wild();
        match bytes.below(7) {
            0 => entry.seq = n,
            1 => entry.epoch = u32::try_from(n).unwrap_or(u32::MAX),
            2 => entry.signed_at = n,
            3 => entry.expires = n,
            4 => entry.document = n,
            5 => entry.via = (n & 1 == 0).then(|| Box::new(fleet.certificate())),
            _ => entry.prev = (n & 1 == 0).then(|| item.hash()),
        }
    }
    let body = Blob::new(encode(&entry)).ok()?;
    let mut item = item.clone();
    item.seq = entry.seq;
    item.log = LogId::feed_epoch(entry.publisher, entry.epoch);
    item.envelope = Envelope { body, signatures: stork_wire::codec::List::empty() };
    sign_again(&mut item, fleet, if entry.via.is_some() { 8 } else { 5 });
    Some(item)
}

fn changed(bytes: &mut Bytes<'_>, fleet: &Fleet, mut item: Item) -> Item {
    match bytes.below(8) {
        0 => item.seq = bytes.wild(),
        1 => item.kind = bytes.pick(&KINDS),
        2 => {
            let (at, bit) = (bytes.byte(), 1 << bytes.below(8));
            let mut body = item.envelope.body.to_vec();
            let at = usize::from(at) % body.len().max(1);
            body.iter_mut().skip(at).take(1).for_each(|b| *b ^= bit);
            item.envelope.body = Blob::new(body).unwrap();
            if bytes.flag() {
                let by = bytes.pick(&[1, 3, 4, 5, 6]);
                sign_again(&mut item, fleet, by);
            }
        }
        3 => sign_again(&mut item, fleet, bytes.byte()),
        4 | 5 => item = other_entry(bytes, fleet, &item).unwrap_or(item),
        _ => {}
    }
    item
}

/// Runs it.
pub(super) fn trust(data: &[u8]) -> String {
    let fleet = Fleet::new();
    let mut pool = fleet.documents.clone();
    pool.extend(fleet.feed(4));
    pool.extend(fleet.proof().item());
    pool.extend(fleet.narrowing());
    pool.push(fleet.delegated());
    pool.push(fleet.sealed());
    pool.extend(fleet.anew());
    let mut trust = Trust::new(fleet.fleet);
    let mut bytes = Bytes::new(data);
    if bytes.flag() {
        trust.add_group_key(group_key());
    }
    if bytes.flag() {
        for document in &fleet.documents {
            assert!(matches!(trust.judge(document, NOW), Verdict::Accepted { .. }));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let item = bytes.pick(&pool);
        let item = changed(&mut bytes, &fleet, item);
        let now = if bytes.below(8) == 0 { bytes.wild() } else { NOW };
        seen.insert(judge(&mut trust, &item, now));
    }
    format!("{seen:?} {}", trust.heads().len())
}

/// Logs that have no head any more and are not cut: beacons that do not stand, and proofs of a fork
/// that a new epoch has settled. The overlay is told of both.
fn silent(trust: &mut Trust, fact: &Fact) -> Vec<LogId> {
    let mut gone = trust.take_void_beacons();
    match fact {
        Fact::Turn(turn) => gone.extend(turn.closed),
        Fact::Suicide(death) => gone.extend(death.turns.iter().filter_map(|t| t.closed)),
        _ => {}
    }
    gone
}

fn judge(trust: &mut Trust, item: &Item, now: u64) -> String {
    let before = trust.heads();
    drop(trust.take_void_beacons());
    let verdict = trust.judge(item, now);
    assert!(trust.pending_len() <= PENDING_MAX);
    let after = trust.heads();
    match &verdict {
        Verdict::Accepted { fact, .. } => {
            assert_ne!(before, after, "it was accepted, and no head has changed");
            let gone = silent(trust, fact);
            for head in &before {
                let cut = gone.contains(&head.log) || fact.cuts().iter().any(|c| c.log == head.log);
                let new = after.iter().find(|h| h.log == head.log);
                let went_back = !cut && new.is_none_or(|h| h.seq < head.seq);
                assert!(!went_back, "by the {:?}: {head:?} went back", item.kind);
            }
            let again = trust.judge(item, now);
            assert!(!matches!(again, Verdict::Accepted { .. }), "it was accepted twice");
            for item in trust.take_ready(item.log, item.seq) {
                trust.judge(&item, now);
            }
            format!("accepted {:?}", item.kind)
        }
        Verdict::Refused(why) => {
            assert_eq!(before, after, "it was refused, and a head has changed");
            format!("refused {}", super::kind_of(why))
        }
        Verdict::Known
        | Verdict::Pending { .. }
        | Verdict::Behind { .. }
        | Verdict::Rival { .. } => {
            assert_eq!(before, after, "nothing was accepted, and a head has changed");
            format!("{:?}", core::mem::discriminant(&verdict))
        }
    }
}

/// All items in order, a fork that a new epoch settles, and some bytes without meaning.
pub(super) fn samples() -> Vec<Vec<u8>> {
    let in_order: Vec<u8> = core::iter::once(1).chain((0..9).flat_map(|i| [i, 7, 1])).collect();
    let mut rng = super::Mutator::new(12);
    let mut some = |n: usize| (0..n).map(|_| u8::try_from(rng.below(256)).unwrap()).collect();
    let mut out: Vec<Vec<u8>> = [30, 60, 90, 120].map(&mut some).to_vec();
    out.push(in_order);
    // The documents first; then two entries, the proof and the second publisher document.
    out.push([0, 1].into_iter().chain([3, 4, 7, 16].into_iter().flat_map(|i| [i, 7, 1])).collect());
    out
}
