//! One segment to one zstd frame and back, within the limits of the wire.
//!
//! The parameters are fixed and there is one thread a frame: the same bytes give the same pack.

use std::io::{self, Read};

use stork_wire::limits::{SEGMENT_LEN_MAX, WINDOW_LOG_DELTA, WINDOW_LOG_FULL};
use zstd::zstd_safe::{CCtx, CParameter, compress_bound, get_error_name, get_frame_content_size};

const LEVEL: i32 = 12;
/// Slots of the table of places, as a power of two, at the most: 128 MiB of them. The level's own
/// table forgets what is further back than 8 MiB. Long-distance matching finds it too, but only
/// matches of 64 bytes, which costs a third more on recompiled programs.
const HASH_LOG_MAX: u32 = 25;
/// See [`HASH_LOG_MAX`]; below that the level's own is as small.
const HASH_LOG_MIN: u32 = 17;
/// Bytes of a block of 128 KiB that zstd does not try to cut where its contents change.
const WHOLE_BLOCK: u32 = 127 * 1024;
/// A delta of less than this share of its segment consists of little more than heads of blocks.
const NEARLY_SAME: usize = 64;

fn failed(code: usize) -> io::Error {
    io::Error::other(format!("zstd: {}", get_error_name(code)))
}

fn context(parameters: &[CParameter]) -> io::Result<CCtx<'static>> {
    let mut context = CCtx::create();
    let usual = [
        CParameter::CompressionLevel(LEVEL),
        CParameter::ContentSizeFlag(true),
        CParameter::ChecksumFlag(false),
        CParameter::DictIdFlag(false),
    ];
    for parameter in usual.iter().chain(parameters) {
        context.set_parameter(*parameter).map_err(failed)?;
    }
    Ok(context)
}

fn run(mut context: CCtx<'_>, segment: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(compress_bound(segment.len()));
    context.compress2(&mut out, segment).map_err(failed)?;
    Ok(out)
}

/// Compresses a segment alone.
pub(super) fn compress(segment: &[u8]) -> io::Result<Vec<u8>> {
    run(context(&[CParameter::WindowLog(WINDOW_LOG_FULL)])?, segment)
}

/// Compresses a segment to a delta pack: with old bytes as prefix.
pub(super) fn compress_delta(segment: &[u8], prefix: &[u8]) -> io::Result<Vec<u8>> {
    let places = (prefix.len() + segment.len()).next_power_of_two().ilog2();
    let mut parameters = vec![
        CParameter::WindowLog(WINDOW_LOG_DELTA),
        CParameter::HashLog(places.clamp(HASH_LOG_MIN, HASH_LOG_MAX)),
        // Else the result would depend on where the two lie in memory.
        CParameter::DeterministicRefPrefix(true),
    ];
    let once = |parameters: &[CParameter]| {
        let mut context = context(parameters)?;
        context.ref_prefix(prefix).map_err(failed)?;
        run(context, segment)
    };
    let out = once(&parameters)?;
    if out.len() > segment.len() / NEARLY_SAME {
        return Ok(out);
    }
    parameters.push(CParameter::MaxBlockSize(WHOLE_BLOCK));
    let whole = once(&parameters)?;
    Ok(if whole.len() < out.len() { whole } else { out })
}

/// Unpacks exactly one frame to exactly `unpacked` bytes, as a host does.
pub(super) fn decompress(pack: &[u8], unpacked: u64, prefix: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    if unpacked > SEGMENT_LEN_MAX {
        return Err(bad("a segment is longer than 32 MiB"));
    }
    if get_frame_content_size(pack).ok().flatten() != Some(unpacked) {
        return Err(bad("the frame does not hold as many bytes as announced"));
    }
    let mut decoder =
        zstd::stream::read::Decoder::with_ref_prefix(pack, prefix.unwrap_or(&[]))?.single_frame();
    decoder.window_log_max(if prefix.is_some() { WINDOW_LOG_DELTA } else { WINDOW_LOG_FULL })?;
    let mut out = Vec::with_capacity(usize::try_from(unpacked).map_err(io::Error::other)?);
    decoder.by_ref().take(unpacked + 1).read_to_end(&mut out)?;
    if out.len() as u64 != unpacked {
        return Err(bad("the frame holds more or fewer bytes than announced"));
    }
    let mut rest = decoder.finish();
    if rest.read(&mut [0])? != 0 {
        return Err(bad("bytes follow the frame"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, seed: u8) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
        out
    }

    /// Both kinds of pack give the bytes back, and a prefix saves nearly everything.
    #[test]
    fn round_trips() {
        let old = noise(9 << 20, 1);
        let mut new = old.clone();
        new[5 << 20] ^= 1;
        let full = compress(&new).unwrap();
        let delta = compress_delta(&new, &old).unwrap();
        assert_eq!(full, compress(&new).unwrap());
        assert_eq!(delta, compress_delta(&new, &old).unwrap());
        assert!(delta.len() < 10_000, "{}", delta.len());
        let len = new.len() as u64;
        assert!(decompress(&full, len, None).unwrap() == new);
        assert!(decompress(&delta, len, Some(&old)).unwrap() == new);
        let wrong = decompress(&delta, len, Some(&noise(9 << 20, 2)));
        assert!(wrong.map_or(true, |got| got != new));
    }

    /// A frame that says or holds another length, asks for a larger window, or is followed by more
    /// bytes is refused.
    #[test]
    fn hostile_frames() {
        let bytes = noise(1000, 3);
        let pack = compress(&bytes).unwrap();
        assert!(decompress(&pack, 999, None).is_err());
        let mut longer = pack.clone();
        longer.push(0);
        assert!(decompress(&longer, 1000, None).is_err());
        assert!(decompress(&pack[..pack.len() - 1], 1000, None).is_err());
        let zeros = vec![0; 20 << 20];
        let wide = compress_delta(&zeros, b"x").unwrap();
        assert!(decompress(&wide, 20 << 20, None).is_err());
    }
}
