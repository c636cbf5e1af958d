//! What a main header says: who the package is, what it needs and provides, which files it has.
//!
//! Names, versions and machines become those of Debian packages, so that rules and files of VMs
//! need not know where a package comes from. What has no such name (sonames, `perl(Foo)`, paths)
//! stays in the header, for the guest's own tools.

use std::collections::BTreeSet;

use super::{BadHeader, Header, bad, tag};
use crate::limits::PATH_LEN_MAX;
use crate::text::{Line, PackageName};

/// Flags of a dependency.
const LESS: u32 = 1 << 1;
const GREATER: u32 = 1 << 2;
const EQUAL: u32 = 1 << 3;
/// It asks for a feature of rpm itself.
const RPMLIB: u32 = 1 << 24;
/// Bytes of all paths of a header: folders are named once there, and with each file here.
const PATHS_LEN_MAX: usize = 64 * 1024 * 1024;
/// A file that is not in the payload.
const GHOST: u32 = 1 << 6;

/// Ways in which a package speaks of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names are those of spec files")]
pub enum Relation {
    Provides,
    Requires,
    Conflicts,
    Obsoletes,
    Recommends,
    Suggests,
    Supplements,
    Enhances,
}

impl Relation {
    const fn tags(self) -> (u32, u32, u32) {
        use tag as t;
        match self {
            Self::Provides => (t::PROVIDENAME, t::PROVIDEFLAGS, t::PROVIDEVERSION),
            Self::Requires => (t::REQUIRENAME, t::REQUIREFLAGS, t::REQUIREVERSION),
            Self::Conflicts => (t::CONFLICTNAME, t::CONFLICTFLAGS, t::CONFLICTVERSION),
            Self::Obsoletes => (t::OBSOLETENAME, t::OBSOLETEFLAGS, t::OBSOLETEVERSION),
            Self::Recommends => (t::RECOMMENDNAME, t::RECOMMENDFLAGS, t::RECOMMENDVERSION),
            Self::Suggests => (t::SUGGESTNAME, t::SUGGESTFLAGS, t::SUGGESTVERSION),
            Self::Supplements => (t::SUPPLEMENTNAME, t::SUPPLEMENTFLAGS, t::SUPPLEMENTVERSION),
            Self::Enhances => (t::ENHANCENAME, t::ENHANCEFLAGS, t::ENHANCEVERSION),
        }
    }
}

/// One package or capability that a header speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency<'a> {
    /// Its name.
    pub name: &'a str,
    /// Bits as in the header: 2 less, 4 greater, 8 equal, and others.
    pub flags: u32,
    /// The version that is compared with; empty where any will do.
    pub version: &'a str,
}

impl Dependency<'_> {
    /// The comparison in the words of repositories; none where any version will do.
    #[must_use]
    pub const fn comparison(&self) -> Option<&'static str> {
        match self.flags & (LESS | GREATER | EQUAL) {
            LESS => Some("LT"),
            GREATER => Some("GT"),
            EQUAL => Some("EQ"),
            f if f == LESS | EQUAL => Some("LE"),
            f if f == GREATER | EQUAL => Some("GE"),
            _ => None,
        }
    }

    /// Does it ask for a feature of rpm itself?
    #[must_use]
    pub fn is_rpmlib(&self) -> bool {
        self.flags & RPMLIB != 0 || self.name.starts_with("rpmlib(")
    }

    /// The same as a line of Debian's `Depends`; none for what is no package. A version without a
    /// release stands for all of its releases, which Debian's comparisons cannot say: the
    /// comparison is left out where it would be a narrower one.
    #[must_use]
    pub fn line(&self) -> Option<Line> {
        self.name.parse::<PackageName>().ok()?;
        let word = match (self.comparison(), self.version.contains('-')) {
            (Some("GE"), _) => ">=",
            (Some("LT"), _) => "<<",
            (Some("GT"), true) => ">>",
            (Some("LE"), true) => "<=",
            (Some("EQ"), true) => "=",
            _ => return self.name.parse().ok(),
        };
        if self.version.parse::<crate::text::Version>().is_err() {
            return self.name.parse().ok();
        }
        format!("{} ({word} {})", self.name, self.version).parse().ok()
    }
}

/// A version in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evr<'a> {
    /// The epoch; `0` where none is said.
    pub epoch: &'a str,
    /// The version.
    pub version: &'a str,
    /// The release; empty where none is said.
    pub release: &'a str,
}

impl<'a> Evr<'a> {
    /// Parts of `[EPOCH:]VERSION[-RELEASE]`.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (version, release) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self { epoch, version, release }
    }
}

/// A file of the header's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Its path without the leading slash.
    pub path: String,
    /// Type and permissions, as `st_mode` has them.
    pub mode: u16,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Major and minor number of a device, eight bits each.
    pub rdev: u16,
    /// Where a symbolic link leads.
    pub link: String,
    /// The name of its owner.
    pub user: String,
    /// The name of its group.
    pub group: String,
    /// Bits as in the header.
    pub flags: u32,
    /// Names with one number are one file.
    pub inode: (u32, u32),
    /// It has capabilities of processes.
    pub has_capabilities: bool,
}

impl FileInfo {
    /// The type of the file, as `st_mode` has it.
    #[must_use]
    pub const fn kind(&self) -> u16 {
        self.mode & 0o170_000
    }
    /// It is made by scripts, and not in the payload.
    #[must_use]
    pub const fn is_ghost(&self) -> bool {
        self.flags & GHOST != 0
    }
}

/// A machine in Debian's words.
#[must_use]
pub fn debian_arch(arch: &str) -> &str {
    match arch {
        "noarch" => "all",
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" => "i386",
        "armv7hl" => "armhf",
        "ppc64le" => "ppc64el",
        other => other,
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, BadHeader> {
    std::str::from_utf8(bytes).map_err(|_e| bad("has a name that is no UTF-8"))
}

impl Header {
    /// `[EPOCH:]VERSION-RELEASE`.
    #[must_use]
    pub fn evr(&self) -> String {
        let epoch = self.numbers(tag::EPOCH).first().filter(|e| **e > 0);
        let epoch = epoch.map_or_else(String::new, |e| format!("{e}:"));
        format!("{epoch}{}-{}", self.text(tag::VERSION), self.text(tag::RELEASE))
    }

    /// What it says of others.
    pub fn dependencies(&self, relation: Relation) -> Result<Vec<Dependency<'_>>, BadHeader> {
        let (names, flags, versions) = relation.tags();
        let (names, versions, flags) =
            (self.texts(names), self.texts(versions), self.numbers(flags));
        if names.len() != versions.len() || names.len() != flags.len() {
            return Err(bad(format!("has lists of different lengths for {relation:?}")));
        }
        let all = names.zip(versions).zip(flags);
        all.map(|((name, version), flags)| {
            Ok(Dependency { name: utf8(name)?, flags: *flags, version: utf8(version)? })
        })
        .collect()
    }

    /// Packages beside itself whose name it provides.
    pub fn provided(&self) -> Result<BTreeSet<PackageName>, BadHeader> {
        let own = self.text(tag::NAME);
        let all = self.dependencies(Relation::Provides)?;
        Ok(all.iter().filter(|d| d.name != own).filter_map(|d| d.name.parse().ok()).collect())
    }

    /// A package that it would replace in a guest without providing its name.
    pub fn replaces_unprovided(&self) -> Result<Option<String>, BadHeader> {
        let (own, provided) = (self.text(tag::NAME), self.provided()?);
        let replaced = self.dependencies(Relation::Obsoletes)?;
        let mut names = replaced.iter().map(|d| d.name).filter(|n| *n != own);
        let missing = names.find(|n| !provided.iter().any(|p| p.as_str() == *n));
        Ok(missing.map(str::to_owned))
    }

    /// The list of files.
    pub fn files(&self) -> Result<Vec<FileInfo>, BadHeader> {
        let uneven = || bad("has lists of files of different lengths");
        let names = self.texts(tag::BASENAMES);
        let dirs: Vec<&[u8]> = self.texts(tag::DIRNAMES).collect();
        let (long, short) = (self.long_numbers(tag::LONGFILESIZES), self.numbers(tag::FILESIZES));
        let capabilities: Vec<&[u8]> = self.texts(tag::FILECAPS).collect();
        let count = names.len();
        let mut links = self.texts(tag::FILELINKTOS);
        let mut users = self.texts(tag::FILEUSERNAME);
        let mut groups = self.texts(tag::FILEGROUPNAME);
        let even = [links.len(), users.len(), groups.len(), long.len().max(short.len())];
        if even.iter().any(|len| *len != count) {
            return Err(uneven());
        }
        let number = |tag: u32, i: usize| self.numbers(tag).get(i).copied().ok_or_else(uneven);
        let half = |tag: u32, i: usize| self.short_numbers(tag).get(i).copied().ok_or_else(uneven);
        let text = |bytes: Option<&[u8]>| utf8(bytes.unwrap_or_default()).map(str::to_owned);
        let (mut out, mut total) = (Vec::with_capacity(count), 0);
        for (i, name) in names.enumerate() {
            let dir = dirs.get(number(tag::DIRINDEXES, i)? as usize).ok_or_else(uneven)?;
            total += dir.len() + name.len();
            if dir.len() + name.len() > PATH_LEN_MAX || total > PATHS_LEN_MAX {
                return Err(bad("has a path that is too long, or too many of them"));
            }
            let path = format!("{}{}", utf8(dir)?, utf8(name)?);
            let path = path.strip_prefix('/').ok_or_else(|| bad("has a path without a slash"))?;
            let size = long.get(i).copied().or_else(|| short.get(i).map(|n| u64::from(*n)));
            out.push(FileInfo {
                path: path.to_owned(),
                mode: half(tag::FILEMODES, i)?,
                size: size.ok_or_else(uneven)?,
                mtime: number(tag::FILEMTIMES, i)?,
                rdev: half(tag::FILERDEVS, i)?,
                link: text(links.next())?,
                user: text(users.next())?,
                group: text(groups.next())?,
                flags: number(tag::FILEFLAGS, i)?,
                inode: (number(tag::FILEDEVICES, i)?, number(tag::FILEINODES, i)?),
                has_capabilities: capabilities.get(i).is_some_and(|c| !c.is_empty()),
            });
        }
        Ok(out)
    }
}
