//! An RPM package written again from a manifest and the contents of its files.
//!
//! The payload is compressed by zstd (rpm 4.14 or later, built with it: Fedora 31, RHEL 9), and its
//! sums are put into the maintainer's header. One file is in memory in pieces at a time.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use ring::digest::{Context, SHA256, digest};
use stork_wire::ids::{ContentId, hex};
use stork_wire::manifest::{Manifest, SourceFormat, Tree, TreeEntry, TreeNode};
use stork_wire::rpm::info::FileInfo;
use stork_wire::rpm::{BadHeader, Header, Region, Value, tag};

use super::cpio::{Archive, Head};
use crate::apt::{CopyError, Open, Written, copy_content, describe};

/// Part of the name of what is built: another way of writing makes other files.
pub const FORMAT: u32 = 1;
/// zstd's own default, as for what apt gets.
const LEVEL: i32 = 3;
/// The name of the header among the control files.
const HEADER: &str = "header";
const LEAD_LEN: usize = 96;
const SHA256_OF_RPM: u32 = 8;

/// Why a package cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RpmError {
    /// The release's: it was published from something else.
    #[error("it was not published from an .rpm")]
    NotAnRpm,
    /// The publisher's: the header cannot be read.
    #[error(transparent)]
    Header(#[from] BadHeader),
    /// The publisher's: header and tree differ.
    #[error("its header and its tree say different things of `{0}`")]
    Differs(String),
    /// The release's: it is longer than the format can say.
    #[error("it is longer than this form of RPM may be (4 GiB)")]
    TooLong,
    /// The disk's: a file of the store has other bytes than its name says.
    #[error("the store's file for content {} is damaged", .0.short())]
    Damaged(ContentId),
    /// The disk's.
    #[error("cannot read or write")]
    Io(#[from] io::Error),
}

impl From<CopyError> for RpmError {
    fn from(e: CopyError) -> Self {
        match e {
            CopyError::Damaged(content) => Self::Damaged(content),
            CopyError::Io(e) => Self::Io(e),
        }
    }
}

/// The header of a release that was published from an RPM package, as it was kept.
pub fn header_of(manifest: &Manifest) -> Result<Header, RpmError> {
    if manifest.source.format != SourceFormat::Rpm {
        return Err(RpmError::NotAnRpm);
    }
    let kept = manifest.source.control_files.iter().find(|f| f.name.as_str() == HEADER);
    Ok(Header::parse(&kept.ok_or(RpmError::NotAnRpm)?.bytes)?)
}

/// The header of signatures and sums, padded; always of the same length.
fn signatures(main: &[u8], payload: u32, unpacked: u32) -> Result<Vec<u8>, RpmError> {
    let mut header = Header::default();
    let size = u32::try_from(main.len()).ok().and_then(|len| len.checked_add(payload));
    header.set(tag::SIGSIZE, Value::Int32(vec![size.ok_or(RpmError::TooLong)?]));
    header.set(tag::SIGPAYLOADSIZE, Value::Int32(vec![unpacked]));
    let sum = hex(digest(&SHA256, main).as_ref());
    header.set(tag::SIGSHA256, Value::Text(sum.into_bytes()));
    let mut out = header.encode(Region::Signatures);
    out.resize(out.len().next_multiple_of(8), 0);
    Ok(out)
}

/// What rpm 3 wrote, and later ones hardly look at.
fn lead(name: &str) -> [u8; LEAD_LEN] {
    let mut out = [0; LEAD_LEN];
    let start = [0xed, 0xab, 0xee, 0xdb, 3, 0, 0, 0, 0, 1];
    let named = name.bytes().take(65).collect::<Vec<u8>>();
    let parts: [(usize, &[u8]); 3] = [(0, &start), (10, &named), (76, &[0, 1, 0, 5])];
    for (at, bytes) in parts {
        for (to, from) in out.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }
    out
}

/// Where the main header stands in the package: what it begins and ends at.
pub(super) fn header_range(header: &Header) -> (u64, u64) {
    let main = with_payload(header, ["0"; 2].map(|d| d.repeat(64)));
    let before = LEAD_LEN + signatures(&main, 0, 0).map_or(0, |s| s.len());
    (before as u64, (before + main.len()) as u64)
}

/// The header with what it must say of a payload with these sums: compressed, and before.
fn with_payload(header: &Header, sums: [String; 2]) -> Vec<u8> {
    let mut header = header.clone();
    let [packed, unpacked] = sums;
    header.set(tag::PAYLOADCOMPRESSOR, Value::Text(b"zstd".to_vec()));
    header.set(tag::PAYLOADFLAGS, Value::Text(LEVEL.to_string().into_bytes()));
    header.set(tag::PAYLOADDIGEST, Value::texts(&[packed]));
    header.set(tag::PAYLOADDIGESTALGO, Value::Int32(vec![SHA256_OF_RPM]));
    header.set(tag::PAYLOADDIGESTALT, Value::texts(&[unpacked]));
    header.encode(Region::Main)
}

/// Counts and hashes what passes.
struct Summed<W> {
    out: W,
    len: u64,
    hash: Context,
}

impl<W> Summed<W> {
    fn new(out: W) -> Self {
        Self { out, len: 0, hash: Context::new(&SHA256) }
    }
    fn sum(self) -> String {
        hex(self.hash.finish().as_ref())
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        self.len += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes the package of a manifest. The writer must be empty, and is at its end afterwards.
///
/// # Errors
/// What was written so far is then worth nothing.
pub fn write_rpm<W: Read + Write + Seek>(
    manifest: &Manifest,
    open: &mut Open<'_>,
    out: &mut W,
) -> Result<Written, RpmError> {
    let header = header_of(manifest)?;
    let files = header.files()?;
    let members = members(&files, &manifest.tree)?;
    let (_, end) = header_range(&header);
    // The sums are known at the end; their places are not moved by them.
    out.seek(SeekFrom::Start(end))?;
    let encoder = zstd::stream::write::Encoder::new(Summed::new(&mut *out), LEVEL)?;
    let mut archive = Archive::new(Summed::new(encoder));
    for member in &members {
        write_member(&mut archive, member, open)?;
    }
    let Summed { out: encoder, len: unpacked, hash } = archive.finish()?;
    let unpacked_sum = hex(hash.finish().as_ref());
    let payload = encoder.finish()?;
    let (short, packed) = (|n: u64| u32::try_from(n).map_err(|_e| RpmError::TooLong), payload.len);
    let main = with_payload(&header, [payload.sum(), unpacked_sum]);
    let signatures = signatures(&main, short(packed)?, short(unpacked)?)?;
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&lead(&format!("{}-{}", header.text(tag::NAME), header.evr())))?;
    out.write_all(&signatures)?;
    out.write_all(&main)?;
    Ok(describe(out)?)
}

/// An entry of the payload.
struct Member<'a> {
    file: &'a FileInfo,
    inode: u32,
    names: u32,
    /// Bytes that come with it: the names of one file share them, and the last one has them.
    content: Option<(ContentId, u32)>,
}

/// The files of the header that the payload has, each compared with the tree.
fn members<'a>(files: &'a [FileInfo], tree: &Tree) -> Result<Vec<Member<'a>>, RpmError> {
    let mut left: BTreeMap<&str, &TreeEntry> =
        tree.entries.iter().map(|e| (e.path.as_str(), e)).collect();
    let all = left.clone();
    let mut groups: BTreeMap<(u32, u32), (&str, Vec<usize>)> = BTreeMap::new();
    let mut out: Vec<Member<'a>> = Vec::new();
    for file in files.iter().filter(|f| !f.is_ghost()) {
        let differs = || RpmError::Differs(file.path.clone());
        let entry = left.remove(file.path.as_str()).ok_or_else(differs)?;
        if file.mode & 0o7777 != entry.mode || i64::from(file.mtime) != entry.mtime {
            return Err(differs());
        }
        let inode = u32::try_from(out.len() + 1).map_err(|_e| RpmError::TooLong)?;
        let mut member = Member { file, inode, names: 1, content: None };
        let (first, node) = match &entry.node {
            TreeNode::Hardlink { target } => {
                let owner = all.get(target.as_str()).ok_or_else(differs)?;
                (target.as_str(), &owner.node)
            }
            node => (entry.path.as_str(), node),
        };
        let right = match node {
            TreeNode::File { content, size, xattrs } => {
                let size = u32::try_from(*size).map_err(|_e| RpmError::TooLong)?;
                member.content = Some((*content, size));
                // rpm takes files with one number for one file.
                let group = groups.entry(file.inode).or_insert((first, Vec::new()));
                group.1.push(out.len());
                let alone = xattrs.is_empty() && group.0 == first;
                alone && file.kind() == 0o100_000 && u64::from(size) == file.size
            }
            TreeNode::Dir => file.kind() == 0o040_000,
            TreeNode::Symlink { target } => {
                file.kind() == 0o120_000 && target.as_str() == file.link
            }
            TreeNode::Fifo => file.kind() == 0o010_000,
            TreeNode::CharDevice { major, minor } => {
                file.kind() == 0o020_000 && rdev(file) == (*major, *minor)
            }
            TreeNode::BlockDevice { major, minor } => {
                file.kind() == 0o060_000 && rdev(file) == (*major, *minor)
            }
            TreeNode::Hardlink { .. } => false,
        };
        if !right {
            return Err(differs());
        }
        out.push(member);
    }
    // Folders above the package's own are added to a tree; nothing else may be there.
    if let Some(entry) = left.values().find(|e| !matches!(e.node, TreeNode::Dir)) {
        return Err(RpmError::Differs(entry.path.to_string()));
    }
    join(&mut out, groups.into_values().map(|(_, places)| places));
    Ok(out)
}

/// Gives the names of one file one number, and its bytes to the last of them.
fn join(members: &mut [Member<'_>], groups: impl Iterator<Item = Vec<usize>>) {
    for places in groups.filter(|places| places.len() > 1) {
        let inode = places.first().and_then(|p| members.get(*p)).map_or(0, |m| m.inode);
        for place in &places {
            let Some(member) = members.get_mut(*place) else { continue };
            member.inode = inode;
            member.names = u32::try_from(places.len()).unwrap_or(u32::MAX);
            member.content = member.content.filter(|_| places.last() == Some(place));
        }
    }
}

fn rdev(file: &FileInfo) -> (u32, u32) {
    (u32::from(file.rdev >> 8), u32::from(file.rdev & 0xff))
}

fn write_member<W: Write>(
    archive: &mut Archive<W>,
    member: &Member<'_>,
    open: &mut Open<'_>,
) -> Result<(), RpmError> {
    let Member { file, inode, names, content } = member;
    let link = if file.kind() == 0o120_000 { file.link.as_bytes() } else { &[] };
    let link_len = u32::try_from(link.len()).map_err(|_e| RpmError::TooLong)?;
    archive.begin(&Head {
        path: &file.path,
        inode: *inode,
        names: *names,
        mode: file.mode,
        mtime: file.mtime,
        rdev: rdev(file),
        size: content.map_or(link_len, |(_, size)| size),
    })?;
    archive.bytes(link)?;
    if let Some((content, size)) = content.filter(|(_, size)| *size > 0) {
        copy_content(content, size.into(), open(content)?, &mut |bytes| archive.bytes(bytes))?;
    }
    Ok(archive.pad()?)
}
