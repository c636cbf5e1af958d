//! What is inside a package, a manifest or a packed directory; and whether packs are what their
//! manifest says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use stork_wire::ids::{ContentId, TreeId, hex};
use stork_wire::limits::MANIFEST_LEN_MAX;
use stork_wire::manifest::{
    Manifest, ManifestError, Pack, Packing, Source, SourceFormat, Tree, TreeEntry, TreeNode,
    Variant,
};

use crate::out;
use crate::pack::{UnpackError, check_pack, unpack};
use crate::source::{self, ReadOptions, SourceError};

/// What cannot be looked into, or is not what it says.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is no package and no manifest.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The manifest breaks a rule.
    #[error("`{path}` is no manifest")]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// The packs are not what the manifest says.
    #[error("verification failed")]
    Unpack(#[from] UnpackError),
}

impl InspectError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Source(e) => e.help(),
            Self::Read { .. } => "name the directory that `stork-publish pack --out` wrote".into(),
            Self::Manifest { .. } | Self::Unpack(_) => {
                "pack it again: stork-publish pack FILE --out DIR".into()
            }
        }
    }
    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Source(e) => e.exit(),
            Self::Read { source, .. } | Self::Unpack(UnpackError::Read { source, .. }) => {
                out::file_exit(source)
            }
            Self::Manifest { .. } => 4,
            Self::Unpack(e) if e.is_mismatch() => 4,
            _ => 1,
        }
    }
}

/// One entry for people and scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryView {
    /// Where it is.
    pub path: String,
    /// `file`, `dir`, `symlink`, `hardlink`, `fifo`, `char` or `block`.
    pub kind: &'static str,
    /// Permission bits, octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// The hash of a file's bytes.
    pub content: Option<ContentId>,
    /// What a link names.
    pub target: Option<String>,
    /// What only a VM's policy may allow.
    pub privilege: Option<&'static str>,
}

/// How it is packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackingView {
    /// Bytes of a piece.
    pub piece_len: u32,
    /// Full packs.
    pub packs: usize,
    /// Bytes of the full packs.
    pub full_bytes: u64,
    /// Pieces of the full packs.
    pub pieces: usize,
    /// The base of the delta.
    pub delta_base: Option<TreeId>,
    /// Bytes of the delta.
    pub delta_bytes: Option<u64>,
}

/// What is inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// `stork.inspect/v1`.
    pub schema: &'static str,
    /// The package's name, where it is known.
    pub package: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Its architecture.
    pub arch: Option<String>,
    /// What it was made from.
    pub format: SourceFormat,
    /// The source's file name.
    pub file_name: String,
    /// The source's SHA-256; `None` for a directory.
    pub sha256: Option<String>,
    /// What it needs.
    pub depends: Vec<String>,
    /// What it provides.
    pub provides: Vec<String>,
    /// Maintainer scripts, which a tree view does not run.
    pub scripts: Vec<String>,
    /// Other members of the control archive.
    pub control_files: Vec<String>,
    /// The identity of what a VM is shown.
    pub tree: TreeId,
    /// Bytes of all files.
    pub unpacked_bytes: u64,
    /// How it is packed, for a manifest.
    pub packing: Option<PackingView>,
    /// All entries.
    pub entries: Vec<EntryView>,
}

impl EntryView {
    fn of(e: &TreeEntry) -> Self {
        let (kind, size, content, target) = match &e.node {
            TreeNode::Dir => ("dir", None, None, None),
            TreeNode::File { content, size, .. } => ("file", Some(*size), Some(*content), None),
            TreeNode::Symlink { target } => ("symlink", None, None, Some(target.to_string())),
            TreeNode::Hardlink { target } => ("hardlink", None, None, Some(target.to_string())),
            TreeNode::Fifo => ("fifo", None, None, None),
            TreeNode::CharDevice { .. } => ("char", None, None, None),
            TreeNode::BlockDevice { .. } => ("block", None, None, None),
        };
        Self {
            path: e.path.to_string(),
            kind,
            mode: format!("{:04o}", e.mode),
            uid: e.uid,
            gid: e.gid,
            mtime: e.mtime,
            size,
            content,
            target,
            privilege: e.privilege(),
        }
    }

    fn line(&self) -> String {
        let size = self.size.map_or_else(|| "-".to_owned(), |s| s.to_string());
        let target = self.target.as_ref().map(|t| format!(" -> {t}")).unwrap_or_default();
        let flag = self.privilege.map(|p| format!("  [{p}]")).unwrap_or_default();
        let (kind, mode, path) = (self.kind, &self.mode, &self.path);
        format!("{kind:8} {mode} {:>5}:{:<5} {size:>12} {path}{target}{flag}", self.uid, self.gid)
    }
}

impl PackingView {
    fn of(packing: &Packing) -> Self {
        Self {
            piece_len: packing.piece_len,
            packs: packing.packs.len(),
            full_bytes: packing.bytes(Variant::Full),
            pieces: packing.piece_count(Variant::Full),
            delta_base: packing.delta.as_ref().map(|d| d.base),
            delta_bytes: packing.delta.as_ref().map(|_| packing.bytes(Variant::Delta)),
        }
    }
}

impl Inspection {
    fn of(tree: &Tree, source: &Source) -> Self {
        let control = source::control(source);
        let others = source.control_files.iter().filter(|f| !f.is_script());
        let list =
            |f: fn(&source::Control) -> Vec<String>| control.as_ref().map(f).unwrap_or_default();
        Self {
            schema: "stork.inspect/v1",
            package: control.as_ref().map(|c| c.name.to_string()),
            version: control.as_ref().map(|c| c.version.to_string()),
            arch: control.as_ref().map(|c| c.arch.to_string()),
            format: source.format,
            file_name: source.file_name.to_string(),
            sha256: (source.format != SourceFormat::Directory).then(|| hex(&source.sha256)),
            depends: list(|c| c.depends.iter().map(ToString::to_string).collect()),
            provides: list(|c| c.provides.iter().map(ToString::to_string).collect()),
            scripts: source::scripts(source).into_iter().map(str::to_owned).collect(),
            control_files: others.map(|f| f.name.to_string()).collect(),
            tree: tree.id(),
            unpacked_bytes: tree.payload_len(),
            packing: None,
            entries: tree.entries.iter().map(EntryView::of).collect(),
        }
    }

    /// The inspection as lines for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut out = Vec::new();
        if let (Some(p), Some(v), Some(a)) = (&self.package, &self.version, &self.arch) {
            out.push(format!("package   {p} {v} ({a})"));
        }
        out.push(format!("source    {:?}, {}", self.format, self.file_name));
        out.push(format!("tree      {}", self.tree));
        let entries = self.entries.len();
        out.push(format!("content   {entries} entries, {}", out::bytes(self.unpacked_bytes)));
        for (what, list) in [("depends", &self.depends), ("provides", &self.provides)] {
            if !list.is_empty() {
                out.push(format!("{what:9} {}", list.join(", ")));
            }
        }
        if !self.scripts.is_empty() {
            let scripts = self.scripts.join(", ");
            out.push(format!("scripts   {scripts} (a tree view does not run them)"));
        }
        if let Some(p) = &self.packing {
            let full = out::bytes(p.full_bytes);
            let (packs, pieces, len) = (p.packs, p.pieces, out::bytes(p.piece_len.into()));
            out.push(format!("packing   {full} in {packs} packs, {pieces} pieces of {len}"));
            if let (Some(base), Some(bytes)) = (&p.delta_base, p.delta_bytes) {
                out.push(format!("delta     {} against tree {base}", out::bytes(bytes)));
            }
        }
        out.extend(self.entries.iter().map(EntryView::line));
        out
    }
}

fn read_manifest(path: &Path) -> Result<Manifest, InspectError> {
    use io::Read;
    let failed = |source| InspectError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MANIFEST_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    let wrong = |source| InspectError::Manifest { path: path.into(), source };
    Manifest::from_bytes(&bytes).map_err(wrong)
}

/// Looks into a package file, a directory, a manifest, or what `pack --out` wrote.
pub fn inspect(path: &Path, options: &ReadOptions) -> Result<Inspection, InspectError> {
    let packed = path.join("manifest");
    let manifest = if packed.is_file() && path.join("packs").is_dir() {
        read_manifest(&packed)?
    } else {
        let named = |options: &ReadOptions| -> Option<ReadOptions> {
            let (name, version) = ("unnamed".parse().ok()?, "0".parse().ok()?);
            let arch = "all".parse().ok()?;
            Some(ReadOptions {
                name: options.name.clone().or(Some(name)),
                version: options.version.clone().or(Some(version)),
                arch: options.arch.clone().or(Some(arch)),
                ..options.clone()
            })
        };
        let unnamed = source::read(path, options);
        let package = match (unnamed, named(options)) {
            // The names of a tar archive do not matter to what is inside it.
            (Err(SourceError::Missing { .. }), Some(options)) => source::read(path, &options),
            (other, _) => other,
        };
        match package {
            Ok(package) => return Ok(Inspection::of(&package.tree, &package.source)),
            Err(unknown @ SourceError::UnknownKind(_)) => match read_manifest(path) {
                Ok(manifest) => manifest,
                Err(_) => return Err(unknown.into()),
            },
            Err(e) => return Err(e.into()),
        }
    };
    let mut out = Inspection::of(&manifest.tree, &manifest.source);
    out.packing = Some(PackingView::of(&manifest.packing));
    Ok(out)
}

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// `stork.verify/v1`.
    pub schema: &'static str,
    /// The tree that the packs hold.
    pub tree: TreeId,
    /// Packs that were hashed.
    pub packs: usize,
    /// Contents that were unpacked and hashed.
    pub contents: usize,
    /// Bytes of these contents.
    pub unpacked_bytes: u64,
    /// Packs of the delta whose hashes were checked; unpacking them needs the base.
    pub delta_packs: usize,
}

/// Hashes all packs of a directory that `pack --out` wrote, unpacks the full ones, and compares
/// every content with the manifest.
pub fn verify(dir: &Path) -> Result<Verification, InspectError> {
    let manifest = read_manifest(&dir.join("manifest"))?;
    let fetch = |p: &Pack| fs::read(dir.join("packs").join(p.id.to_string()));
    let delta = manifest.packing.packs(Variant::Delta);
    for pack in &delta {
        let bytes = fetch(pack).map_err(|source| UnpackError::Read { pack: pack.id, source })?;
        check_pack(pack, &bytes)?;
    }
    let contents = unpack(&manifest, Variant::Full, None, &fetch)?;
    Ok(Verification {
        schema: "stork.verify/v1",
        tree: manifest.tree.id(),
        packs: manifest.packing.packs.len(),
        contents: contents.count(),
        unpacked_bytes: manifest.tree.payload_len(),
        delta_packs: delta.len(),
    })
}
