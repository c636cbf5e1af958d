//! Good packages from the real tools, and archives made by hand to do harm (acceptance §5).

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use stork_wire::manifest::{TreeEntry, TreeNode};
use tempfile::TempDir;

use super::*;

/// One entry of a hand-made archive: name, type, link and content.
type Raw<'a> = (&'a str, u8, &'a str, &'a [u8]);

/// A tar archive whose names nobody checks.
fn tar_of(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, link, data) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_size(data.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn named() -> ReadOptions {
    ReadOptions {
        name: Some("acme".parse().unwrap()),
        version: Some("1".parse().unwrap()),
        arch: Some("all".parse().unwrap()),
        ..ReadOptions::default()
    }
}

fn read_bytes(bytes: &[u8], options: &ReadOptions) -> Result<Package, SourceError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("package");
    fs::write(&path, bytes).unwrap();
    read(&path, options)
}

fn read_tar(entries: &[Raw<'_>]) -> Result<Package, SourceError> {
    read_bytes(&tar_of(entries), &named())
}

fn ar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, data) in members {
        let len = data.len();
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{len:<10}`", 0, 0, 0, "100644").unwrap();
        out.extend_from_slice(data);
        if len % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

const CONTROL: &[u8] = b"Package: acme\nVersion: 1.0\nArchitecture: all\nDepends: a, b | c\n";

fn deb_of(entries: &[Raw<'_>]) -> Vec<u8> {
    let control =
        tar_of(&[("./control", b'0', "", CONTROL), ("./postinst", b'0', "", b"#!/bin/sh\n")]);
    ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &tar_of(entries))])
}

fn paths(package: &Package) -> Vec<&str> {
    package.tree.entries.iter().map(|e| e.path.as_str()).collect()
}

fn entry<'a>(package: &'a Package, path: &str) -> &'a TreeEntry {
    package.tree.entries.iter().find(|e| e.path.as_str() == path).unwrap()
}

pub(super) fn content(package: &Package, path: &str) -> Vec<u8> {
    let TreeNode::File { content, size, .. } = &entry(package, path).node else { panic!("{path}") };
    let mut out = Vec::new();
    package.contents.read_into(content, 0, *size, &mut out).unwrap();
    out
}

/// Names that leave the tree are refused, each with an error of its own.
#[test]
fn names_that_escape() {
    let one = |name: &str| read_tar(&[(name, b'0', "", b"x")]).unwrap_err();
    assert!(matches!(one("../x"), SourceError::PathEscapes(p) if p == "../x"));
    assert!(matches!(one("a/../../x"), SourceError::PathEscapes(_)));
    assert!(matches!(one("/etc/passwd"), SourceError::AbsolutePath(p) if p == "/etc/passwd"));
    assert!(matches!(one("a//b"), SourceError::BadPath(_)));
    assert!(matches!(one("a\u{1b}[31m"), SourceError::BadPath(_)));
    let hard = [("a", b'1', "../../etc/shadow", &b""[..])];
    assert!(matches!(read_tar(&hard), Err(SourceError::PathEscapes(_))));
}

/// A link out of the tree, and an entry that would be written through a link, are refused.
#[test]
fn links_that_escape() {
    let e = read_tar(&[("d/l", b'2', "../../etc", b"")]).unwrap_err();
    assert!(matches!(&e, SourceError::LinkEscapes { path, .. } if path == "d/l"), "{e}");
    let through = [("l", b'2', "/etc", &b""[..]), ("l/passwd", b'0', "", b"x")];
    let e = read_tar(&through).unwrap_err();
    assert!(matches!(&e, SourceError::ThroughLink { link, .. } if link == "l"), "{e}");
    // The same in the other order: archives may name the entry first.
    let e = read_tar(&[through[1], through[0]]).unwrap_err();
    assert!(matches!(e, SourceError::ThroughLink { .. }), "{e}");
    let e = read_tar(&[("f", b'0', "", b"x"), ("f/g", b'0', "", b"x")]).unwrap_err();
    assert!(matches!(e, SourceError::BeneathFile { .. }), "{e}");
    let fine = read_tar(&[("d/l", b'2', "../etc/passwd", b""), ("m", b'2', "/etc", b"")]);
    assert_eq!(paths(&fine.unwrap()), ["d", "d/l", "m"]);
}

/// A directory may stand there twice and the last one counts; a file may not.
#[test]
fn twice_the_same() {
    let p = read_tar(&[("d/", b'5', "", b""), ("./d", b'5', "", b"")]).unwrap();
    assert_eq!(paths(&p), ["d"]);
    let e = read_tar(&[("f", b'0', "", b"x"), ("./f", b'0', "", b"y")]).unwrap_err();
    assert!(matches!(e, SourceError::Duplicate(p) if p == "f"));
    let e = read_tar(&[("f", b'5', "", b""), ("f", b'0', "", b"y")]).unwrap_err();
    assert!(matches!(e, SourceError::Duplicate(_)));
}

/// Whatever direction hard links have in the archive, the first name is the file.
#[test]
fn hard_links_have_one_direction() {
    let p = read_tar(&[
        ("z", b'0', "", b"same"),
        ("a", b'1', "z", b""),
        ("m", b'1', "./a", b""),
        ("s", b'2', "z", b""),
        ("t", b'1', "s", b""),
    ])
    .unwrap();
    assert_eq!(content(&p, "a"), b"same");
    for name in ["m", "z"] {
        let node = &entry(&p, name).node;
        assert!(matches!(node, TreeNode::Hardlink { target } if target.as_str() == "a"));
    }
    assert_eq!(entry(&p, "t").node, entry(&p, "s").node);
    for link in [("a", b'1', "gone", &b""[..]), ("a", b'1', "a", b"")] {
        assert!(matches!(read_tar(&[link]), Err(SourceError::BadHardlink { .. })));
    }
}

/// Parents that the archive leaves out appear, owned by root, as new as the newest child.
#[test]
fn missing_parents() {
    let p = read_tar(&[("a/b/c", b'0', "", b"x")]).unwrap();
    assert_eq!(paths(&p), ["a", "a/b", "a/b/c"]);
    let dir = entry(&p, "a/b");
    assert_eq!((dir.mode, dir.uid, dir.gid, dir.mtime), (0o755, 0, 0, 7));
}

/// Devices, pipes and odd types: the first are data for a VM's policy, the rest is refused.
#[test]
fn other_types() {
    let p = read_tar(&[("p", b'6', "", b"")]).unwrap();
    assert_eq!(entry(&p, "p").node, TreeNode::Fifo);
    let e = read_tar(&[("v", b'V', "", b"")]).unwrap_err();
    assert!(matches!(e, SourceError::Unsupported { .. }), "{e}");
}

/// A bomb stops early, whether it hides in a file, in a header, or in the stream's tail.
#[test]
fn bombs() {
    let gz = |bytes: &[u8], zeros: u64| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(bytes).unwrap();
        io::copy(&mut io::repeat(0).take(zeros), &mut out).unwrap();
        out.finish().unwrap()
    };
    let header = |kind: u8, size: u64| {
        let mut tar = tar_of(&[("f", kind, "", b"")]);
        tar.truncate(512);
        let mut h = tar::Header::from_byte_slice(&tar).clone();
        h.set_size(size);
        h.set_cksum();
        h.as_bytes().to_vec()
    };
    let small = ReadOptions { unpacked_max: 1 << 20, ..named() };
    for kind in [b'0', b'L', b'x'] {
        let bomb = gz(&header(kind, 50 << 20), 50 << 20);
        let e = read_bytes(&bomb, &small).unwrap_err();
        assert!(matches!(e, SourceError::Bomb { max, .. } if max == 1 << 20), "{e}");
        assert!(e.help().contains("--max-unpacked"));
    }
    let tail = gz(&tar_of(&[("f", b'0', "", b"x")]), 50 << 20);
    assert!(matches!(read_bytes(&tail, &small), Err(SourceError::Bomb { .. })));
    // A size that only the header claims is refused before anything is read.
    let e = read_bytes(&header(b'0', 9 << 30), &named()).unwrap_err();
    assert!(matches!(e, SourceError::Bomb { .. }), "{e}");
}

/// A package that is cut off anywhere is never taken for a whole one.
#[test]
fn truncated_debs() {
    let deb = deb_of(&[("./usr/share/acme", b'0', "", &[7; 3000])]);
    let good = read_bytes(&deb, &ReadOptions::default()).unwrap();
    assert_eq!(paths(&good), ["usr", "usr/share", "usr/share/acme"]);
    assert_eq!(good.depends.len(), 2);
    assert_eq!(good.scripts(), ["postinst"]);
    for cut in [deb.len() - 1, deb.len() - 2000, 3000, 700, 100, 30] {
        let e = read_bytes(&deb[..cut], &ReadOptions::default()).unwrap_err();
        assert!(matches!(e, SourceError::TruncatedDeb { .. }), "{cut}: {e}");
    }
    // Cut exactly between two members.
    let head = ar_of(&[("debian-binary", b"2.0\n")]);
    let e = read_bytes(&head, &ReadOptions::default()).unwrap_err();
    assert!(matches!(e, SourceError::NotADeb { .. }), "{e}");
    let e = read_bytes(&ar_of(&[("x", b"")]), &ReadOptions::default()).unwrap_err();
    assert!(e.to_string().contains("debian-binary"));
    // A tar archive that is cut inside a file.
    let tar = tar_of(&[("f", b'0', "", &[1; 3000])]);
    assert!(matches!(read_bytes(&tar[..1500], &named()), Err(SourceError::Archive { .. })));
}

/// Sources that do not say their name need it, and those that do must not be contradicted.
#[test]
fn names_and_options() {
    let tar = tar_of(&[("f", b'0', "", b"x")]);
    let e = read_bytes(&tar, &ReadOptions { arch: None, ..named() }).unwrap_err();
    assert!(e.to_string().contains("--arch") && !e.to_string().contains("--name"), "{e}");
    assert_eq!(e.exit(), 2);
    let e = read_bytes(&deb_of(&[]), &named()).unwrap_err();
    assert_eq!((e.exit(), e.to_string().contains("--name")), (2, true));
    let e = read_bytes(b"hello", &named()).unwrap_err();
    assert!(matches!(e, SourceError::UnknownKind(_)));
}

/// /bin and its like stand below /usr, links still lead where they did, and people are told.
#[test]
fn usr_merge() {
    let entries: [Raw<'_>; 5] = [
        ("./bin/", b'5', "", b""),
        ("./bin/tool", b'0', "", b"x"),
        ("./lib/conf", b'2', "../etc/conf", b""),
        ("./usr/bin/other", b'0', "", b"y"),
        ("./sbin/tool", b'1', "./bin/tool", b""),
    ];
    let deb = deb_of(&entries);
    let p = read_bytes(&deb, &ReadOptions::default()).unwrap();
    assert!(p.notes[0].contains("usr-merge: 4 entries"), "{:?}", p.notes);
    assert_eq!(content(&p, "usr/bin/tool"), b"x");
    let link = &entry(&p, "usr/lib/conf").node;
    assert!(matches!(link, TreeNode::Symlink { target } if target.as_str() == "../../etc/conf"));
    let as_is = ReadOptions { usr_merge: UsrMerge::AsIs, ..ReadOptions::default() };
    let p = read_bytes(&deb, &as_is).unwrap();
    assert!(p.notes.is_empty());
    assert_eq!(content(&p, "bin/tool"), b"x");
}

pub(super) fn run(command: &mut Command) -> bool {
    match command.output() {
        Ok(out) => {
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            true
        }
        Err(e) => {
            println!("skipped: {e}");
            false
        }
    }
}

/// A directory with everything that packages hold.
pub(super) fn sample(dir: &Path) -> PathBuf {
    let top = dir.join("tree");
    let deep = format!("usr/share/{}/{}", "long-name-".repeat(12), "x".repeat(120));
    fs::create_dir_all(top.join(&deep)).unwrap();
    fs::create_dir_all(top.join("etc/empty")).unwrap();
    fs::write(top.join(&deep).join("file"), b"deep").unwrap();
    fs::write(top.join("etc/ä b.conf"), b"conf").unwrap();
    fs::write(top.join("etc/zero"), b"").unwrap();
    fs::set_permissions(top.join("etc/zero"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(top.join("etc/ä b.conf"), top.join("etc/hard")).unwrap();
    std::os::unix::fs::symlink("ä b.conf", top.join("etc/soft")).unwrap();
    fs::write(top.join("usr/big"), vec![42; 300_000]).unwrap();
    top
}

/// The same directory gives the same tree as itself and through GNU tar in all its formats and
/// compressions.
#[test]
fn one_tree_from_many_archives() {
    let dir = TempDir::new().unwrap();
    let top = sample(dir.path());
    let want = read(&top, &named()).unwrap();
    assert_eq!(content(&want, "etc/hard"), b"conf");
    for format in ["gnu", "pax", "posix"] {
        for (suffix, flag) in [("", None), ("gz", Some("-z")), ("xz", Some("-J")), ("zst", None)] {
            let archive = dir.path().join(format!("a-{format}.{suffix}"));
            let mut tar = Command::new("tar");
            tar.arg(format!("--format={format}")).args(["--numeric-owner", "-c"]).args(flag);
            if suffix == "zst" {
                tar.arg("--zstd");
            }
            tar.arg("-f").arg(&archive).arg("-C").arg(&top).arg(".");
            if !run(&mut tar) {
                return;
            }
            let got = read(&archive, &named()).unwrap();
            assert_eq!(got.tree, want.tree, "{format} {suffix}");
        }
    }
}

/// Root owns everything if asked; otherwise owners stay as they are.
#[test]
fn owners() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("f"), b"x").unwrap();
    let uid = fs::metadata(dir.path().join("f")).unwrap().uid();
    assert_eq!(entry(&read(dir.path(), &named()).unwrap(), "f").uid, uid);
    let root = ReadOptions { root_owner: true, ..named() };
    assert_eq!(entry(&read(dir.path(), &root).unwrap(), "f").uid, 0);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// Whatever bytes of a package are damaged, reading it ends in a package or an error, and a
    /// package that is read always has a tree that hosts would take.
    #[test]
    fn damaged_packages(at in 0usize..4000, with in 0u8..=255) {
        let mut deb = deb_of(&[
            ("./a/", b'5', "", b""),
            ("./a/f", b'0', "", b"content"),
            ("./a/l", b'2', "f", b""),
            ("./a/h", b'1', "./a/f", b""),
        ]);
        let at = at % deb.len();
        deb[at] = with;
        if let Ok(p) = read_bytes(&deb, &ReadOptions::default()) {
            proptest::prop_assert!(p.tree.check().is_ok());
        }
    }
}

/// npm writes archives whose owner fields are empty; their files belong to root.
#[test]
fn archives_without_owners() {
    let mut bytes = tar_of(&[("package/index.js", b'0', "", b"1")]);
    bytes[108..124].fill(0);
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    let package = read_bytes(&bytes, &named()).unwrap();
    let file = package.tree.entries.last().unwrap();
    assert_eq!((file.path.as_str(), file.uid, file.gid), ("package/index.js", 0, 0));
}
