//! One segment to one zstd frame and back, within the limits of the wire.
//!
//! The parameters are fixed and there is one thread a frame: the same bytes give the same pack.

use std::io::{self, Read};

use stork_wire::limits::{SEGMENT_LEN_MAX, WINDOW_LOG_DELTA, WINDOW_LOG_FULL};
use zstd::zstd_safe::{CCtx, CParameter, compress_bound, get_error_name, get_frame_content_size};

const LEVEL: i32 = 12;
/// From this many bytes of prefix and segment on, long-distance matching finds what the level's
/// own tables forget.
const LONG_DISTANCE_FROM: usize = 4 * 1024 * 1024;

fn failed(code: usize) -> io::Error {
    io::Error::other(format!("zstd: {}", get_error_name(code)))
}

/// Compresses a segment; with a prefix to a delta pack.
pub(super) fn compress(segment: &[u8], prefix: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let mut context = CCtx::create();
    let mut set = |p| context.set_parameter(p).map(|_| ()).map_err(failed);
    set(CParameter::CompressionLevel(LEVEL))?;
    set(CParameter::ContentSizeFlag(true))?;
    set(CParameter::ChecksumFlag(false))?;
    set(CParameter::DictIdFlag(false))?;
    match prefix {
        None => set(CParameter::WindowLog(WINDOW_LOG_FULL))?,
        Some(prefix) => {
            set(CParameter::WindowLog(WINDOW_LOG_DELTA))?;
            let long = prefix.len() + segment.len() >= LONG_DISTANCE_FROM;
            set(CParameter::EnableLongDistanceMatching(long))?;
            context.ref_prefix(prefix).map_err(failed)?;
        }
    }
    let mut out = Vec::with_capacity(compress_bound(segment.len()));
    context.compress2(&mut out, segment).map_err(failed)?;
    Ok(out)
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
        let full = compress(&new, None).unwrap();
        let delta = compress(&new, Some(&old)).unwrap();
        assert_eq!(full, compress(&new, None).unwrap());
        assert_eq!(delta, compress(&new, Some(&old)).unwrap());
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
        let pack = compress(&bytes, None).unwrap();
        assert!(decompress(&pack, 999, None).is_err());
        let mut longer = pack.clone();
        longer.push(0);
        assert!(decompress(&longer, 1000, None).is_err());
        assert!(decompress(&pack[..pack.len() - 1], 1000, None).is_err());
        let zeros = vec![0; 20 << 20];
        let wide = compress(&zeros, Some(b"x")).unwrap();
        assert!(decompress(&wide, 20 << 20, None).is_err());
    }
}
