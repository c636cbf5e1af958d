//! Builds and packages that do not depend on the folder in which they were made (row T122).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use stork_tests::fleet::{binary, noise};

/// Where this workspace lies.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a command in a folder, with a target of its own; it must succeed.
fn build(command: &mut Command, dir: &Path) {
    command.current_dir(dir).env("CARGO_TARGET_DIR", dir.join("out"));
    for name in ["RUSTFLAGS", "CFLAGS", "CXXFLAGS", "CARGO_INCREMENTAL"] {
        command.env_remove(name);
    }
    let profile = std::env::vars().map(|(name, _)| name).filter(|n| n.starts_with("CARGO_PROFILE"));
    for name in profile {
        command.env_remove(name);
    }
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A crate of which the binary says where it was made, in two parts.
fn tiny(dir: &Path) {
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let package = |name: &str, more: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{more}")
    };
    let release = "[workspace]\n[profile.release]\ndebug = \"line-tables-only\"\n";
    write(
        "Cargo.toml",
        &package("tiny", &format!("[dependencies]\npart.path = \"part\"\n{release}")),
    );
    write("part/Cargo.toml", &package("part", ""));
    write("part/src/lib.rs", "pub fn place() -> &'static str { file!() }\n");
    write("src/main.rs", "fn main() { panic!(\"{} {}\", file!(), part::place()) }\n");
    let lock = "version = 4\n\n[[package]]\nname = \"part\"\nversion = \"0.1.0\"\n\n\
                [[package]]\nname = \"tiny\"\nversion = \"0.1.0\"\n\
                dependencies = [\n \"part\",\n]\n";
    write("Cargo.lock", lock);
    fs::create_dir_all(dir.join("deploy")).unwrap();
    fs::copy(root().join("deploy/build.sh"), dir.join("deploy/build.sh")).unwrap();
}

/// T122, in short: the settings of `deploy/build.sh` make one binary of one source in two folders
/// of different names, where plain cargo makes two.
#[test]
fn t122_the_release_does_not_name_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folders = ["one", "another-folder"].map(|n| dir.path().join(n));
    let mut plain = Vec::new();
    let mut mapped = Vec::new();
    for folder in &folders {
        tiny(folder);
        let made = folder.join("out/release/tiny");
        build(Command::new("cargo").args(["build", "--release", "--locked", "--offline"]), folder);
        plain.push(fs::read(&made).unwrap());
        build(Command::new("sh").args(["deploy/build.sh", "--offline"]), folder);
        mapped.push(fs::read(&made).unwrap());
    }
    assert!(plain[0] != plain[1], "the test would find a folder's name");
    assert!(mapped[0] == mapped[1], "two folders gave two binaries");
    let name = dir.path().to_str().unwrap().as_bytes();
    assert!(!mapped[0].windows(name.len()).any(|w| w == name));
}

/// T122 as the row says it: all programs of two release builds in two folders.
#[test]
fn t122_two_builds_in_two_folders() {
    if std::env::var_os("STORK_LONG").is_none() {
        return eprintln!("skipped: STORK_LONG is not set, and two release builds take long");
    }
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Both before the first build, which takes long: meanwhile somebody may change the sources.
    let folders = ["one", "another-folder"].map(|name| {
        let folder = dir.path().join(name);
        for file in listed.split('\0').filter(|f| !f.is_empty()) {
            let to = folder.join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(root().join(file), to).unwrap();
        }
        folder
    });
    let made = folders.map(|folder| {
        let args = ["deploy/build.sh", "-p", "stork-node", "-p", "stork-publisher", "--bins"];
        build(Command::new("sh").args(args), &folder);
        let bins = ["stork", "stork-node", "stork-publish"];
        let bins = bins.map(|b| {
            let kept = folder.join(b);
            fs::copy(folder.join("out/release").join(b), &kept).unwrap();
            (b, kept)
        });
        fs::remove_dir_all(folder.join("out")).unwrap();
        bins
    });
    let mut differ = Vec::new();
    for ((name, a), (_, b)) in made[0].iter().zip(&made[1]) {
        let (a, b) = (fs::read(a).unwrap(), fs::read(b).unwrap());
        if a != b {
            let first = a.iter().zip(&b).position(|(a, b)| a != b);
            differ.push(format!("{name}: {} and {} bytes, from {first:?} on", a.len(), b.len()));
        }
    }
    // Whoever looks for the cause needs both.
    let kept = if differ.is_empty() { None } else { Some(dir.keep()) };
    assert!(kept.is_none(), "programs differ, kept in {}: {differ:?}", kept.unwrap().display());
}

/// All files of a folder with their bytes.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let below = files(&path).into_iter().map(|(n, b)| (format!("{name}/{n}"), b));
            out.extend(below.collect::<Vec<_>>());
        } else {
            out.insert(name, fs::read(path).unwrap());
        }
    }
    out
}

/// T122: a package that is packed twice, from folders of different names with files that were
/// written in another order, gives the same manifest and the same packs, byte by byte.
#[test]
fn t122_packages_do_not_depend_on_their_folder() {
    let dir = tempfile::tempdir().unwrap();
    let contents: Vec<(String, Vec<u8>)> = (0..40)
        .map(|n: usize| (format!("share/app/{n}"), noise(&n.to_string(), 1 + n * 5_000)))
        .collect();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let stamp = |path: &Path| fs::File::open(path).unwrap().set_modified(time).unwrap();
    let made = ["one", "another-folder"].map(|name| {
        let folder = dir.path().join(name).join("tree");
        let mut order: Vec<_> = contents.iter().collect();
        if name == "one" {
            order.reverse();
        }
        for (path, bytes) in order {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            stamp(&path);
        }
        for path in ["share/app", "share", ""] {
            stamp(&folder.join(path));
        }
        let out = dir.path().join(name).join("packed");
        let mut pack = Command::new(binary("stork-publish"));
        pack.arg("pack").arg(&folder).arg("--out").arg(&out);
        pack.args(["--name", "app", "--version", "1", "--arch", "all", "--root-owner"]);
        let done = pack.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        files(&out)
    });
    assert!(made[0].len() >= 2, "{:?}", made[0].keys());
    assert!(made[0] == made[1], "{:?}, {:?}", made[0].keys(), made[1].keys());
}
