//! How a peer behaves that is honest in part.

use stork_wire::codec::List;
use stork_wire::frame::{Frame, ItemRange, OverlayFrame};
use stork_wire::item::Item;
use stork_wire::limits::ITEMS_PER_FRAME_MAX;

use super::{Deed, Manners};

/// The manners of a host that has these items, sorted by number, and hands them out when asked.
#[must_use]
pub fn has(items: Vec<Item>) -> Manners {
    Box::new(move |frame| {
        let asked: Vec<ItemRange> = match frame {
            Frame::Overlay(OverlayFrame::Fetch(ranges)) => ranges.to_vec(),
            Frame::Overlay(OverlayFrame::Graft { log, seq }) => {
                vec![ItemRange { log: *log, from: *seq, to: *seq }]
            }
            _ => return Vec::new(),
        };
        let wanted =
            |i: &&Item| asked.iter().any(|r| r.log == i.log && r.from <= i.seq && i.seq <= r.to);
        let found: Vec<Item> = items.iter().filter(wanted).cloned().collect();
        let frames = found.chunks(ITEMS_PER_FRAME_MAX);
        let frames = frames.map(|c| OverlayFrame::Items(List::truncated(c.iter().cloned())));
        frames.map(|f| Deed::Send(Frame::Overlay(f))).collect()
    })
}
