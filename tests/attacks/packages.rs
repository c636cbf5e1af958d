//! Package files that are broken or hostile: refused with the entry's name and a remedy, and
//! nothing is written or published.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stork_tests::fleet::{Fleet, Package, binary};

use crate::check::{fails, untouched};

/// Bytes of the bombs: 1 GiB in some KiB.
const BOMB: u64 = 1 << 30;

/// One entry of a tar archive by hand: the tar crate itself refuses to write such names.
fn entry(kind: u8, name: &str, link: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = head(kind, name, link, bytes.len() as u64);
    header.extend(bytes);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn head(kind: u8, name: &str, link: &str, size: u64) -> Vec<u8> {
    let mut h = tar::Header::new_gnu();
    let raw = h.as_old_mut();
    raw.name[..name.len()].copy_from_slice(name.as_bytes());
    raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
    h.set_entry_type(tar::EntryType::new(kind));
    h.set_mode(0o644);
    h.set_uid(0);
    h.set_gid(0);
    h.set_mtime(0);
    h.set_size(size);
    h.set_cksum();
    h.as_bytes().to_vec()
}

fn archive(entries: &[(u8, &str, &str, &[u8])]) -> Vec<u8> {
    let all = entries.iter().map(|(kind, name, link, bytes)| entry(*kind, name, link, bytes));
    let mut out: Vec<u8> = all.collect::<Vec<_>>().concat();
    out.resize(out.len() + 1_024, 0);
    out
}

/// What `gzip` makes of bytes.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    gzip.args(["-1", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = gzip.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    out.stdout
}

/// A tar archive with one file of 1 GiB of zeros, compressed by repeating one compressed part.
fn bomb(compress: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let part = compress(&vec![0; 16 << 20]);
    let mut out = compress(&head(b'0', "zeros", "", BOMB));
    for _ in 0..BOMB >> 24 {
        out.extend(&part);
    }
    out.extend(compress(&[0; 1_024]));
    out
}

/// A `.deb` with these members.
fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        let len = bytes.len();
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{len:<10}`", 0, 0, 0, 100_644).unwrap();
        out.extend(*bytes);
        if len % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

fn deb(data: &[u8]) -> Vec<u8> {
    let control = b"Package: app\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n";
    let control = archive(&[(b'0', "./control", "", control)]);
    let zst = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
    ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.zst", &zst(&control)),
        ("data.tar.zst", &zst(data)),
    ])
}

struct Case {
    file: &'static str,
    bytes: Vec<u8>,
    says: &'static str,
}

/// Archives that name places outside of the tree, or one place twice.
fn escapes() -> Vec<Case> {
    let tar = |file, entries: &[(u8, &str, &str, &[u8])], says| Case {
        file,
        bytes: archive(entries),
        says,
    };
    vec![
        tar("dots.tar", &[(b'0', "../x", "", b"1")], "entry `../x` leaves the tree by `..`"),
        tar("deep.tar", &[(b'0', "a/../../x", "", b"1")], "leaves the tree by `..`"),
        tar("absolute.tar", &[(b'0', "/etc/x", "", b"1")], "entry `/etc/x` has an absolute path"),
        tar(
            "through.tar",
            &[(b'2', "a", "/etc", b""), (b'0', "a/x", "", b"1")],
            "entry `a/x` lies beneath the symbolic link `a`",
        ),
        tar("climbs.tar", &[(b'2', "a", "../../etc", b"")], "climbs out of the tree"),
        tar("hard.tar", &[(b'1', "a", "/etc/passwd", b"")], "absolute path"),
        tar("hard-dots.tar", &[(b'1', "a", "../etc/passwd", b"")], "`..`"),
        tar("hard-none.tar", &[(b'1', "a", "b", b"")], "which is no file of this package"),
        tar(
            "twice.tar",
            &[(b'0', "x", "", b"1"), (b'0', "x", "", b"2")],
            "entry `x` is there twice",
        ),
        tar(
            "beneath.tar",
            &[(b'0', "x", "", b"1"), (b'0', "x/y", "", b"2")],
            "lies beneath `x`, which is no directory",
        ),
        tar("kind.tar", &[(b'M', "x", "", b"1")], "stork does not carry"),
    ]
}

/// Files that are cut off, unpack to too much, or are something else.
fn broken() -> Vec<Case> {
    let whole = deb(&archive(&[(b'0', "./app", "", &[7; 4_000])]));
    let cut = |n: usize| whole.get(..n).unwrap().to_vec();
    let mut long = archive(&[(b'0', "x", "", b"1")]);
    long.truncate(512);
    let dots = archive(&[(b'0', "./../x", "", b"1")]);
    vec![
        Case { file: "cut.deb", bytes: cut(whole.len() - 40), says: "is cut off: member" },
        Case { file: "cut-early.deb", bytes: cut(90), says: "cut-early.deb" },
        Case { file: "dots.deb", bytes: deb(&dots), says: "leaves the tree by `..`" },
        Case { file: "no.deb", bytes: ar(&[("debian-binary", b"2.0\n")]), says: "is no .deb" },
        Case { file: "cut.tar", bytes: long, says: "is broken or cut off" },
        Case {
            file: "text.tar",
            bytes: b"hello".repeat(200),
            says: "no tar archive and no directory",
        },
        Case { file: "bomb.tar.gz", bytes: bomb(gzip), says: "unpacks to more than" },
        Case {
            file: "bomb.tar.zst",
            bytes: bomb(|b| zstd::bulk::compress(b, 1).unwrap()),
            says: "unpacks to more than",
        },
    ]
}

fn named(command: &mut Command, file: &str) {
    if !file.ends_with(".deb") {
        command.args(["--name", "app", "--version", "1", "--arch", "all"]);
    }
}

fn pack(file: &Path, out: &Path) -> Command {
    let mut command = Command::new(binary("stork-publish"));
    command.arg("pack").arg(file).arg("--out").arg(out).args(["--max-unpacked", "100000000"]);
    named(&mut command, &file.to_string_lossy());
    command
}

/// A cut `.deb`, paths with `..` and from `/`, files through a symbolic link, hard links out of the
/// tree, one path twice, and bombs of 1 GiB: `pack` and `push` name the entry and a remedy, and
/// exit with 1; nothing is written, sent or announced.
#[test]
fn t095_t096_hostile_packages_are_not_packed() {
    let fleet = Fleet::new(&["web"], 1);
    let host = &fleet.hosts[0];
    let folder = fleet.folder("hostile");
    let before = (untouched(host), host.tell(&["store", "stat"])["packs"].clone());
    for Case { file, bytes, says } in escapes().into_iter().chain(broken()) {
        let path: PathBuf = folder.join(file);
        fs::write(&path, &bytes).unwrap();
        let out = folder.join("out");
        let said = pack(&path, &out).output().unwrap();
        assert!(!said.status.success(), "{file} was packed");
        fails(&said, 1, says);
        assert!(!out.exists(), "{file}");
        let package = Package { file: path, named: None };
        let mut push = fleet.push_command(0, &package, &["web"]);
        named(&mut push, file);
        fails(&push.args(["--max-unpacked", "100000000"]).output().unwrap(), 1, says);
    }
    assert_eq!((untouched(host), host.tell(&["store", "stat"])["packs"].clone()), before);
    assert!(!Path::new("/etc/x").exists());

    // The same archive without the fault is taken, and so is a bomb that is wanted.
    let good = folder.join("good.deb");
    fs::write(&good, deb(&archive(&[(b'0', "./app", "", &[7; 4_000])]))).unwrap();
    let done = pack(&good, &folder.join("good")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // What is missing on the command line is a matter of usage.
    let mut bare = Command::new(binary("stork-publish"));
    bare.arg("pack").arg(folder.join("twice.tar")).arg("--out").arg(folder.join("out"));
    fails(&bare.output().unwrap(), 2, "--name");
}

/// A `push` to nobody, to a group that the charter lacks, and with words that mean nothing: each
/// has the exit code of its class.
#[test]
fn push_says_by_its_exit_code_what_went_wrong() {
    let fleet = Fleet::new(&["web"], 1);
    let package = fleet.package("app", "1", &[("app", b"1")]);
    fails(&fleet.push_command(0, &package, &["nobody"]).output().unwrap(), 5, "no group `nobody`");
    let mut command = Command::new(binary("stork-publish"));
    fails(&command.args(["push", "--frobnicate"]).output().unwrap(), 2, "frobnicate");
    let charter = fleet.folder("empty");
    let lost = fleet.push_command_of(&charter, 0, &package, &["web"]).output().unwrap();
    fails(&lost, 5, "charter");
    let push = |p: &Package| fleet.push_command(0, p, &["web"]).output().unwrap();
    assert!(push(&package).status.success());
    let newer = fleet.package("app", "2", &[("app", b"2")]);
    assert!(push(&newer).status.success());
    let older = fleet.package("app", "1.5", &[("app", b"1.5")]);
    fails(&push(&older), 7, "version 1.5 is lower than 2");
}
