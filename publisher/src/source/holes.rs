//! Reading a sparse file: its holes are zeros that no disk is asked for.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Reads a file from its begin to what was its end when it was opened.
#[derive(Debug)]
pub(super) struct HoleReader<'a> {
    file: &'a File,
    at: u64,
    len: u64,
    /// The data that is at `at` or comes next.
    data: (u64, u64),
}

impl<'a> HoleReader<'a> {
    pub(super) const fn new(file: &'a File, len: u64) -> Self {
        Self { file, at: 0, len, data: (0, 0) }
    }

    /// Finds the next data. A file system that knows no holes says that all is data.
    fn look(&mut self) {
        let from = match seek(self.file, SeekFrom::Data(self.at)) {
            Ok(from) => from,
            Err(Errno::NXIO) => self.len,
            Err(_) => self.at,
        };
        let to = seek(self.file, SeekFrom::Hole(from)).unwrap_or(self.len);
        self.data = (from.min(self.len), to.clamp(from.min(self.len), self.len));
        if self.data.0 == self.data.1 {
            self.data = (self.len, self.len);
        }
    }
}

impl Read for HoleReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.len || buf.is_empty() {
            return Ok(0);
        }
        if self.at >= self.data.1 {
            self.look();
        }
        let (from, to) = self.data;
        let is_hole = self.at < from;
        let left = if is_hole { from - self.at } else { to - self.at };
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let target = buf.get_mut(..n).unwrap_or_default();
        let n = if is_hole {
            target.fill(0);
            n
        } else {
            self.file.read_at(target, self.at)?
        };
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the file has of data and holes, its bytes are read.
    #[test]
    fn reads_what_is_there() {
        for places in [&[][..], &[0], &[5 << 20], &[0, 3 << 20, (8 << 20) - 9]] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(8 << 20).unwrap();
            let mut want = vec![0; 8 << 20];
            for &at in places {
                file.write_all_at(b"some data", at).unwrap();
                want[usize::try_from(at).unwrap()..][..9].copy_from_slice(b"some data");
            }
            let mut got = Vec::new();
            HoleReader::new(&file, 8 << 20).read_to_end(&mut got).unwrap();
            assert!(got == want, "{places:?}");
        }
        // What was cut off meanwhile is zeros or missing: the caller looks at the file again.
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 1000], 0).unwrap();
        let mut got = Vec::new();
        HoleReader::new(&file, 2000).read_to_end(&mut got).unwrap();
        assert!(got.starts_with(&[1; 1000]));
    }
}
