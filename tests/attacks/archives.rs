//! Archives that nobody here made, to break readers of tar: those of another library's tests, and
//! the test data of Go and Python from Debian. Each is refused, or listed exactly as `bsdtar` lists
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use stork_tests::fleet::binary;

/// Go's, from golang-1.19-src, and Python's, from libpython3.11-testsuite.
const OF_DEBIAN: [&str; 2] =
    ["/usr/share/go-1.19/src/archive/tar/testdata", "/usr/lib/python3.11/test"];

/// An archive that is read where `bsdtar` gives up: the last line of an extended header has no end,
/// which the library that reads it takes for one (docs/THREATS.md).
const UNTERMINATED: &str = "diff-014-unterminated-pax.tar";

/// An archive in which `bsdtar` takes bytes that a camera left in the header for a length; GNU tar,
/// Go and stork read the length where it stands.
const OF_A_CAMERA: &str = "nil-uid.tar";

/// The archives of the crate `astral-tokio-tar`, where cargo has put its source.
fn of_the_crate() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO")?;
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--offline", "--locked"]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let all: Value = serde_json::from_slice(&command.output().ok()?.stdout).ok()?;
    let found = all["packages"].as_array()?.iter().find(|p| p["name"] == "astral-tokio-tar")?;
    Some(Path::new(found["manifest_path"].as_str()?).parent()?.join("tests/archives"))
}

fn archives_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut all: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    all.retain(|p| p.extension() == Some(OsStr::new("tar")));
    all.sort();
    all
}

/// Kind, mode, length and target of a path.
type Listed = (String, u32, Option<u64>, Option<String>);

fn undo_escapes(text: &str) -> Vec<u8> {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        out.push(u8::from_str_radix(&part[..3], 8).unwrap());
        out.extend_from_slice(&part.as_bytes()[3..]);
    }
    out
}

fn publish(args: &[&OsStr]) -> Output {
    Command::new(binary("stork-publish")).args(args).output().unwrap()
}

/// What stork lists; the error where it refuses.
fn ours(archive: &Path) -> Result<BTreeMap<String, Listed>, String> {
    let words = ["--name", "x", "--version", "1", "--arch", "all", "--json"].map(OsStr::new);
    let out = publish(&[&[OsStr::new("inspect"), archive.as_os_str()][..], &words].concat());
    if !out.status.success() {
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code().is_some(), "{}: {} {error}", archive.display(), out.status);
        assert!(error.starts_with("error: ") && !error.contains("panicked"), "{error}");
        return Err(error.lines().next().unwrap_or_default().to_owned());
    }
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let entries = all["entries"].as_array().unwrap().iter();
    Ok(entries
        .map(|e| {
            let mode = u32::from_str_radix(e["mode"].as_str().unwrap(), 8).unwrap();
            let listed = (text(&e["kind"]).unwrap(), mode, e["size"].as_u64(), text(&e["target"]));
            (text(&e["path"]).unwrap(), listed)
        })
        .collect())
}

/// What `bsdtar` lists, in the words of mtree(5); none where it gives up.
fn theirs(archive: &Path) -> Option<BTreeMap<String, Listed>> {
    let mut command = Command::new("bsdtar");
    command.args(["-cf", "-", "--format=mtree", "--options=!all,type,size,mode,link"]);
    let out = command.arg(format!("@{}", archive.display())).output().unwrap();
    if !out.status.success() {
        return None;
    }
    let text = String::from_utf8(out.stdout).unwrap();
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let mut words = line.split(' ');
        let path = String::from_utf8(undo_escapes(words.next().unwrap())).unwrap();
        let path = path.strip_prefix("./").unwrap_or(&path).trim_end_matches('/');
        let keys: BTreeMap<&str, &str> = words.filter_map(|w| w.split_once('=')).collect();
        let mode = u32::from_str_radix(keys["mode"], 8).unwrap();
        let size = keys.get("size").map(|s| s.parse().unwrap());
        let link = keys.get("link").map(|l| String::from_utf8(undo_escapes(l)).unwrap());
        // The root itself is in no listing of ours.
        if !matches!(path, "" | ".") {
            all.insert(path.to_owned(), (keys["type"].to_owned(), mode, size, link));
        }
    }
    Some(all)
}

/// Do two entries say the same?
fn same(ours: &Listed, theirs: &Listed) -> bool {
    match ours.0.as_str() {
        "symlink" => theirs.0 == "link" && ours.3 == theirs.3,
        // To mtree it is a file, without the length of what it is another name of.
        "hardlink" => theirs.0 == "file",
        "file" => (&ours.0, ours.1, ours.2) == (&theirs.0, theirs.1, theirs.2),
        _ => (&ours.0, ours.1) == (&theirs.0, theirs.1),
    }
}

fn differences(ours: &BTreeMap<String, Listed>, theirs: &BTreeMap<String, Listed>) -> Vec<String> {
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let implied = |path: &str| {
        let below = format!("{path}/");
        ours[path].0 == "dir" && ours.keys().any(|p| p.starts_with(&below))
    };
    let differs = |path: &&String| match (ours.get(*path), theirs.get(*path)) {
        (Some(a), Some(b)) => !same(a, b),
        // A folder that no entry names, but something below it.
        (Some(_), None) => !implied(path),
        _ => true,
    };
    let differing = paths.into_iter().filter(differs);
    differing.map(|p| format!("{p:?}: {:?} / {:?}", ours.get(p), theirs.get(p))).collect()
}

/// T097: see above. An archive that is listed can be packed as well.
#[test]
fn t097_archives_of_others() {
    if Command::new("bsdtar").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no bsdtar to compare with (libarchive-tools)");
    }
    let mut archives = of_the_crate().map(|f| archives_in(&f)).unwrap_or_default();
    assert!(archives.is_empty() || archives.len() == 24, "{}", archives.len());
    for folder in OF_DEBIAN {
        let found = archives_in(Path::new(folder));
        if found.is_empty() {
            eprintln!("skipped: there are no archives in {folder}");
        }
        archives.extend(found);
    }
    let (mut refused, mut equal, mut faults) = (0, 0, Vec::new());
    let dir = tempfile::tempdir().unwrap();
    for archive in &archives {
        let name = archive.file_name().unwrap().to_str().unwrap();
        let listed = match ours(archive) {
            Ok(listed) => listed,
            Err(why) => {
                println!("{name}: {why}");
                refused += 1;
                continue;
            }
        };
        let Some(theirs) = theirs(archive) else {
            assert_eq!(name, UNTERMINATED, "bsdtar refuses what stork lists");
            continue;
        };
        let mut found = differences(&listed, &theirs);
        if name == OF_A_CAMERA {
            assert_eq!(listed["P1050238.JPG.log"].2, Some(14));
            found.clear();
        }
        equal += usize::from(found.is_empty());
        faults.extend(found.into_iter().map(|f| format!("{name}: {f}")));
        let to = dir.path().join(name);
        let words = ["--name", "x", "--version", "1", "--arch", "all", "--out"].map(OsStr::new);
        let head = [OsStr::new("pack"), archive.as_os_str()];
        let out = publish(&[&head[..], &words, &[to.as_os_str()]].concat());
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    }
    println!("{} archives: {refused} refused, {equal} listed as bsdtar does", archives.len());
    assert_eq!(faults, Vec::<String>::new());
}
