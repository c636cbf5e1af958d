//! Debian binary packages: control archive, metadata and data archive.

use std::fs::File;
use std::io;
use std::path::Path;

use stork_wire::codec::{Blob, List};
use stork_wire::manifest::{ControlFile, SourceFormat};

use super::ar::{self, Member};
use super::build::Builder;
use super::control::Control;
use super::error::SourceError;
use super::{Package, archive};

/// Bytes of an unpacked control archive.
const CONTROL_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of one member of it, as the manifest's type says.
const CONTROL_FILE_LEN_MAX: usize = 1024 * 1024;

/// What the control archive holds.
struct Parts {
    control: Control,
    bytes: Vec<u8>,
    files: Vec<ControlFile>,
    notes: Vec<String>,
}

fn find<'a>(members: &'a [Member], stem: &str, path: &Path) -> Result<&'a Member, SourceError> {
    let fits = |m: &&Member| {
        let rest = m.name.strip_prefix(stem);
        rest.is_some_and(|r| r.is_empty() || r.starts_with('.'))
    };
    members.iter().find(fits).ok_or_else(|| SourceError::NotADeb {
        path: path.into(),
        why: format!("it has no member `{stem}`"),
    })
}

/// Reads a `.deb`.
pub(super) fn read(
    path: &Path,
    file: &mut File,
    mut builder: Builder,
) -> Result<Package, SourceError> {
    let members = ar::members(file, path)?;
    let broken = |source| SourceError::Archive { path: path.into(), source };
    let first = members.first().is_some_and(|m| m.name == "debian-binary");
    if !first {
        let why = "its first member is not `debian-binary`".into();
        return Err(SourceError::NotADeb { path: path.into(), why });
    }
    let control = find(&members, "control.tar", path)?;
    let reader = ar::open(file, control).map_err(broken)?;
    let files = archive::small_files(reader, CONTROL_LEN_MAX).map_err(broken)?;
    let parts = parts(files)?;
    let data = find(&members, "data.tar", path)?;
    archive::read(ar::open(file, data).map_err(broken)?, &mut builder)?;
    let (tree, contents, moved) = builder.finish()?;
    let mut notes = parts.notes;
    notes.extend(moved);
    let mut source = super::describe(path, file, SourceFormat::Deb)?;
    source.control =
        Blob::new(parts.bytes).map_err(|e| SourceError::Control(format!("too long: {e}")))?;
    source.control_files = List::new(parts.files)
        .map_err(|e| SourceError::Control(format!("the control archive is too full: {e}")))?;
    let Control { name, version, arch, depends, provides } = parts.control;
    Ok(Package { name, version, arch, depends, provides, tree, source, contents, notes })
}

fn parts(files: Vec<(String, u16, Vec<u8>)>) -> Result<Parts, SourceError> {
    let wrong = |e: &dyn std::fmt::Display| SourceError::Control(e.to_string());
    let mut control = None;
    let mut out = Vec::new();
    let mut notes = Vec::new();
    for (name, mode, bytes) in files {
        if name == "control" {
            control = Some(bytes);
        } else if name == "md5sums" && bytes.len() > CONTROL_FILE_LEN_MAX {
            // The tree has better sums of every file.
            notes.push("left out md5sums, which is longer than 1 MiB".into());
        } else {
            let bytes = Blob::new(bytes).map_err(|e| wrong(&format!("`{name}`: {e}")))?;
            let name = name.parse().map_err(|e| wrong(&e))?;
            out.push(ControlFile { name, mode, bytes });
        }
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    let bytes = control.ok_or_else(|| wrong(&"the control archive has no `control`"))?;
    Ok(Parts { control: Control::parse(&bytes)?, bytes, files: out, notes })
}

/// Is this a `.deb`, by its first bytes?
pub(super) fn is_deb(file: &mut File) -> io::Result<bool> {
    ar::is_ar(file)
}
