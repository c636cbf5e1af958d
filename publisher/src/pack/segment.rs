//! Cutting a payload into segments: at file boundaries where it can, so that one changed file
//! changes one pack.

use stork_wire::ids::ContentId;
use stork_wire::limits::SEGMENT_LEN_MAX;

/// A part of one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) content: ContentId,
    pub(super) from: u64,
    pub(super) len: u64,
}

/// Consecutive bytes of a payload, packed as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) slices: Vec<Slice>,
    pub(super) len: u64,
}

/// Cuts a payload. A file that does not fit begins a new segment if the current one is at least
/// half full; otherwise it is split, and so is every file longer than a segment.
pub(super) fn cut(payload: &[(ContentId, u64)]) -> Vec<Segment> {
    let mut out = Vec::new();
    let mut now = Segment::default();
    for &(content, size) in payload {
        let room = SEGMENT_LEN_MAX - now.len;
        if size > room && now.len >= SEGMENT_LEN_MAX / 2 {
            out.push(std::mem::take(&mut now));
        }
        let mut from = 0;
        while from < size {
            let len = (size - from).min(SEGMENT_LEN_MAX - now.len);
            now.slices.push(Slice { content, from, len });
            now.len += len;
            from += len;
            if now.len == SEGMENT_LEN_MAX {
                out.push(std::mem::take(&mut now));
            }
        }
    }
    if now.len > 0 {
        out.push(now);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn lens(sizes: &[u64]) -> Vec<Vec<u64>> {
        let payload: Vec<_> =
            sizes.iter().zip(0u8..).map(|(s, i)| (ContentId([i; 32]), *s)).collect();
        cut(&payload).iter().map(|s| s.slices.iter().map(|x| x.len / MIB).collect()).collect()
    }

    /// Files stay whole where a segment is half full, and are split where not or where they must.
    #[test]
    fn cuts_at_files_where_it_can() {
        assert_eq!(lens(&[]), Vec::<Vec<u64>>::new());
        assert_eq!(lens(&[20 * MIB, 20 * MIB]), [vec![20], vec![20]]);
        assert_eq!(lens(&[10 * MIB, 30 * MIB]), [vec![10, 22], vec![8]]);
        assert_eq!(lens(&[80 * MIB, MIB]), [vec![32], vec![32], vec![16, 1]]);
        assert_eq!(lens(&[32 * MIB, 32 * MIB]), [vec![32], vec![32]]);
    }
}
