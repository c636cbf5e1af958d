//! RPM packages: lead, two headers, and a payload that is a compressed cpio archive.
//!
//! The main header is the authority for everything but the bytes of files: names, modes, owners.
//! It is kept, without what the payload says of itself, so that hosts can write the package again
//! for guests that install it by their own dnf. Signatures are not looked at: the maintainer signs
//! anew. Sums are, so that a broken download is not published.

mod cpio;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};
use stork_wire::codec::{Blob, List};
use stork_wire::ids::hex;
use stork_wire::manifest::{ControlFile, Source, SourceFormat, TreeNode};
use stork_wire::rpm::info::{FileInfo, Relation, debian_arch};
use stork_wire::rpm::{Header, Region, tag};
use stork_wire::text::Line;

use super::build::{Attributes, Builder};
use super::control::Control;
use super::error::{SourceError, shown};
use super::{Package, inflate};

const LEAD_LEN: u64 = 96;
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
/// Bytes of a header that are read; kept are at most [`KEPT_LEN_MAX`].
const HEADER_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of the header that goes into the manifest.
const KEPT_LEN_MAX: usize = 1024 * 1024;
/// The name of the header among the control files.
const HEADER: &str = "header";
/// What the payload says of itself, and signatures of files: a host writes another payload.
const OF_PAYLOAD: [u32; 7] = [
    tag::PAYLOADCOMPRESSOR,
    tag::PAYLOADFLAGS,
    tag::PAYLOADDIGEST,
    tag::PAYLOADDIGESTALGO,
    tag::PAYLOADDIGESTALT,
    tag::FILESIGNATURES,
    tag::FILESIGNATURELENGTH,
];
const CHANGELOG: [u32; 3] = [tag::CHANGELOGTIME, tag::CHANGELOGNAME, tag::CHANGELOGTEXT];
/// Scripts of a package, by tag.
const SCRIPTS: [(u32, &str); 6] = [
    (1023, "%pre"),
    (1024, "%post"),
    (1025, "%preun"),
    (1026, "%postun"),
    (1151, "%pretrans"),
    (1152, "%posttrans"),
];

/// Is this an RPM package, by its first bytes?
pub(super) fn is_rpm(file: &mut File) -> io::Result<bool> {
    file.seek(SeekFrom::Start(0))?;
    let mut magic = Vec::new();
    file.take(4).read_to_end(&mut magic)?;
    Ok(magic == LEAD_MAGIC)
}

fn not(path: &Path, why: impl std::fmt::Display) -> SourceError {
    SourceError::NotAnRpm { path: path.into(), why: why.to_string() }
}

/// A header from where the file stands, and its bytes.
fn header(path: &Path, file: &mut File) -> Result<(Header, Vec<u8>), SourceError> {
    let broken = |source| SourceError::Archive { path: path.into(), source };
    let mut bytes = vec![0; 16];
    file.read_exact(&mut bytes).map_err(broken)?;
    let intro = bytes.first_chunk().copied().unwrap_or_default();
    let len = Header::len_of(&intro).map_err(|e| not(path, e))?;
    if len > HEADER_LEN_MAX {
        return Err(not(path, format!("a header of {len} bytes")));
    }
    file.take(len - 16).read_to_end(&mut bytes).map_err(broken)?;
    let header = Header::parse(&bytes).map_err(|e| not(path, e))?;
    Ok((header, bytes))
}

/// The main header, checked, with the file at the beginning of its payload.
fn main_header(path: &Path, file: &mut File) -> Result<Header, SourceError> {
    let broken = |source| SourceError::Archive { path: path.into(), source };
    file.seek(SeekFrom::Start(LEAD_LEN)).map_err(broken)?;
    let (signatures, bytes) = header(path, file)?;
    let pad = (bytes.len() as u64).next_multiple_of(8) - bytes.len() as u64;
    file.seek_relative(i64::try_from(pad).unwrap_or(0)).map_err(broken)?;
    let (header, bytes) = header(path, file)?;
    let said = signatures.text(tag::SIGSHA256);
    if !said.is_empty() && said != hex(&Sha256::digest(&bytes)) {
        return Err(not(path, "its header has another sum than it says"));
    }
    check_payload(path, file, &header)?;
    if header.get(tag::SOURCEPACKAGE).is_some() || header.get(tag::SOURCERPM).is_none() {
        return Err(not(path, "it is a source package"));
    }
    let format = header.text(tag::PAYLOADFORMAT);
    if format != "cpio" {
        return Err(not(path, format!("its payload is `{}`, not cpio", shown(format.as_bytes()))));
    }
    Ok(header)
}

/// Compares the payload with its sum, where the header says one, and goes back to its beginning.
fn check_payload(path: &Path, file: &mut File, header: &Header) -> Result<(), SourceError> {
    let broken = |source| SourceError::Archive { path: path.into(), source };
    let sha256 = header.numbers(tag::PAYLOADDIGESTALGO) == [8];
    let said = header.texts(tag::PAYLOADDIGEST).next().filter(|_| sha256);
    let Some(said) = said else { return Ok(()) };
    let start = file.stream_position().map_err(broken)?;
    let mut hasher = Sha256::new();
    io::copy(file, &mut hasher).map_err(broken)?;
    if hex(&hasher.finalize()).as_bytes() != said {
        return Err(not(path, "its payload has another sum than its header says"));
    }
    file.seek(SeekFrom::Start(start)).map_err(broken)?;
    Ok(())
}

/// Reads an RPM package.
pub(super) fn read(
    path: &Path,
    file: &mut File,
    mut builder: Builder,
) -> Result<Package, SourceError> {
    let mut header = main_header(path, file)?;
    let files = header.files().map_err(|e| not(path, e))?;
    let payload = BufReader::with_capacity(64 * 1024, &*file);
    let payload = inflate::decoder(payload)
        .map_err(|source| SourceError::Archive { path: path.into(), source })?;
    let mut notes = take_payload(path, payload, &files, &mut builder)?;
    let (tree, contents, moved) = builder.finish()?;
    notes.extend(moved);
    let Control { name, version, arch, depends, provides } =
        claims(&header).map_err(|e| not(path, e))?;
    if let Some(name) = header.replaces_unprovided().map_err(|e| not(path, e))? {
        let name = shown(name.as_bytes());
        return Err(not(path, format!("it obsoletes `{name}`, but does not provide that name")));
    }
    for tag in OF_PAYLOAD {
        header.remove(tag);
    }
    let mut source = super::describe(path, file, SourceFormat::Rpm)?;
    source.control_files = kept(path, header, &mut notes)?;
    Ok(Package { name, version, arch, depends, provides, tree, source, contents, notes })
}

/// What a header says of its package, as a control file says it of a `.deb`.
fn claims(header: &Header) -> Result<Control, String> {
    let wrong = |e: stork_wire::text::BadText| e.to_string();
    let depends = depends(header).map_err(|e| e.to_string())?;
    let provides = header.provided().map_err(|e| e.to_string())?;
    Ok(Control {
        name: header.text(tag::NAME).parse().map_err(wrong)?,
        version: header.evr().parse().map_err(wrong)?,
        arch: debian_arch(&header.text(tag::ARCH)).parse().map_err(wrong)?,
        depends: List::new(depends).map_err(|e| format!("too many Requires: {e}"))?,
        provides: List::new(provides.into_iter().collect())
            .map_err(|e| format!("too many Provides: {e}"))?,
    })
}

/// The header that a source has kept, if it was an RPM package.
fn kept_header(source: &Source) -> Option<Header> {
    let kept = source.control_files.iter().find(|f| f.name.as_str() == HEADER);
    let kept = kept.filter(|_| source.format == SourceFormat::Rpm)?;
    Header::parse(&kept.bytes).ok()
}

/// What the package says of itself, if the source was an RPM package.
pub(super) fn control(source: &Source) -> Option<Control> {
    claims(&kept_header(source)?).ok()
}

/// The names of its scripts, likewise.
pub(super) fn scripts(source: &Source) -> Vec<&'static str> {
    let header = kept_header(source).unwrap_or_default();
    let there = SCRIPTS.iter().filter(|(tag, _)| header.get(*tag).is_some());
    there.map(|(_, name)| *name).collect()
}

/// The header as a control file; without its history where it is too long with it.
fn kept(
    path: &Path,
    mut header: Header,
    notes: &mut Vec<String>,
) -> Result<List<ControlFile, 64>, SourceError> {
    let mut bytes = header.encode(Region::Main);
    if bytes.len() > KEPT_LEN_MAX {
        CHANGELOG.iter().for_each(|tag| header.remove(*tag));
        bytes = header.encode(Region::Main);
        notes.push("left out its changelog: the header is longer than 1 MiB with it".into());
    }
    let bytes = Blob::new(bytes).map_err(|e| not(path, format!("its header is too long: {e}")))?;
    let name: Line = HEADER.parse().map_err(SourceError::BadPath)?;
    Ok(List::truncated([ControlFile { name, mode: 0o644, bytes }]))
}

/// Packages that it needs, without itself and what is no package.
fn depends(header: &Header) -> Result<Vec<Line>, stork_wire::rpm::BadHeader> {
    let own = header.text(tag::NAME);
    let mut out: Vec<Line> = Vec::new();
    for needed in header.dependencies(Relation::Requires)? {
        let line = needed.line().filter(|_| !needed.is_rpmlib() && needed.name != own);
        out.extend(line.filter(|l| !out.contains(l)));
    }
    Ok(out)
}

/// Adds what the payload holds; notes about what is not carried.
fn take_payload(
    path: &Path,
    payload: impl Read,
    files: &[FileInfo],
    builder: &mut Builder,
) -> Result<Vec<String>, SourceError> {
    let broken = |source| SourceError::Archive { path: path.into(), source };
    let mut missing: BTreeMap<&str, &FileInfo> =
        files.iter().filter(|f| !f.is_ghost()).map(|f| (f.path.as_str(), f)).collect();
    let mut links = Links::default();
    let mut archive = cpio::Archive::new(payload);
    while let Some(entry) = archive.next().map_err(broken)? {
        let name = entry.name.trim_start_matches('.').trim_start_matches('/');
        let file = missing.remove(name);
        let file = file.ok_or_else(|| not(path, format!("its header does not list `{name}`")))?;
        let what = |what: String| SourceError::Unsupported { path: name.to_owned(), what };
        check_owner(file).map_err(what)?;
        let attributes = attributes(file);
        let raw = file.path.as_bytes();
        match file.kind() {
            0o100_000 if entry.nlink > 1 && entry.size == 0 && !links.has_data(file) => {
                links.waiting.entry(file.inode).or_default().push(file);
            }
            0o100_000 if entry.nlink > 1 && entry.size == 0 => links.link(builder, file)?,
            0o100_000 => {
                if entry.size != file.size {
                    return Err(not(path, format!("`{name}` has another size than listed")));
                }
                let mut bytes = archive.data(entry.size);
                builder.add_file(raw, attributes, List::empty(), (&mut bytes, entry.size))?;
                if entry.nlink > 1 {
                    links.data(builder, file)?;
                }
            }
            0o120_000 => {
                let mut target = Vec::new();
                archive.data(entry.size.min(8_192)).read_to_end(&mut target).map_err(broken)?;
                if target != file.link.as_bytes() {
                    return Err(not(path, format!("`{name}` leads elsewhere than listed")));
                }
                builder.add_symlink(raw, attributes, &target)?;
            }
            0o040_000 => builder.add(raw, attributes, TreeNode::Dir)?,
            0o010_000 => builder.add(raw, attributes, TreeNode::Fifo)?,
            kind @ (0o020_000 | 0o060_000) => {
                let (major, minor) = (u32::from(file.rdev >> 8), u32::from(file.rdev & 0xff));
                let node = match kind {
                    0o020_000 => TreeNode::CharDevice { major, minor },
                    _ => TreeNode::BlockDevice { major, minor },
                };
                builder.add(raw, attributes, node)?;
            }
            kind => return Err(what(format!("a file of type {kind:o}"))),
        }
        archive.finish_entry().map_err(broken)?;
    }
    links.finish(builder)?;
    if let Some(name) = missing.keys().next() {
        return Err(not(path, format!("`{}` is listed, and not there", shown(name.as_bytes()))));
    }
    Ok(remarks(files))
}

fn attributes(file: &FileInfo) -> Attributes {
    // Numbers of owners are the guest's; which ones, only its own tools know.
    Attributes { mode: file.mode & 0o7777, uid: 0, gid: 0, mtime: file.mtime.into() }
}

/// What would run as somebody else than the package says must not become root's.
fn check_owner(file: &FileInfo) -> Result<(), String> {
    let regular = file.kind() == 0o100_000;
    if regular && file.mode & 0o4000 != 0 && file.user != "root" {
        return Err(format!("a setuid file of `{}`, whose number is not said", file.user));
    }
    if regular && file.mode & 0o2000 != 0 && file.group != "root" {
        return Err(format!("a setgid file of `{}`, whose number is not said", file.group));
    }
    Ok(())
}

/// What a maintainer should know about what trees do not carry.
fn remarks(files: &[FileInfo]) -> Vec<String> {
    let mut out = Vec::new();
    let real = || files.iter().filter(|f| !f.is_ghost());
    if let Some(one) = real().find(|f| f.user != "root" || f.group != "root") {
        let (user, group, path) = (&one.user, &one.group, &one.path);
        out.push(format!(
            "files of `{user}:{group}` such as {path} belong to root, but where a guest installs \
             the package itself"
        ));
    }
    if let Some(one) = real().find(|f| f.has_capabilities) {
        let path = &one.path;
        out.push(format!("{path} has its capabilities only where a guest installs it itself"));
    }
    out
}

/// Names of files that have several: the archive has the bytes with one of them.
#[derive(Default)]
struct Links<'a> {
    waiting: BTreeMap<(u32, u32), Vec<&'a FileInfo>>,
    owners: BTreeMap<(u32, u32), &'a FileInfo>,
}

impl<'a> Links<'a> {
    fn has_data(&self, file: &FileInfo) -> bool {
        self.owners.contains_key(&file.inode)
    }

    fn link(&self, builder: &mut Builder, file: &FileInfo) -> Result<(), SourceError> {
        let Some(owner) = self.owners.get(&file.inode) else { return Ok(()) };
        builder.add_hardlink(file.path.as_bytes(), attributes(file), owner.path.as_bytes())
    }

    /// This name came with the bytes.
    fn data(&mut self, builder: &mut Builder, owner: &'a FileInfo) -> Result<(), SourceError> {
        self.owners.insert(owner.inode, owner);
        for file in self.waiting.remove(&owner.inode).unwrap_or_default() {
            self.link(builder, file)?;
        }
        Ok(())
    }

    /// What never came with bytes is empty.
    fn finish(mut self, builder: &mut Builder) -> Result<(), SourceError> {
        let left: Vec<_> = self.waiting.values().filter_map(|all| all.last().copied()).collect();
        for owner in left {
            let nothing: (&mut dyn Read, u64) = (&mut io::empty(), 0);
            builder.add_file(owner.path.as_bytes(), attributes(owner), List::empty(), nothing)?;
            if let Some(all) = self.waiting.get_mut(&owner.inode) {
                all.pop();
            }
            self.data(builder, owner)?;
        }
        Ok(())
    }
}
