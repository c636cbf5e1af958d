//! Packages as maintainers have them (`.deb`, `.rpm`, tar archives, directories) read into one
//! normal form: a checked tree, its contents in a spool, and what the package says about itself.
//!
//! Archives are opened here and nowhere else: hosts only ever see manifests (design §4 "Daemon").

mod ar;
mod archive;
mod build;
mod control;
mod deb;
mod dir;
#[cfg(test)]
mod dpkg_tests;
mod error;
mod holes;
mod inflate;
mod rpm;
mod spool;
#[cfg(test)]
mod tests;
mod usrmerge;

pub use control::Control;
pub use error::SourceError;
pub use spool::{CopyError, Spool};
pub use usrmerge::UsrMerge;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};
use stork_wire::codec::{Blob, List};
use stork_wire::limits::{DEPENDS_MAX, PROVIDES_MAX};
use stork_wire::manifest::{Source, SourceFormat, Tree};
use stork_wire::text::{Arch, Line, PackageName, Version};

use build::{Builder, Rules};

/// Unpacked bytes that are taken without being asked: 8 GiB.
pub const UNPACKED_LEN_DEFAULT: u64 = 8 * 1024 * 1024 * 1024;

/// How to read a package.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// The package's name, for sources that do not say it.
    pub name: Option<PackageName>,
    /// Its version, likewise.
    pub version: Option<Version>,
    /// Its architecture, likewise.
    pub arch: Option<Arch>,
    /// Whether `/bin` and its like are moved below `/usr` when reading a `.deb`.
    pub usr_merge: UsrMerge,
    /// Give all files to root.
    pub root_owner: bool,
    /// More unpacked bytes than this are taken for a bomb.
    pub unpacked_max: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            name: None,
            version: None,
            arch: None,
            usr_merge: UsrMerge::Canonical,
            root_owner: false,
            unpacked_max: UNPACKED_LEN_DEFAULT,
        }
    }
}

/// A package in its normal form.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// Its architecture.
    pub arch: Arch,
    /// What it needs.
    pub depends: List<Line, DEPENDS_MAX>,
    /// Names that it provides beside its own.
    pub provides: List<PackageName, PROVIDES_MAX>,
    /// What a VM will be shown.
    pub tree: Tree,
    /// What it was made from.
    pub source: Source,
    /// The bytes of its files.
    pub contents: Spool,
    /// What the maintainer should know about how it was read.
    pub notes: Vec<String>,
}

impl Package {
    /// Maintainer scripts, which a tree view does not run.
    #[must_use]
    pub fn scripts(&self) -> Vec<&str> {
        scripts(&self.source)
    }
    /// Bytes of all files, as a copy of the tree would take them.
    #[must_use]
    pub fn unpacked_bytes(&self) -> u64 {
        self.tree.payload_len()
    }
}

/// What a package says of itself; none for an archive or a folder.
#[must_use]
pub fn control(source: &Source) -> Option<Control> {
    rpm::control(source).or_else(|| Control::parse(&source.control).ok())
}

/// Maintainer scripts of a package, which a tree view does not run.
#[must_use]
pub fn scripts(source: &Source) -> Vec<&str> {
    let files = source.control_files.iter().filter(|f| f.is_script()).map(|f| f.name.as_str());
    files.chain(rpm::scripts(source)).collect()
}

/// Reads a package from a file or directory.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Package, SourceError> {
    let failed = |source| SourceError::Read { path: path.into(), source };
    let mut file = File::open(path).map_err(failed)?;
    let is_dir = file.metadata().map_err(failed)?.is_dir();
    let is_deb = !is_dir && deb::is_deb(&mut file).map_err(failed)?;
    let is_rpm = !is_dir && rpm::is_rpm(&mut file).map_err(failed)?;
    let usr_merge = if is_deb { options.usr_merge } else { UsrMerge::AsIs };
    let mut builder = Builder::new(Rules {
        path: path.into(),
        usr_merge,
        root_owner: options.root_owner,
        unpacked_max: options.unpacked_max,
    })?;
    if is_deb {
        refuse_names(options)?;
        return deb::read(path, &mut file, builder);
    }
    if is_rpm {
        refuse_names(options)?;
        return rpm::read(path, &mut file, builder);
    }
    let (name, version, arch) = named(path, options)?;
    let format = if is_dir {
        dir::read(path, &mut builder)?;
        SourceFormat::Directory
    } else {
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        if !is_tar(&mut file).map_err(failed)? {
            return Err(SourceError::UnknownKind(path.into()));
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        archive::read(BufReader::with_capacity(64 * 1024, &file), &mut builder)?;
        SourceFormat::Tar
    };
    let (tree, contents, moved) = builder.finish()?;
    let source = describe(path, &mut file, format)?;
    let (depends, provides) = (List::empty(), List::empty());
    let notes = moved.into_iter().collect();
    Ok(Package { name, version, arch, depends, provides, tree, source, contents, notes })
}

/// Compressed, or with the magic of a tar header; the format of 1979 has none and is not taken.
fn is_tar(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    inflate::decoder(BufReader::new(file))?.take(512).read_to_end(&mut start)?;
    let empty = start.len() == 512 && start.iter().all(|b| *b == 0);
    Ok(empty || start.get(257..262) == Some(b"ustar"))
}

fn refuse_names(options: &ReadOptions) -> Result<(), SourceError> {
    match (&options.name, &options.version, &options.arch) {
        (Some(_), _, _) => Err(SourceError::Contradiction("--name")),
        (_, Some(_), _) => Err(SourceError::Contradiction("--version")),
        (_, _, Some(_)) => Err(SourceError::Contradiction("--arch")),
        (None, None, None) => Ok(()),
    }
}

fn named(path: &Path, options: &ReadOptions) -> Result<(PackageName, Version, Arch), SourceError> {
    match (&options.name, &options.version, &options.arch) {
        (Some(n), Some(v), Some(a)) => Ok((n.clone(), v.clone(), a.clone())),
        (n, v, a) => {
            let missing =
                [(n.is_some(), "--name"), (v.is_some(), "--version"), (a.is_some(), "--arch")];
            let missing = missing.iter().filter(|(there, _)| !there).map(|(_, o)| *o).collect();
            Err(SourceError::Missing { path: path.into(), missing })
        }
    }
}

/// Name, size and SHA-256 of the source; zeros for a directory.
fn describe(path: &Path, file: &mut File, format: SourceFormat) -> Result<Source, SourceError> {
    let name = path.file_name().map_or_else(Default::default, |n| n.to_string_lossy());
    let file_name: Line = name.parse().map_err(SourceError::BadPath)?;
    let (mut size, mut sha256) = (0, [0; 32]);
    if format != SourceFormat::Directory {
        let failed = |source| SourceError::Read { path: path.into(), source };
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut hasher = Sha256::new();
        size = io::copy(file, &mut hasher).map_err(failed)?;
        sha256 = hasher.finalize().into();
    }
    let control = Blob::default();
    Ok(Source { format, file_name, size, sha256, control, control_files: List::empty() })
}
