//! The contents of a run: the one that is measured, and what goes beside it.

use stork_wire::feed::Urgency;
use stork_wire::ids::SwarmId;
use stork_wire::manifest::piece_len_for;

use super::Content;

/// One content: the first is the one that is measured, others go beside it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) swarm: SwarmId,
    pub(super) class: Urgency,
    pub(super) lens: Vec<u32>,
    pub(super) bytes: u64,
    /// When it is announced, in microseconds.
    pub(super) starts: u64,
}

impl Item {
    fn new(number: u8, class: Urgency, mib: u64, piece_kib: Option<u32>) -> anyhow::Result<Self> {
        let bytes = mib << 20;
        let piece = piece_kib.map_or_else(|| piece_len_for(bytes), |k| k << 10);
        anyhow::ensure!(piece > 0, "--piece-kib is at least 1");
        let pieces = usize::try_from(bytes.div_ceil(u64::from(piece)))?;
        let mut lens = vec![piece; pieces];
        if let (Some(last), true) = (lens.last_mut(), !bytes.is_multiple_of(u64::from(piece))) {
            *last = u32::try_from(bytes % u64::from(piece))?;
        }
        Ok(Self { swarm: SwarmId([7 + number; 32]), class, lens, bytes, starts: 0 })
    }

    pub(super) fn pieces(&self) -> u32 {
        u32::try_from(self.lens.len()).unwrap_or(u32::MAX)
    }
}

/// The content that is measured, and what goes beside it.
pub(super) fn items(options: &Content, bound: u64) -> anyhow::Result<Vec<Item>> {
    let mut items = vec![Item::new(0, Urgency::Normal, options.mib, options.piece_kib)?];
    let beside =
        [(options.background_mib, Urgency::Background), (options.security_mib, Urgency::Security)];
    for (number, (mib, class)) in (1..).zip(beside).filter(|(_, (mib, _))| *mib > 0) {
        let mut item = Item::new(number, class, mib, None)?;
        // What is urgent comes in the middle of the others.
        item.starts = if class == Urgency::Security { bound / 2 } else { 0 };
        items.push(item);
    }
    Ok(items)
}
