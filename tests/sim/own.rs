//! Hosts that judge for themselves: each has the rules' machine with its own documents and its own
//! journal, as on a real host. The other simulations judge each item once for the whole fleet,
//! which is cheap, and cannot show what hosts do that know different documents.
//!
//! The disk takes no time here; what the rules say follows at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use stork_node::overlay::{Input, Refusal};
use stork_node::trust::{self, Fact, Trust, Turn, Verdict};
use stork_wire::ids::{FleetId, LogId};
use stork_wire::item::{Cut, Item};
use stork_wire::proof::Proof;

use super::world::World;

/// The rules and the journal of one host.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) trust: Trust,
    journal: BTreeMap<LogId, BTreeMap<u64, Arc<Item>>>,
}

impl Own {
    fn new(fleet: FleetId) -> Self {
        Self { trust: Trust::new(fleet), journal: BTreeMap::new() }
    }

    fn read(&self, log: LogId, seq: u64) -> Option<&Arc<Item>> {
        self.journal.get(&log)?.get(&seq)
    }

    /// Stores an item, and drops what it makes void.
    fn store(&mut self, item: &Arc<Item>, cuts: &[Cut]) {
        for cut in cuts {
            let Some(log) = self.journal.get_mut(&cut.log) else { continue };
            log.retain(|seq, _| *seq <= cut.after);
            let other = |i: &Arc<Item>| cut.last.is_some_and(|last| i.hash() != last);
            if log.get(&cut.after).is_some_and(other) {
                log.remove(&cut.after);
            }
        }
        self.journal.entry(item.log).or_default().insert(item.seq, Arc::clone(item));
    }

    /// What stands of a feed is read again.
    fn replay(&mut self, turn: &Turn) {
        if turn.logs.is_empty() {
            return;
        }
        let logs = turn.logs.iter().filter_map(|log| self.journal.get(log));
        let kept: Vec<Item> = logs.flat_map(|l| l.values()).map(|i| Item::clone(i)).collect();
        self.trust.replay(turn.publisher, &kept);
    }
}

impl World {
    /// From now on each host judges for itself, and has these documents.
    pub(crate) fn judge_alone(&mut self, fleet: FleetId, documents: &[Item]) {
        let unix = self.unix(0);
        self.own = Some(self.nodes.iter().map(|_| Own::new(fleet)).collect());
        for own in self.own.iter_mut().flatten() {
            for item in documents {
                if let Verdict::Accepted { fact, .. } = own.trust.judge(item, unix) {
                    own.store(&Arc::new(item.clone()), fact.cuts());
                }
            }
        }
    }

    pub(crate) fn own(&self, i: u32) -> Option<&Own> {
        self.own.as_ref()?.get(i as usize)
    }

    fn own_mut(&mut self, i: u32) -> Option<&mut Own> {
        self.own.as_mut()?.get_mut(i as usize)
    }

    /// What a host has on its disk under a number.
    pub(crate) fn own_item(&self, i: u32, log: LogId, seq: u64) -> Option<Arc<Item>> {
        self.own(i)?.read(log, seq).map(Arc::clone)
    }

    /// Judges an item by the documents of this host, and what waited for it.
    pub(crate) fn judge_own(&mut self, i: u32, source: Option<u32>, item: Item) {
        let mut waiting = VecDeque::from([(source, item)]);
        while let Some((source, item)) = waiting.pop_front() {
            let (log, seq, unix) = (item.log, item.seq, self.unix(i));
            let Some(own) = self.own_mut(i) else { return };
            let why = match own.trust.judge(&item, unix) {
                Verdict::Accepted { hash, fact } => {
                    let item = Arc::new(item);
                    own.store(&item, fact.cuts());
                    let from = source.and_then(|s| self.node(s)).map(|n| n.peer.node);
                    let news = Arc::clone(&item);
                    self.input(i, Input::Committed { log, seq, hash, item: news, source: from });
                    let ready = self.follow(i, &item, &fact);
                    waiting.extend(ready.into_iter().map(|item| (None, item)));
                    continue;
                }
                Verdict::Known => Refusal::Duplicate,
                Verdict::Pending { missing } if missing == Some(log) => Refusal::Pending,
                Verdict::Pending { .. } | Verdict::Behind { .. } => Refusal::Unknown,
                Verdict::Rival { .. } => {
                    let ours = own.read(log, seq).map(|o| o.envelope.clone());
                    let proof = ours.and_then(|o| Proof::of(&o, &item.envelope));
                    waiting.extend(proof.and_then(|p| p.item()).map(|item| (None, item)));
                    Refusal::Duplicate
                }
                Verdict::Refused(trust::Refusal::BrokenChain(_)) => Refusal::Forked,
                Verdict::Refused(r) if r.blames_sender() => Refusal::Invalid,
                Verdict::Refused(_) => Refusal::Unknown,
            };
            let from = source.and_then(|s| self.node(s)).map(|n| n.peer.node);
            if let Some(from) = from {
                self.input(i, Input::Refused { from, log, seq, why });
            }
        }
    }

    /// What an accepted item changes, and what can be judged now.
    fn follow(&mut self, i: u32, item: &Item, fact: &Fact) -> Vec<Item> {
        let turns: Vec<Turn> = match fact {
            Fact::Turn(turn) => vec![Turn::clone(turn)],
            Fact::Suicide(death) => death.turns.clone(),
            _ => Vec::new(),
        };
        let Some(own) = self.own_mut(i) else { return Vec::new() };
        let mut cut = Vec::new();
        for turn in &turns {
            own.replay(turn);
            let heads = own.trust.heads();
            let logs = turn.cuts.iter().map(|c| c.log).chain(turn.closed);
            cut.extend(logs.map(|log| (log, heads.iter().find(|h| h.log == log).copied())));
        }
        let ready = match fact {
            Fact::Charter(_) => own.trust.take_unlocked(item),
            Fact::Entry(_) => own.trust.take_ready(item.log, item.seq),
            Fact::Turn(_) | Fact::Suicide(_) => own.trust.take_all_pending(),
            Fact::Beacon(_) | Fact::Deny(_) | Fact::Withdrawal(_) | Fact::Grant(_) => Vec::new(),
        };
        for (log, head) in cut {
            self.input(i, Input::Cut { log, head });
        }
        ready
    }
}
