//! Real packages of the Debian archive, kept in a cache outside of the repository.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use stork_node::catalog::compare_versions;

/// The packages that the tests use. Two versions of one package are the older one first.
#[derive(Debug, Clone)]
pub struct Debs {
    /// `hello`, a small program with many translations.
    pub hello: Deb,
    /// `nginx-common`, for all architectures, with files in `/lib` and `/etc`.
    pub nginx: [Deb; 2],
    /// `python3.11-minimal`, hundreds of files.
    pub python: Deb,
    /// `libssl3`, a library of some megabytes.
    pub ssl: [Deb; 2],
}

/// One package file.
#[derive(Debug, Clone)]
pub struct Deb {
    /// The file.
    pub file: PathBuf,
    /// Its version.
    pub version: String,
}

impl Deb {
    fn read(file: PathBuf) -> Result<Self, String> {
        let field = Command::new("dpkg-deb").arg("-f").arg(&file).arg("Version").output();
        let version = text(field, "dpkg-deb")?.trim().to_owned();
        Ok(Self { file, version })
    }
}

fn text(out: std::io::Result<Output>, what: &str) -> Result<String, String> {
    let out = out.map_err(|e| format!("{what} cannot be run: {e}"))?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(format!("{what}: {}", String::from_utf8_lossy(&out.stderr).trim()))
    }
}

fn by_version(a: &str, b: &str) -> Ordering {
    match (a.parse(), b.parse()) {
        (Ok(a), Ok(b)) => compare_versions(&a, &b),
        _ => a.cmp(b),
    }
}

fn cache() -> PathBuf {
    let given = std::env::var_os("STORK_DEB_CACHE").map(PathBuf::from);
    let user =
        std::env::var_os("XDG_CACHE_HOME").map(|home| PathBuf::from(home).join("stork-tests/debs"));
    given.or(user).unwrap_or_else(|| "/var/tmp/stork-tests/debs".into())
}

/// What the cache has of a package, the oldest first.
fn cached(folder: &Path, package: &str) -> Vec<Deb> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let begin = format!("{package}_");
    let is_it = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&begin) && name.ends_with(".deb")
    };
    let mut debs: Vec<Deb> = files.filter(is_it).filter_map(|f| Deb::read(f).ok()).collect();
    debs.sort_by(|a, b| by_version(&a.version, &b.version));
    debs
}

/// Downloads the newest `count` versions that the archive offers.
fn download(folder: &Path, package: &str, count: usize) -> Result<(), String> {
    let known = || text(Command::new("apt-cache").args(["madison", package]).output(), "apt-cache");
    let mut list = known()?;
    if list.trim().is_empty() {
        text(Command::new("apt-get").arg("update").output(), "apt-get update")?;
        list = known()?;
    }
    let is_package = |l: &&str| !l.trim_end().ends_with("Sources");
    let column = |l: &str| l.split('|').nth(1).map(|v| v.trim().to_owned());
    let mut versions: Vec<String> = list.lines().filter(is_package).filter_map(column).collect();
    versions.sort_by(|a, b| by_version(b, a));
    versions.dedup();
    let temp = tempfile::tempdir_in(folder).map_err(|e| e.to_string())?;
    for version in versions.iter().take(count) {
        let mut apt = Command::new("apt-get");
        apt.arg("download").arg(format!("{package}={version}")).current_dir(temp.path());
        text(apt.output(), "apt-get download")?;
    }
    for entry in fs::read_dir(temp.path()).map_err(|e| e.to_string())?.flatten() {
        fs::rename(entry.path(), folder.join(entry.file_name())).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The same package with one more file and a higher version, where the archive has one
/// version only.
fn rebuilt(folder: &Path, deb: &Deb) -> Result<Deb, String> {
    let temp = tempfile::tempdir().map_err(|e| e.to_string())?;
    let tree = temp.path().join("tree");
    let unpack = Command::new("dpkg-deb").arg("-R").arg(&deb.file).arg(&tree).output();
    text(unpack, "dpkg-deb -R")?;
    let version = format!("{}+stork1", deb.version);
    let control = tree.join("DEBIAN/control");
    let old = fs::read_to_string(&control).map_err(|e| e.to_string())?;
    let new = old.replace(&format!("Version: {}", deb.version), &format!("Version: {version}"));
    fs::write(&control, new).map_err(|e| e.to_string())?;
    fs::create_dir_all(tree.join("usr/share")).map_err(|e| e.to_string())?;
    fs::write(tree.join("usr/share/rebuilt-for-stork"), &version).map_err(|e| e.to_string())?;
    let name = deb.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = folder.join(name.replace(".deb", "+stork1.deb"));
    let build = Command::new("dpkg-deb").arg("-b").arg(&tree).arg(&file).output();
    text(build, "dpkg-deb -b")?;
    Ok(Deb { file, version })
}

fn some(folder: &Path, package: &str, count: usize) -> Result<Vec<Deb>, String> {
    let mut debs = cached(folder, package);
    if debs.len() < count {
        // What is there must do where the network is missing.
        let failed = download(folder, package, count).err();
        debs = cached(folder, package);
        if debs.is_empty() {
            return Err(failed.unwrap_or_else(|| format!("the archive has no {package}")));
        }
    }
    while debs.len() < count {
        let Some(newest) = debs.last() else { break };
        let one = rebuilt(folder, newest)?;
        debs.push(one);
    }
    Ok(debs.split_off(debs.len() - count))
}

/// Names of package files, in the archive's spelling, that an empty Debian would install for
/// these packages.
fn closure_of(names: &[String]) -> Result<Vec<String>, String> {
    let ask = || {
        let mut apt = Command::new("apt-get");
        apt.args(["install", "--yes", "--print-uris", "--no-install-recommends"]);
        apt.args(["-o", "Dir::State::status=/dev/null"]).args(names);
        text(apt.output(), "apt-get install --print-uris")
    };
    let list = ask().or_else(|_old_lists| {
        text(Command::new("apt-get").arg("update").output(), "apt-get update")?;
        ask()
    })?;
    let lines = list.lines().filter(|l| l.starts_with('\''));
    Ok(lines.filter_map(|l| l.split(' ').nth(1)).map(str::to_owned).collect())
}

/// All packages that an empty Debian would install for these, downloaded where the cache lacks
/// them.
///
/// # Errors
/// There is neither cache nor network, or the archive does not know a package.
pub fn closure(names: &[String]) -> Result<Vec<PathBuf>, String> {
    let folder = cache().join("closure");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let files = closure_of(names)?;
    let lacks = |f: &&String| !folder.join(f).exists();
    let missing: Vec<&str> =
        files.iter().filter(lacks).filter_map(|f| f.split('_').next()).collect();
    if !missing.is_empty() {
        let mut apt = Command::new("apt-get");
        apt.arg("download").args(&missing).current_dir(&folder);
        text(apt.output(), "apt-get download")?;
    }
    let all: Vec<PathBuf> = files.iter().map(|f| folder.join(f)).collect();
    match all.iter().find(|p| !p.exists()) {
        None => Ok(all),
        Some(p) => Err(format!("apt-get did not bring {}", p.display())),
    }
}

fn find() -> Result<Debs, String> {
    let folder = cache();
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let one = |package| {
        let found: [Deb; 1] = some(&folder, package, 1)?.try_into().map_err(|_more| "none")?;
        let [deb] = found;
        Ok::<Deb, String>(deb)
    };
    let two =
        |package| some(&folder, package, 2)?.try_into().map_err(|_fewer| "too few".to_owned());
    Ok(Debs {
        hello: one("hello")?,
        nginx: two("nginx-common")?,
        python: one("python3.11-minimal")?,
        ssl: two("libssl3")?,
    })
}

/// The packages; none, with a printed reason, where there is neither cache nor network.
#[must_use]
pub fn debs() -> Option<Debs> {
    static DEBS: OnceLock<Result<Debs, String>> = OnceLock::new();
    match DEBS.get_or_init(find) {
        Ok(debs) => Some(debs.clone()),
        Err(why) => {
            eprintln!("skipped: there are no Debian packages to test with: {why}");
            None
        }
    }
}
