//! Tar streams: every entry of an archive, with hostile ones refused (acceptance §5).

use std::io::{self, BufRead, Read};

use stork_wire::codec::{Blob, List};
use stork_wire::manifest::{TreeNode, Xattr};
use tar::{Archive, Entry, EntryType};

use super::build::{Attributes, Builder};
use super::error::{SourceError, shown};
use super::inflate::{Meter, Metered, decoder};

/// Bytes of headers before one entry: long names and extended attributes stay far below.
const HEADERS_LEN_MAX: u64 = 1024 * 1024;
/// Padding and sparse maps after the content of an entry.
const SLACK_LEN: u64 = 64 * 1024;
/// Bytes of all headers and padding of one archive.
const OVERHEAD_LEN_MAX: u64 = 1024 * 1024 * 1024;
const XATTR_PREFIX: &str = "SCHILY.xattr.";
const SPARSE_PREFIX: &str = "GNU.sparse.";

/// Reads a tar stream, compressed or not, into the builder.
pub(super) fn read(reader: impl BufRead, builder: &mut Builder) -> Result<(), SourceError> {
    let meter = Meter::new(builder.rules().limit().saturating_add(OVERHEAD_LEN_MAX));
    let path = builder.rules().path.clone();
    let result = (|| {
        let broken = |source| SourceError::Archive { path: path.clone(), source };
        let stream = Metered::new(decoder(reader).map_err(broken)?, meter.clone());
        let mut archive = Archive::new(stream);
        meter.allow(HEADERS_LEN_MAX);
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            meter.allow(entry.size().saturating_add(SLACK_LEN));
            take(&mut entry, builder)?;
            meter.allow(HEADERS_LEN_MAX);
        }
        // The rest is read too, so that a check sum at the end of the stream is looked at.
        meter.allow(HEADERS_LEN_MAX);
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
        Ok(())
    })();
    if meter.tripped() { Err(builder.rules().bomb()) } else { result }
}

/// The extended header of one entry, as far as stork keeps it.
#[derive(Default)]
struct Extended {
    mtime: Option<i64>,
    xattrs: Vec<Xattr>,
}

fn extended<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Extended> {
    let mut out = Extended::default();
    let Some(records) = entry.pax_extensions()? else { return Ok(out) };
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    for record in records {
        // A malformed record must not be skipped: what follows would be read as something else.
        let record = record?;
        let key = record.key().map_err(io::Error::other)?;
        if key == "mtime" {
            let text = record.value().map_err(io::Error::other)?;
            let whole = text.split('.').next().unwrap_or_default();
            out.mtime = Some(whole.parse().map_err(|_e| bad("a time is no number"))?);
        } else if key.starts_with(SPARSE_PREFIX) {
            // Name and length then stand in these records, and the map before the content.
            return Err(bad("a sparse file in the form of pax: use `tar --format=gnu`"));
        } else if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            out.xattrs.push(Xattr {
                name: name.parse().map_err(io::Error::other)?,
                value: Blob::new(record.value_bytes().to_vec()).map_err(io::Error::other)?,
            });
        }
    }
    out.xattrs.sort();
    if !out.xattrs.windows(2).all(|w| matches!(w, [a, b] if a.name < b.name)) {
        return Err(bad("an attribute is there twice"));
    }
    Ok(out)
}

fn narrow(value: u64) -> io::Result<u32> {
    u32::try_from(value).map_err(io::Error::other)
}

fn attributes<R: Read>(entry: &Entry<'_, R>, extended: &Extended) -> io::Result<Attributes> {
    let header = entry.header();
    let mode = u16::try_from(header.mode()? & 0o7777).map_err(io::Error::other)?;
    let mtime = match extended.mtime {
        Some(t) => t,
        None => i64::try_from(header.mtime()?).map_err(io::Error::other)?,
    };
    // npm leaves both fields empty: nobody in particular owns the files.
    let raw = header.as_old();
    let uid = if is_blank(&raw.uid) { 0 } else { narrow(header.uid()?)? };
    let gid = if is_blank(&raw.gid) { 0 } else { narrow(header.gid()?)? };
    Ok(Attributes { mode, uid, gid, mtime })
}

fn is_blank(field: &[u8]) -> bool {
    field.iter().all(|b| matches!(b, 0 | b' '))
}

fn take<R: Read>(entry: &mut Entry<'_, R>, builder: &mut Builder) -> Result<(), SourceError> {
    let archive = builder.rules().path.clone();
    let broken = |source| SourceError::Archive { path: archive.clone(), source };
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        io::copy(entry, &mut io::sink()).map_err(broken)?;
        return Ok(());
    }
    let raw = entry.path_bytes().into_owned();
    if raw.contains(&0) {
        return Err(SourceError::NotUtf8(shown(&raw)));
    }
    let mut extended = extended(entry).map_err(broken)?;
    let a = attributes(entry, &extended).map_err(broken)?;
    let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
    let device = |entry: &Entry<'_, R>| -> io::Result<(u32, u32)> {
        let h = entry.header();
        Ok((h.device_major()?.unwrap_or(0), h.device_minor()?.unwrap_or(0)))
    };
    match kind {
        EntryType::Directory => builder.add(&raw, a, TreeNode::Dir),
        // The format of 1979 marks a directory by its name alone.
        EntryType::Regular if raw.ends_with(b"/") && entry.size() == 0 => {
            builder.add(&raw, a, TreeNode::Dir)
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let xattrs = List::new(std::mem::take(&mut extended.xattrs))
                .map_err(|e| broken(io::Error::other(e)))?;
            let size = entry.size();
            builder.add_file(&raw, a, xattrs, (entry, size))
        }
        EntryType::Symlink => builder.add_symlink(&raw, a, &link),
        EntryType::Link => builder.add_hardlink(&raw, a, &link),
        EntryType::Fifo => builder.add(&raw, a, TreeNode::Fifo),
        EntryType::Char => {
            let (major, minor) = device(entry).map_err(broken)?;
            builder.add(&raw, a, TreeNode::CharDevice { major, minor })
        }
        EntryType::Block => {
            let (major, minor) = device(entry).map_err(broken)?;
            builder.add(&raw, a, TreeNode::BlockDevice { major, minor })
        }
        other => {
            let what = format!("an entry of type {:?}", char::from(other.as_byte()));
            Err(SourceError::Unsupported { path: shown(&raw), what })
        }
    }
}

/// The regular files of a small archive as names, modes and bytes: the control archive.
pub(super) fn small_files(
    reader: impl BufRead,
    len_max: u64,
) -> io::Result<Vec<(String, u16, Vec<u8>)>> {
    let meter = Meter::new(len_max);
    meter.allow(len_max);
    let mut archive = Archive::new(Metered::new(decoder(reader)?, meter));
    let mut out = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = shown(&entry.path_bytes());
        let name = name.trim_start_matches("./").to_owned();
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let mode = u16::try_from(entry.header().mode()? & 0o7777).unwrap_or(0o644);
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                out.push((name, mode, bytes));
            }
            EntryType::Directory | EntryType::XGlobalHeader => {}
            _ => return Err(io::Error::other(format!("`{name}` is no regular file"))),
        }
    }
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(out)
}
