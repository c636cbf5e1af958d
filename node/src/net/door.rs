//! Who may knock, and how many at once: connections that have not said who they are, by address,
//! and connections by key (acceptance/security.md §3).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stork_wire::ids::NodeId;

/// Connections that have not said who they are, in all; more are refused.
const UNADMITTED_MAX: usize = 64;
/// Of these from one block of addresses (/24, or /64 of IPv6): a rack that starts all at once has
/// room, and three others have as well.
const OF_BLOCK_MAX: usize = 16;
/// Unadmitted connections above which every address must first prove that it is its own.
const RETRY_ABOVE: usize = 16;
/// Connections of one key at once: control and bulk, and one of each that is being replaced.
const OF_NODE_MAX: usize = 4;

/// Addresses that one host, or one network of somebody, can have.
type Block = Ipv6Addr;

/// What is done about somebody who knocks.
#[derive(Debug)]
pub(super) enum Verdict {
    /// There is no room.
    Refuse,
    /// It must first prove that the address is its own.
    Retry,
    /// It may say who it is.
    Come(Knock),
}

#[derive(Debug, Default)]
struct Counts {
    unadmitted: usize,
    blocks: BTreeMap<Block, usize>,
    nodes: BTreeMap<NodeId, usize>,
}

/// Counts of the connections there are.
#[derive(Debug, Default)]
pub(super) struct Door {
    counts: Mutex<Counts>,
}

/// The loopback is this host itself, where no address is forged.
fn block_of(ip: IpAddr) -> Option<Block> {
    let ip = ip.to_canonical();
    if ip.is_loopback() {
        return None;
    }
    Some(match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            std::net::Ipv4Addr::new(a, b, c, 0).to_ipv6_mapped()
        }
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)),
    })
}

fn less<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n = n.saturating_sub(1);
        if *n == 0 {
            counts.remove(key);
        }
    }
}

impl Door {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody knocks. Its address is its own if it is `proven`, or if it is `known` as that of a
    /// host that is here; the latter is asked only where it matters.
    pub(super) fn knock(
        self: &Arc<Self>,
        ip: IpAddr,
        proven: bool,
        known: impl FnOnce() -> bool,
    ) -> Verdict {
        let block = block_of(ip);
        let mut counts = self.counts();
        let of_block = block.and_then(|b| counts.blocks.get(&b)).copied().unwrap_or(0);
        if counts.unadmitted >= UNADMITTED_MAX || of_block >= OF_BLOCK_MAX {
            return Verdict::Refuse;
        }
        if block.is_some() && !proven && (counts.unadmitted >= RETRY_ABOVE || !known()) {
            return Verdict::Retry;
        }
        counts.unadmitted += 1;
        if let Some(block) = block {
            *counts.blocks.entry(block).or_default() += 1;
        }
        Verdict::Come(Knock { door: Arc::clone(self), block })
    }

    /// One more connection of this key; none where it has enough.
    pub(super) fn enter(self: &Arc<Self>, node: NodeId) -> Option<Place> {
        let mut counts = self.counts();
        let of_node = counts.nodes.entry(node).or_default();
        if *of_node >= OF_NODE_MAX {
            return None;
        }
        *of_node += 1;
        Some(Place { door: Arc::clone(self), node })
    }
}

/// A connection that has not said who it is; dropped when it has, or is gone.
#[derive(Debug)]
pub(super) struct Knock {
    door: Arc<Door>,
    block: Option<Block>,
}

impl Drop for Knock {
    fn drop(&mut self) {
        let mut counts = self.door.counts();
        counts.unadmitted = counts.unadmitted.saturating_sub(1);
        if let Some(block) = self.block {
            less(&mut counts.blocks, &block);
        }
    }
}

/// A connection of a key, for as long as it is there.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    node: NodeId,
}

impl Drop for Place {
    fn drop(&mut self) {
        less(&mut self.door.counts().nodes, &self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn come(door: &Arc<Door>, text: &str) -> Option<Knock> {
        match door.knock(ip(text), true, || false) {
            Verdict::Come(knock) => Some(knock),
            Verdict::Refuse | Verdict::Retry => None,
        }
    }

    /// One block of addresses takes a part of the room, and gives it back; so does one key.
    #[test]
    fn room_is_shared() {
        let door = Arc::new(Door::default());
        let mut all: Vec<Knock> =
            (0..40).filter_map(|n| come(&door, &format!("192.0.2.{n}"))).collect();
        assert_eq!(all.len(), OF_BLOCK_MAX);
        assert!(come(&door, "::ffff:192.0.2.99").is_none(), "the same in other words");
        all.extend((0..40).filter_map(|n| come(&door, &format!("2001:db8::{n:x}"))));
        assert_eq!(all.len(), 2 * OF_BLOCK_MAX);
        all.extend((0..40).filter_map(|n| come(&door, &format!("2001:db8:0:{n:x}::1"))));
        assert_eq!(all.len(), UNADMITTED_MAX);
        assert!(come(&door, "127.0.0.1").is_none(), "the whole is full for all");
        drop(all);
        assert!(door.counts().blocks.is_empty() && door.counts().unadmitted == 0);

        let node = NodeId([1; 32]);
        let places: Vec<Place> = (0..9).filter_map(|_| door.enter(node)).collect();
        assert_eq!(places.len(), OF_NODE_MAX);
        assert!(door.enter(NodeId([2; 32])).is_some());
        drop(places);
        assert!(door.enter(node).is_some());
        assert!(door.counts().nodes.is_empty());
    }

    /// Who is not known proves its address; so do all when many are at the door.
    #[test]
    fn addresses_are_proven() {
        let door = Arc::new(Door::default());
        let there = ip("192.0.2.1");
        assert!(matches!(door.knock(there, false, || false), Verdict::Retry));
        assert!(matches!(door.knock(there, false, || true), Verdict::Come(_)));
        assert!(matches!(door.knock(ip("::1"), false, || false), Verdict::Come(_)));
        let _all: Vec<Knock> =
            (0..RETRY_ABOVE).filter_map(|n| come(&door, &format!("10.0.{n}.1"))).collect();
        assert!(matches!(door.knock(there, false, || true), Verdict::Retry));
        assert!(matches!(door.knock(there, true, || false), Verdict::Come(_)));
    }
}
