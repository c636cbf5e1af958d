//! Decompression with limits: how much may come out, and how much memory a decoder may take.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

/// Memory that an xz decoder may take: `xz -9` needs 65 MiB.
const XZ_MEMORY_MAX: u64 = 256 * 1024 * 1024;
/// Largest zstd window of a source archive, 128 MiB: what `zstd -d` takes without being asked.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How many more bytes may come out of a decoder, and whether it wanted more.
///
/// The archive reader raises the allowance before each step: a header may take little, a file as
/// much as its header says. So a hostile header cannot make the tar reader fill the memory.
#[derive(Debug, Clone)]
pub(super) struct Meter(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    allowed: Cell<u64>,
    total: Cell<u64>,
    tripped: Cell<bool>,
}

impl Meter {
    /// At most `total` bytes in all; none before the first [`Self::allow`].
    pub(super) fn new(total: u64) -> Self {
        let (allowed, total) = (Cell::new(0), Cell::new(total));
        Self(Rc::new(Inner { allowed, total, tripped: Cell::new(false) }))
    }
    /// The next step may read so many bytes.
    pub(super) fn allow(&self, bytes: u64) {
        self.0.allowed.set(bytes);
    }
    /// Was more wanted than allowed?
    pub(super) fn tripped(&self) -> bool {
        self.0.tripped.get()
    }
}

/// A reader that obeys a [`Meter`].
pub(super) struct Metered<R> {
    inner: R,
    meter: Meter,
}

impl<R: Read> Metered<R> {
    pub(super) const fn new(inner: R, meter: Meter) -> Self {
        Self { inner, meter }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let m = &self.meter.0;
        let max = m.allowed.get().min(m.total.get());
        if max == 0 && !buf.is_empty() {
            // Only data that is really there is too much.
            let mut probe = [0; 1];
            if self.inner.read(&mut probe)? == 0 {
                return Ok(0);
            }
            m.tripped.set(true);
            return Err(io::Error::other("more bytes than allowed"));
        }
        let len = buf.len().min(usize::try_from(max).unwrap_or(usize::MAX));
        let n = self.inner.read(buf.get_mut(..len).unwrap_or_default())?;
        m.allowed.set(m.allowed.get().saturating_sub(n as u64));
        m.total.set(m.total.get().saturating_sub(n as u64));
        Ok(n)
    }
}

/// How a stream is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Xz,
    Zstd,
}

fn coding(start: &[u8]) -> Coding {
    match start {
        [0x1f, 0x8b, ..] => Coding::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Coding::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Coding::Zstd,
        _ => Coding::Plain,
    }
}

/// Decompresses what the first bytes say, or passes plain bytes on.
pub(super) fn decoder<'a, R: BufRead + 'a>(mut reader: R) -> io::Result<Box<dyn Read + 'a>> {
    let coding = coding(reader.fill_buf()?);
    Ok(match coding {
        Coding::Plain => Box::new(reader),
        Coding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Coding::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY_MAX,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
        }
        Coding::Zstd => {
            let mut d = zstd::stream::read::Decoder::with_buffer(reader)?;
            d.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(d)
        }
    })
}
