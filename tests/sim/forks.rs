//! Equivocating publishers in the simulated driver: two entries with one number, of which each node
//! accepts the one that comes first. Whoever sees both makes the proof, which freezes the feed
//! (PROTOCOL.md, "Forks and epochs"); in the end everybody must have it.

use std::sync::Arc;

use stork_node::overlay::{Input, Refusal};
use stork_wire::item::{Head, Item, ItemKind};

use super::feeds::{Published, UNIX_START};
use super::world::{Node, SECOND, World};

/// What a node has of a fork.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Branch {
    /// The second entry rather than the first.
    pub(crate) rival: bool,
    /// The proof: the feed stands before both.
    pub(crate) proven: bool,
}

impl Node {
    fn branch(&self, feed: u32) -> Branch {
        self.forks.get(&feed).copied().unwrap_or_default()
    }
}

impl World {
    /// A publisher signs an entry, and another with the same number for another node.
    pub(crate) fn equivocate(&mut self, feed: u32) -> anyhow::Result<bool> {
        let Some(home) = self.publish(feed)? else { return Ok(false) };
        let seq = self.feeds.len(feed);
        let fits = |i: &u32| {
            let node = self.node(*i).filter(|n| n.alive && n.is_honest() && n.paused_until == 0);
            let has = node.and_then(|n| n.logs.get(feed as usize)).map(|l| l.0);
            *i != home && has == Some(seq - 1)
        };
        let all = (0u32..).take(self.nodes.len()).filter(fits).collect();
        let Some(other) = self.rng.shuffled(all).first().copied() else { return Ok(false) };
        self.feeds.equivocate(feed, UNIX_START + self.now / SECOND)?;
        let rival = self.feeds.forks.get(&feed).map(|f| Item::clone(&f.rival.item));
        if let Some(rival) = rival {
            self.judge_fork(other, None, feed, &rival);
        }
        Ok(true)
    }

    /// The forked feed of an item, where the item is part of the fork.
    pub(crate) fn fork_of(&self, item: &Item) -> Option<u32> {
        let part = |f: &super::feeds::Fork, feed: u32| {
            let first = self.feeds.item(feed, f.at).is_some_and(|p| *p.item == *item);
            first || *f.rival.item == *item || *f.proof.item == *item
        };
        self.feeds.forks.iter().find(|(feed, f)| part(f, **feed)).map(|(feed, _)| *feed)
    }

    /// What a node has under a number of a feed.
    pub(crate) fn held(&self, i: u32, feed: u32, seq: u64) -> Option<&Published> {
        let fork = self.feeds.forks.get(&feed).filter(|f| f.at == seq);
        let rival = self.node(i).is_some_and(|n| n.branch(feed).rival);
        match fork.filter(|_| rival) {
            Some(fork) => Some(&fork.rival),
            None => self.feeds.item(feed, seq),
        }
    }

    /// Heads on a node's disk: of its feeds, and of the proofs that it has.
    pub(crate) fn heads_on_disk(&self, i: u32) -> Vec<Head> {
        if let Some(own) = self.own(i) {
            return own.trust.heads();
        }
        let Some(node) = self.node(i) else { return Vec::new() };
        let logs = (0u32..).zip(&node.logs);
        let feeds = logs.filter_map(|(feed, (_, stored))| self.held(i, feed, *stored));
        let proven = |feed: &u32| node.branch(*feed).proven;
        let forks = self.feeds.forks.iter().filter(|(feed, _)| proven(feed));
        let proofs = forks.map(|(_, fork)| &fork.proof);
        feeds.chain(proofs).map(|p| Head::of(p.item.log, p.item.seq, p.hash)).collect()
    }

    /// Judges one of the two entries, or the proof.
    pub(crate) fn judge_fork(
        &mut self,
        i: u32,
        source: Option<u32>,
        feed: u32,
        item: &Item,
    ) -> Option<Refusal> {
        let fork = self.feeds.forks.get(&feed)?;
        let (at, rival) = (fork.at, *fork.rival.item == *item);
        let node = self.nodes.get_mut(i as usize)?;
        let branch = node.branch(feed);
        if item.kind == ItemKind::Proof {
            if branch.proven {
                return Some(Refusal::Duplicate);
            }
            self.prove(i, source, feed);
            return None;
        }
        if branch.proven {
            return Some(Refusal::Unknown);
        }
        let (accepted, stored) = node.logs.get_mut(feed as usize)?;
        if *accepted >= at {
            if branch.rival != rival {
                self.prove(i, None, feed);
            }
            return Some(Refusal::Duplicate);
        }
        if *accepted + 1 < at {
            return Some(Refusal::Pending);
        }
        (*accepted, *stored) = (at, at);
        node.forks.insert(feed, Branch { rival, proven: false });
        self.pass_on(i, source, feed, at);
        None
    }

    /// A node has the proof: it travels on, and the feed stands before the fork.
    fn prove(&mut self, i: u32, source: Option<u32>, feed: u32) {
        let Some(fork) = self.feeds.forks.get(&feed) else { return };
        let (item, hash, at) = (Arc::clone(&fork.proof.item), fork.proof.hash, fork.at);
        let (log, seq) = (item.log, item.seq);
        let source = source.and_then(|s| self.node(s)).map(|n| n.peer.node);
        let head = self.feeds.head(feed, at - 1);
        let Some(node) = self.nodes.get_mut(i as usize) else { return };
        node.forks.insert(feed, Branch { rival: false, proven: true });
        node.pending.remove(&(feed, at));
        let mut was = 0;
        if let Some((accepted, stored)) = node.logs.get_mut(feed as usize) {
            was = *accepted;
            (*accepted, *stored) = ((*accepted).min(at - 1), (*stored).min(at - 1));
        }
        self.input(i, Input::Committed { log, seq, hash, item, source });
        let cut = self.feeds.all.get(feed as usize).map(|f| f.log).filter(|_| was >= at);
        if let Some(log) = cut {
            self.input(i, Input::Cut { log, head });
        }
    }

    /// Honest nodes that do not know yet what others can prove.
    pub(crate) fn unproven(&self) -> u64 {
        let of = |(feed, fork): (&u32, &super::feeds::Fork)| {
            let proven = self.honest().filter(|(_, n)| n.branch(*feed).proven).count();
            let all = self.honest().count();
            let has = |n: &Node| n.logs.get(*feed as usize).is_some_and(|l| l.1 >= fork.at);
            let second = self.honest().filter(|(_, n)| has(n) && n.branch(*feed).rival).count();
            let first = self.honest().filter(|(_, n)| has(n) && !n.branch(*feed).rival).count();
            if proven > 0 { all - proven } else { first.min(second) }
        };
        self.feeds.forks.iter().map(of).sum::<usize>() as u64
    }
}
