//! Why a package could not be read: one variant for each thing that is wrong with it, so that the
//! maintainer is told which entry is at fault and what to do.

use std::path::PathBuf;

use stork_wire::text::BadText;

/// A package that is not packed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be opened or read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The temporary file for the contents failed.
    #[error("cannot write the contents to a temporary file")]
    Spool(#[source] std::io::Error),
    /// Neither an archive of a known kind nor a directory.
    #[error("`{0}` is no .deb, no .rpm, no tar archive and no directory")]
    UnknownKind(PathBuf),
    /// It does not begin like a `.deb`, or lacks a member that every `.deb` has.
    #[error("`{path}` is no .deb: {why}")]
    NotADeb {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// It is no RPM package, or one that cannot be published.
    #[error("`{path}` is no RPM package to publish: {why}")]
    NotAnRpm {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A member is announced that the file is too short for.
    #[error("`{path}` is cut off: member `{member}` needs {need} bytes, {have} are there")]
    TruncatedDeb {
        /// Which file.
        path: PathBuf,
        /// Which member.
        member: String,
        /// Bytes that the member needs.
        need: u64,
        /// Bytes that are left in the file.
        have: u64,
    },
    /// The control file breaks a rule.
    #[error("the control file is wrong: {0}")]
    Control(String),
    /// The archive's own structure is broken, or it is cut off.
    #[error("the archive `{path}` is broken or cut off")]
    Archive {
        /// Which file.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: std::io::Error,
    },
    /// A path begins with `/`.
    #[error("entry `{0}` has an absolute path")]
    AbsolutePath(String),
    /// A path holds `..`.
    #[error("entry `{0}` leaves the tree by `..`")]
    PathEscapes(String),
    /// A path is no UTF-8, too long, or holds control characters.
    #[error("entry has a path that stork does not carry")]
    BadPath(#[source] BadText),
    /// A path or link is no UTF-8.
    #[error("entry `{0}` is not named in UTF-8")]
    NotUtf8(String),
    /// A relative symbolic link leads above the top of the tree.
    #[error("symbolic link `{path}` climbs out of the tree: `{target}`")]
    LinkEscapes {
        /// The link.
        path: String,
        /// What it holds.
        target: String,
    },
    /// What a symbolic link holds is empty, too long, or holds control characters.
    #[error("symbolic link `{path}` holds what stork does not carry")]
    BadTarget {
        /// The link.
        path: String,
        /// The rule.
        #[source]
        source: BadText,
    },
    /// An entry lies beneath a symbolic link.
    #[error("entry `{path}` lies beneath the symbolic link `{link}`")]
    ThroughLink {
        /// The entry.
        path: String,
        /// The link.
        link: String,
    },
    /// An entry lies beneath something else that is no directory.
    #[error("entry `{path}` lies beneath `{parent}`, which is no directory")]
    BeneathFile {
        /// The entry.
        path: String,
        /// What stands in its way.
        parent: String,
    },
    /// Two entries with the same path that are not both directories.
    #[error("entry `{0}` is there twice")]
    Duplicate(String),
    /// A hard link to nothing, or to a directory.
    #[error("hard link `{path}` names `{target}`, which is no file of this package")]
    BadHardlink {
        /// The link.
        path: String,
        /// What it names.
        target: String,
    },
    /// A kind of entry that no tree can hold.
    #[error("entry `{path}` is {what}, which stork does not carry")]
    Unsupported {
        /// The entry.
        path: String,
        /// What it is.
        what: String,
    },
    /// More bytes than allowed come out of the archive.
    #[error("`{path}` unpacks to more than {max} bytes")]
    Bomb {
        /// Which file.
        path: PathBuf,
        /// The limit in force.
        max: u64,
    },
    /// More entries than a tree may have.
    #[error("the package has more than {0} entries")]
    TooManyEntries(usize),
    /// A file changed while it was read.
    #[error("`{0}` changed while it was read")]
    Changed(PathBuf),
    /// Name, version or architecture are not known.
    #[error("{} cannot be known from `{path}`", missing.join(", "))]
    Missing {
        /// Which source.
        path: PathBuf,
        /// The options that are missing.
        missing: Vec<&'static str>,
    },
    /// Options that contradict a package that says its own name.
    #[error("this package says its name, version and architecture itself: leave out {0}")]
    Contradiction(&'static str),
    /// A rule of trees that has no variant of its own here.
    #[error("the tree is refused: {0}")]
    Tree(String),
}

impl SourceError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Read { .. } => "check the path and its permissions".into(),
            Self::Spool(_) => "make room, or set TMPDIR to a larger disk".into(),
            Self::UnknownKind(_) => {
                "give a .deb, .rpm, .tar, .tar.gz, .tar.xz, .tar.zst or a directory".into()
            }
            Self::NotADeb { .. } | Self::TruncatedDeb { .. } | Self::Archive { .. } => {
                "build or download the file again and compare its checksum".into()
            }
            Self::NotAnRpm { .. } => {
                "check it by `rpm -K`; correct the spec file and build it again if it is whole"
                    .into()
            }
            Self::Control(_) => "correct debian/control and build the package again".into(),
            Self::AbsolutePath(_) => "pack with relative paths: tar -C DIR -cf FILE .".into(),
            Self::PathEscapes(_) | Self::LinkEscapes { .. } => {
                "such an archive is hostile or broken: correct how it is built".into()
            }
            Self::ThroughLink { .. } | Self::BeneathFile { .. } => {
                "name the real directory in the archive instead of the link".into()
            }
            Self::BadPath(_) | Self::NotUtf8(_) | Self::BadTarget { .. } => {
                "rename it: UTF-8, at most 1024 bytes, no control characters".into()
            }
            Self::Duplicate(_) => {
                "each path may stand there once; if /bin and /usr/bin meet here, \
                 try --no-usr-merge"
                    .into()
            }
            Self::BadHardlink { .. } => "put the linked file into the same archive".into(),
            Self::Unsupported { .. } => "leave it out of the package".into(),
            Self::Bomb { .. } => "if it is really that large, raise --max-unpacked BYTES".into(),
            Self::TooManyEntries(_) => "put such a tree into an image file instead".into(),
            Self::Changed(_) => "wait until nothing writes to it, then try again".into(),
            Self::Missing { .. } => {
                "for example: --name acme-tools --version 1.2.0 --arch all".into()
            }
            Self::Contradiction(_) => "run it again without that option".into(),
            Self::Tree(_) => "correct how the package is built".into(),
        }
    }

    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Read { source, .. } | Self::Spool(source) => crate::out::file_exit(source),
            Self::Missing { .. } | Self::Contradiction(_) => 2,
            _ => 1,
        }
    }
}

/// Text of an archive as it may be shown: control characters are escaped.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).flat_map(char::escape_debug).collect()
}
