//! What packages say they need: claims of their publishers, in the words of Debian, and never
//! orders.
//!
//! A claim brings nothing into a VM unless the VM's file says so, and then only what the VM's own
//! rules would let it have anyway (attacks A14 to A17). The resolver looks at one release of each
//! package, the one that this VM may have: it never goes back to an older one that happens to fit.
//! It is bounded by what it looks at, and runs before anything is asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stork_wire::ids::ReleaseHash;
use stork_wire::text::PackageName;

use super::{Constraint, KnownRelease};

/// Alternatives of one line at the most.
pub const ALTERNATIVES_MAX: usize = 8;
/// Packages that one package may need, theirs included.
pub const TRANSITIVE_MAX: usize = 1_024;
/// Lines of dependencies that are looked at for one VM, in all.
pub const LINES_MAX: usize = 65_536;

/// One of the packages that would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// The package, or a name that others provide.
    pub name: PackageName,
    /// Which versions.
    pub version: Constraint,
}

/// Why the needs of a package are not met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DependsError {
    /// Nothing that this VM may have meets the line.
    #[error("`{by}` needs `{entry}`, and nothing that this VM may have is that")]
    Unsatisfiable {
        /// The line, in the package's words.
        entry: String,
        /// Whose line.
        by: PackageName,
    },
    /// Several packages provide what is needed, and none has the name itself.
    #[error(
        "`{by}` needs `{name}`, which {} and {} provide: subscribe to one of them",
        .of.0, .of.1
    )]
    Ambiguous {
        /// The name.
        name: PackageName,
        /// Whose line.
        by: PackageName,
        /// Two of those that provide it.
        of: Box<(PackageName, PackageName)>,
    },
    /// The line is not written as Debian does.
    #[error("`{by}` needs `{entry}`, which cannot be read")]
    Unreadable {
        /// The line.
        entry: String,
        /// Whose line.
        by: PackageName,
    },
    /// Too many packages, or lines.
    #[error("it needs more than {TRANSITIVE_MAX} packages, or too many lines were looked at")]
    TooMany,
    /// What it brings in is too large.
    #[error("it would bring in {bytes} bytes, and this VM allows {max}")]
    TooLarge {
        /// Unpacked bytes, as far as they were counted.
        bytes: u64,
        /// What the VM's file allows.
        max: u64,
    },
}

/// Reads one line: `a (>= 1.0) | b`. `None` where it is not written so.
#[must_use]
pub fn parse(line: &str) -> Option<Vec<Alternative>> {
    let parts: Vec<&str> = line.split('|').map(str::trim).collect();
    if parts.len() > ALTERNATIVES_MAX {
        return None;
    }
    parts.into_iter().map(alternative).collect()
}

fn alternative(text: &str) -> Option<Alternative> {
    let (name, rest) = match text.split_once('(') {
        Some((name, rest)) => (name.trim(), rest.trim_end().strip_suffix(')')?.trim()),
        None => (text, ""),
    };
    // `name:any`: of whatever architecture. The release that fits this VM is the one looked at.
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    let version = rest.parse::<Constraint>().ok()?;
    if text.contains('(') && rest.is_empty() {
        return None;
    }
    Some(Alternative { name: name.parse().ok()?, version })
}

/// What a VM may have, as the resolver asks for it.
pub(super) trait Offers {
    /// The one release of a package that the VM may have.
    fn offer(&self, package: &PackageName) -> Option<KnownRelease>;
    /// Packages of which some release provides a name.
    fn providers(&self, name: &PackageName) -> Vec<PackageName>;
    /// Does this release provide the name, as far as this VM lets it?
    fn provides(&self, known: &KnownRelease, name: &PackageName) -> bool;
}

/// What the resolver may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Bring in what is missing.
    pub(super) pull: bool,
    /// Unpacked bytes that one package may bring in.
    pub(super) bytes_max: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// What is brought in, with the package for which that was first.
    pub(super) pulled: BTreeMap<PackageName, (KnownRelease, PackageName)>,
    /// Of which of the given packages the needs are not met.
    pub(super) failed: BTreeMap<PackageName, DependsError>,
    /// Lines that were looked at.
    pub(super) looked_at: usize,
}

struct Resolver<'a, O> {
    given: &'a BTreeMap<PackageName, KnownRelease>,
    offers: &'a O,
    rules: Rules,
    asked: BTreeMap<PackageName, Option<KnownRelease>>,
    out: Resolved,
}

/// Looks at the needs of all these releases.
pub(super) fn resolve<O: Offers>(
    given: &BTreeMap<PackageName, KnownRelease>,
    rules: Rules,
    offers: &O,
) -> Resolved {
    let (asked, out) = (BTreeMap::new(), Resolved::default());
    let mut resolver = Resolver { given, offers, rules, asked, out };
    for (package, known) in given {
        match resolver.root(known) {
            Ok(new) => {
                let new = new.into_iter().map(|(p, k)| (p, (k, package.clone())));
                resolver.out.pulled.extend(new);
            }
            Err(e) => {
                resolver.out.failed.insert(package.clone(), e);
            }
        }
    }
    resolver.out
}

type Pulled = BTreeMap<PackageName, KnownRelease>;

impl<O: Offers> Resolver<'_, O> {
    /// What one package brings in.
    fn root(&mut self, known: &KnownRelease) -> Result<Pulled, DependsError> {
        let mut new = Pulled::new();
        let mut bytes = 0u64;
        let mut queue = VecDeque::from([known.clone()]);
        while let Some(next) = queue.pop_front() {
            for line in &next.release.depends {
                self.out.looked_at += 1;
                if self.out.looked_at > LINES_MAX {
                    return Err(DependsError::TooMany);
                }
                let by = &next.release.package;
                let entry = line.as_str();
                let all = parse(entry).ok_or_else(|| DependsError::Unreadable {
                    entry: entry.to_owned(),
                    by: by.clone(),
                })?;
                if all.iter().any(|a| self.is_met(a, &new)) {
                    continue;
                }
                let found = self.find(&all, by)?;
                let found = found.ok_or_else(|| DependsError::Unsatisfiable {
                    entry: entry.to_owned(),
                    by: by.clone(),
                })?;
                if new.len() >= TRANSITIVE_MAX {
                    return Err(DependsError::TooMany);
                }
                bytes = bytes.saturating_add(found.release.unpacked_bytes);
                if bytes > self.rules.bytes_max {
                    return Err(DependsError::TooLarge { bytes, max: self.rules.bytes_max });
                }
                new.insert(found.release.package.clone(), found.clone());
                queue.push_back(found);
            }
        }
        Ok(new)
    }

    /// Is it there already: by its own name, or provided?
    fn is_met(&self, wanted: &Alternative, new: &Pulled) -> bool {
        let pulled = &self.out.pulled;
        let by_name = self
            .given
            .get(&wanted.name)
            .or_else(|| pulled.get(&wanted.name).map(|(k, _)| k))
            .or_else(|| new.get(&wanted.name));
        if let Some(known) = by_name {
            return wanted.version.allows(&known.release.version);
        }
        let there = |p: &PackageName| {
            let pulled = pulled.get(p).map(|(k, _)| k);
            self.given.get(p).or(pulled).or_else(|| new.get(p))
        };
        // A provided name has no version of its own.
        wanted.version.is_any()
            && self
                .offers
                .providers(&wanted.name)
                .iter()
                .any(|p| there(p).is_some_and(|known| self.offers.provides(known, &wanted.name)))
    }

    fn offer(&mut self, package: &PackageName) -> Option<KnownRelease> {
        if let Some(known) = self.asked.get(package) {
            return known.clone();
        }
        let known = self.offers.offer(package);
        self.asked.insert(package.clone(), known.clone());
        known
    }

    /// What could be brought in for a line: the first alternative that this VM may have.
    fn find(
        &mut self,
        all: &[Alternative],
        by: &PackageName,
    ) -> Result<Option<KnownRelease>, DependsError> {
        if !self.rules.pull {
            return Ok(None);
        }
        for wanted in all {
            // What is given or brought in already is there in one version, and did not fit.
            let fixed =
                self.given.contains_key(&wanted.name) || self.out.pulled.contains_key(&wanted.name);
            if let Some(known) = self.offer(&wanted.name) {
                if !fixed && wanted.version.allows(&known.release.version) {
                    return Ok(Some(known));
                }
                continue;
            }
            if !wanted.version.is_any() {
                continue;
            }
            let named = self.offers.providers(&wanted.name);
            let mut found: Vec<KnownRelease> = Vec::new();
            for package in named {
                let known = self.offer(&package);
                found.extend(known.filter(|k| self.offers.provides(k, &wanted.name)));
            }
            match found.as_slice() {
                [] => {}
                [one] => return Ok(Some(one.clone())),
                [a, b, ..] => {
                    let of = (a.release.package.clone(), b.release.package.clone());
                    let (name, by) = (wanted.name.clone(), by.clone());
                    return Err(DependsError::Ambiguous { name, by, of: Box::new(of) });
                }
            }
        }
        Ok(None)
    }
}

/// By which of these packages each line of a release is met, for people; an error where the line
/// cannot be read, and nothing where none of them meets it.
pub(super) fn met_by<O: Offers>(
    known: &KnownRelease,
    given: &BTreeMap<PackageName, KnownRelease>,
    offers: &O,
) -> Vec<(String, Option<PackageName>)> {
    let line = |line: &stork_wire::text::Line| {
        let all = parse(line.as_str()).unwrap_or_default();
        let by = all.iter().find_map(|wanted| {
            if let Some(k) = given.get(&wanted.name) {
                return wanted.version.allows(&k.release.version).then(|| wanted.name.clone());
            }
            let mut provider = offers.providers(&wanted.name).into_iter();
            let fits =
                |p: &PackageName| given.get(p).is_some_and(|k| offers.provides(k, &wanted.name));
            provider.find(fits).filter(|_| wanted.version.is_any())
        });
        (line.to_string(), by)
    };
    known.release.depends.iter().map(line).collect()
}

/// Releases by package.
pub(super) fn by_package<'a>(
    all: impl Iterator<Item = &'a KnownRelease>,
) -> BTreeMap<PackageName, KnownRelease> {
    all.map(|k| (k.release.package.clone(), k.clone())).collect()
}

/// Names that any release provides, with the packages of which it is one.
#[derive(Debug, Default)]
pub(super) struct Providers(BTreeMap<PackageName, BTreeSet<PackageName>>);

impl Providers {
    pub(super) fn of<'a>(all: impl Iterator<Item = &'a KnownRelease>) -> Self {
        let mut out: BTreeMap<PackageName, BTreeSet<PackageName>> = BTreeMap::new();
        let mut seen = BTreeSet::<ReleaseHash>::new();
        for known in all.filter(|k| !k.release.provides.is_empty()) {
            if !seen.insert(known.hash) {
                continue;
            }
            for name in &known.release.provides {
                out.entry(name.clone()).or_default().insert(known.release.package.clone());
            }
        }
        Self(out)
    }
    pub(super) fn get(&self, name: &PackageName) -> Vec<PackageName> {
        self.0.get(name).into_iter().flatten().cloned().collect()
    }
}
