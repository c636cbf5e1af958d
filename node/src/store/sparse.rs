//! Holes in files: long zeros take no room on the disk, as in the images that were packed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use rustix::io::Errno;

/// Zeros become a hole in parts that begin at a multiple of this: small enough for images, and
/// large enough that a program with a page of zeros stays in one piece.
const HOLE: usize = 32 * 1024;
static ZEROS: [u8; HOLE] = [0; HOLE];

/// How many of the first bytes are to be treated alike, and whether as a hole. They will stand at
/// `offset` of their file. Shorter parts at both ends count too: they are the rest of a part that
/// came before or follows.
pub(super) fn first_run(bytes: &[u8], offset: u64) -> (bool, usize) {
    let mut end = 0;
    let mut first = None;
    while end < bytes.len() {
        let within = (offset + end as u64) % HOLE as u64;
        let room = HOLE - usize::try_from(within).unwrap_or(0);
        let part = bytes.get(end..).unwrap_or_default();
        let part = part.get(..room).unwrap_or(part);
        let zeros = ZEROS.get(..part.len()) == Some(part);
        if *first.get_or_insert(zeros) != zeros {
            break;
        }
        end += part.len();
    }
    (first == Some(true), end)
}

/// Copies a file into an empty one, from data to data; what lies between stays a hole.
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    let len = from.metadata()?.len();
    let (mut source, mut target) = (from, to);
    let mut at = 0;
    while at < len {
        let data = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(_) => at,
        };
        let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(data)).unwrap_or(len);
        source.seek(SeekFrom::Start(data))?;
        target.seek(SeekFrom::Start(data))?;
        // The standard library copies inside the kernel (copy_file_range) where it can.
        let copied = io::copy(&mut source.take(end - data), &mut target)?;
        if copied != end - data {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at = end;
    }
    to.set_len(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Zeros and data are told apart, wherever the parts are cut.
    #[test]
    fn runs() {
        let mut bytes = vec![0; 4 * HOLE];
        assert_eq!(first_run(&bytes, 0), (true, 4 * HOLE));
        assert_eq!(first_run(&bytes, 100), (true, 4 * HOLE));
        bytes[HOLE] = 1;
        assert_eq!(first_run(&bytes, 0), (true, HOLE));
        assert_eq!(first_run(&bytes[HOLE..], HOLE as u64), (false, HOLE));
        assert_eq!(first_run(&bytes, 100), (true, HOLE - 100));
        assert_eq!(first_run(&[1, 0], 0), (false, 2));
        assert_eq!(first_run(&[], 0), (false, 0));
    }

    /// A copy has the bytes, and holes where the file has them.
    #[test]
    fn holes_are_copied() {
        use std::os::unix::fs::FileExt;
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(64 << 20).unwrap();
        from.write_all_at(b"in the middle", 20 << 20).unwrap();
        from.write_all_at(b"before the end", 60 << 20).unwrap();
        copy(&from, &to).unwrap();
        let meta = to.metadata().unwrap();
        assert_eq!(meta.len(), 64 << 20);
        // Where the test's own disk knows holes, so does the copy.
        assert!(meta.blocks() <= from.metadata().unwrap().blocks() + 256, "{}", meta.blocks());
        let mut all = Vec::new();
        let mut file = &to;
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut all).unwrap();
        let mut want = vec![0; 64 << 20];
        want[20 << 20..][..13].copy_from_slice(b"in the middle");
        want[60 << 20..][..14].copy_from_slice(b"before the end");
        assert!(all == want);
    }
}
