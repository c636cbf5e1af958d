//! A `.deb` written again from a manifest and the contents of its files.
//!
//! It has the control archive as it was published and the files as a `tree` view shows them, so
//! that dpkg unpacks what was published. Members are compressed by zstd (dpkg of Debian 12 and
//! Ubuntu 18.04 or later): uncompressed ones would take the files' bytes a second time, gzip and
//! xz cost more time on both sides. One file is in memory in pieces of 64 KiB at a time.

use std::collections::BTreeSet;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use stork_wire::ids::ContentId;
use stork_wire::manifest::{Manifest, Source, SourceFormat, Tree, TreeEntry, TreeNode};

use super::content::{CopyError, Open, Written, copy_content, describe};
use super::md5sums;
use super::tar::{Archive, Head, Kind};

/// Part of the name of what is built: another way of writing makes other files.
pub const FORMAT: u32 = 1;
/// zstd's own default. python3.11-minimal, 6.9 MB: 2.85 MB in 0.04 s; level 9 2.64 MB in 0.19 s.
const LEVEL: i32 = 3;
/// Ten decimal digits of an `ar` header.
const MEMBER_LEN_MAX: u64 = 9_999_999_999;

/// Why a `.deb` cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The release's: it was published from something else.
    #[error("it was not published from a .deb")]
    NotADeb,
    /// The release's: dpkg takes no extended attributes.
    #[error("`{0}` has extended attributes, which a .deb cannot hold")]
    Attributes(String),
    /// The publisher's: the control archive has a name that is none.
    #[error("its control archive has a file `{0}`")]
    BadName(String),
    /// The release's: it is longer than the format can say.
    #[error("it is longer than a .deb may be (10 GB)")]
    TooLong,
    /// The disk's: a file of the store has other bytes than its name says.
    #[error("the store's file for content {} is damaged", .0.short())]
    Damaged(ContentId),
    /// The disk's.
    #[error("cannot read or write")]
    Io(#[from] io::Error),
}

impl From<CopyError> for DebError {
    fn from(e: CopyError) -> Self {
        match e {
            CopyError::Damaged(content) => Self::Damaged(content),
            CopyError::Io(e) => Self::Io(e),
        }
    }
}

/// Writes the `.deb` of a manifest. The writer must be empty, and is at its end afterwards.
///
/// # Errors
/// What was written so far is then worth nothing.
pub fn write_deb<W: Read + Write + Seek>(
    manifest: &Manifest,
    open: &mut Open<'_>,
    out: &mut W,
) -> Result<Written, DebError> {
    let Manifest { tree, source, .. } = manifest;
    if source.format != SourceFormat::Deb {
        return Err(DebError::NotADeb);
    }
    let time = tree.entries.iter().map(|e| e.mtime).max().unwrap_or(0).max(0);
    out.write_all(b"!<arch>\n")?;
    out.write_all(&member("debian-binary", time, 4))?;
    out.write_all(b"2.0\n")?;
    let control = control_archive(tree, source, time)?;
    let len = control.len() as u64;
    out.write_all(&member("control.tar.zst", time, len))?;
    out.write_all(&control)?;
    out.write_all(if len % 2 == 1 { b"\n" } else { b"" })?;
    let head = out.stream_position()?;
    out.write_all(&member("data.tar.zst", time, 0))?;
    let start = out.stream_position()?;
    data_archive(tree, time, open, out)?;
    let len = out.stream_position()? - start;
    if len > MEMBER_LEN_MAX {
        return Err(DebError::TooLong);
    }
    out.write_all(if len % 2 == 1 { b"\n" } else { b"" })?;
    out.seek(SeekFrom::Start(head))?;
    out.write_all(&member("data.tar.zst", time, len))?;
    Ok(describe(out)?)
}

/// The header of a member of the `ar` archive.
fn member(name: &str, time: i64, len: u64) -> Vec<u8> {
    format!("{name:<16}{time:<12}0     0     100644  {len:<10}`\n").into_bytes()
}

const fn folder(path: &str, mtime: i64) -> Head<'_> {
    Head { path, kind: Kind::Dir, mode: 0o755, uid: 0, gid: 0, mtime, size: 0, link: "" }
}

/// Names that dpkg's own list could hold: no path, nothing hidden.
fn is_plain(name: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    !name.starts_with('.') && !name.is_empty() && name.bytes().all(ok)
}

fn control_archive(tree: &Tree, source: &Source, time: i64) -> Result<Vec<u8>, DebError> {
    let files = md5sums::files(tree);
    let mut tar = Archive::new(zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?);
    tar.begin(&folder("./", time))?;
    control_file(&mut tar, ("control", 0o644), &source.control, time)?;
    let mut seen = BTreeSet::from(["control"]);
    for file in &source.control_files {
        let name = file.name.as_str();
        if !is_plain(name) || !seen.insert(name) {
            return Err(DebError::BadName(name.to_owned()));
        }
        let settled = md5sums::settled(&files, name, &file.bytes);
        let bytes = settled.as_deref().unwrap_or(&file.bytes);
        control_file(&mut tar, (name, file.mode & 0o777), bytes, time)?;
    }
    Ok(tar.finish()?.finish()?)
}

fn control_file<W: Write>(
    tar: &mut Archive<W>,
    (name, mode): (&str, u16),
    bytes: &[u8],
    mtime: i64,
) -> io::Result<()> {
    let path = format!("./{name}");
    let size = bytes.len() as u64;
    let head = Head { path: &path, kind: Kind::File, mode, uid: 0, gid: 0, mtime, size, link: "" };
    tar.begin(&head)?;
    tar.bytes(bytes)?;
    tar.end_entry(size)
}

fn data_archive<W: Write>(
    tree: &Tree,
    time: i64,
    open: &mut Open<'_>,
    out: &mut W,
) -> Result<(), DebError> {
    let mut encoder = zstd::stream::write::Encoder::new(out, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut tar = Archive::new(encoder);
    tar.begin(&folder("./", time))?;
    for entry in &tree.entries {
        data_entry(&mut tar, entry, open)?;
    }
    tar.finish()?.finish()?;
    Ok(())
}

fn data_entry<W: Write>(
    tar: &mut Archive<W>,
    e: &TreeEntry,
    open: &mut Open<'_>,
) -> Result<(), DebError> {
    let mut link = String::new();
    let mut bytes = None;
    let kind = match &e.node {
        TreeNode::Dir => Kind::Dir,
        TreeNode::File { content, size, xattrs } => {
            if !xattrs.is_empty() {
                return Err(DebError::Attributes(e.path.to_string()));
            }
            bytes = Some((*content, *size));
            Kind::File
        }
        TreeNode::Symlink { target } => {
            target.as_str().clone_into(&mut link);
            Kind::Symlink
        }
        TreeNode::Hardlink { target } => {
            link = format!("./{target}");
            Kind::Hardlink
        }
        TreeNode::Fifo => Kind::Fifo,
        TreeNode::CharDevice { major, minor } => Kind::Char(*major, *minor),
        TreeNode::BlockDevice { major, minor } => Kind::Block(*major, *minor),
    };
    let end = if kind == Kind::Dir { "/" } else { "" };
    let path = format!("./{}{end}", e.path);
    let size = bytes.map_or(0, |(_, size)| size);
    let (mode, uid, gid, mtime) = (e.mode, e.uid, e.gid, e.mtime);
    tar.begin(&Head { path: &path, kind, mode, uid, gid, mtime, size, link: &link })?;
    let Some((content, size)) = bytes.filter(|(_, size)| *size > 0) else { return Ok(()) };
    copy_content(content, size, open(content)?, &mut |bytes| tar.bytes(bytes))?;
    Ok(tar.end_entry(size)?)
}

/// The same into memory, for what is small.
pub fn deb_bytes(manifest: &Manifest, open: &mut Open<'_>) -> Result<(Vec<u8>, Written), DebError> {
    let mut out = Cursor::new(Vec::new());
    let deb = write_deb(manifest, open, &mut out)?;
    Ok((out.into_inner(), deb))
}
