//! Packages of the real rpmbuild, and packages made by hand to do harm.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use stork_wire::rpm::Value;
use stork_wire::text::PackageName;
use tempfile::TempDir;

use super::super::{ReadOptions, read as read_package};
use super::*;

/// A file of a hand-made package: path, mode, bytes or target, user.
type Raw<'a> = (&'a str, u16, &'a [u8], &'a str);

fn header_of(files: &[Raw<'_>]) -> Header {
    let mut h = Header::default();
    let text = |t: &str| Value::Text(t.into());
    let all =
        |one: fn(&Raw<'_>) -> String| Value::texts(&files.iter().map(one).collect::<Vec<String>>());
    let split = |path: &str| path.rsplit_once('/').map(|(d, n)| (format!("/{d}/"), n.to_owned()));
    h.set(tag::NAME, text("acme"));
    h.set(tag::VERSION, text("1"));
    h.set(tag::RELEASE, text("2"));
    h.set(tag::ARCH, text("x86_64"));
    h.set(tag::SOURCERPM, text("acme-1-2.src.rpm"));
    h.set(tag::PAYLOADFORMAT, text("cpio"));
    h.set(tag::PROVIDENAME, Value::texts(&["acme"]));
    h.set(tag::PROVIDEVERSION, Value::texts(&["1-2"]));
    let numbers = |n: &dyn Fn(usize) -> u32| Value::Int32((0..files.len()).map(n).collect());
    h.set(tag::PROVIDEFLAGS, Value::Int32(vec![8]));
    let names: Vec<_> = files.iter().map(|f| split(f.0).unwrap()).collect();
    h.set(tag::DIRNAMES, Value::texts(&names.iter().map(|n| n.0.clone()).collect::<Vec<_>>()));
    h.set(tag::BASENAMES, Value::texts(&names.iter().map(|n| n.1.clone()).collect::<Vec<_>>()));
    h.set(tag::DIRINDEXES, numbers(&|i| u32::try_from(i).unwrap()));
    h.set(tag::FILESIZES, numbers(&|i| u32::try_from(files[i].2.len()).unwrap()));
    h.set(tag::FILEMODES, Value::Int16(files.iter().map(|f| f.1).collect()));
    h.set(tag::FILERDEVS, Value::Int16(vec![0x0103; files.len()]));
    h.set(tag::FILEMTIMES, numbers(&|_| 7));
    h.set(tag::FILEFLAGS, numbers(&|_| 0));
    h.set(tag::FILEDEVICES, numbers(&|_| 1));
    h.set(tag::FILEINODES, numbers(&|i| u32::try_from(i).unwrap()));
    let link = |f: &Raw<'_>| {
        let link = f.1 & 0o170_000 == 0o120_000;
        if link { String::from_utf8(f.2.to_vec()).unwrap() } else { String::new() }
    };
    h.set(tag::FILELINKTOS, all(link));
    h.set(tag::FILEUSERNAME, all(|f| f.3.to_owned()));
    h.set(tag::FILEGROUPNAME, all(|_| "root".to_owned()));
    h
}

fn cpio_entry(out: &mut Vec<u8>, name: &str, nlink: u32, data: &[u8]) {
    let head = [1, 0o100_644, 0, 0, nlink, 7, u32::try_from(data.len()).unwrap(), 0, 0, 0, 0];
    out.extend_from_slice(b"070701");
    for field in head.into_iter().chain([u32::try_from(name.len()).unwrap() + 1, 0]) {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn cpio_of(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, nlink, data) in entries {
        cpio_entry(&mut out, name, *nlink, data);
    }
    cpio_entry(&mut out, "TRAILER!!!", 1, b"");
    out
}

fn rpm_of(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut out = LEAD_MAGIC.to_vec();
    out.resize(96, 0);
    let main = header.encode(Region::Main);
    let mut signatures = Header::default();
    signatures.set(tag::SIGSHA256, Value::Text(hex(&Sha256::digest(&main)).into()));
    out.extend(signatures.encode(Region::Signatures));
    out.resize(out.len().next_multiple_of(8), 0);
    out.extend(main);
    out.extend_from_slice(payload);
    out
}

fn read_bytes(bytes: &[u8]) -> Result<Package, SourceError> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.rpm");
    fs::write(&path, bytes).unwrap();
    read_package(&path, &ReadOptions::default())
}

fn refused(header: &Header, payload: &[u8]) -> String {
    read_bytes(&rpm_of(header, payload)).unwrap_err().to_string()
}

const DIR: u16 = 0o040_755;
const FILE: u16 = 0o100_644;
const LINK: u16 = 0o120_777;

/// Files, links and folders become a tree, with the header's modes and not those of the payload.
#[test]
fn a_package_becomes_a_tree() {
    let files: [Raw<'_>; 4] = [
        ("usr/share/acme", DIR, b"", "root"),
        ("usr/share/acme/a", 0o100_755, b"hello", "root"),
        ("usr/share/acme/b", LINK, b"a", "root"),
        ("usr/share/acme/c", FILE, b"", "acme"),
    ];
    let payload = cpio_of(&[
        ("./usr/share/acme", 2, b""),
        ("./usr/share/acme/b", 1, b"a"),
        ("./usr/share/acme/a", 1, b"hello"),
        ("./usr/share/acme/c", 1, b""),
    ]);
    let package = read_bytes(&rpm_of(&header_of(&files), &payload)).unwrap();
    assert_eq!(package.name.as_str(), "acme");
    assert_eq!((package.version.as_str(), package.arch.as_str()), ("1-2", "amd64"));
    let tree = &package.tree.entries;
    assert_eq!(tree.iter().filter(|e| e.path.as_str().starts_with("usr/share/acme")).count(), 4);
    let a = tree.iter().find(|e| e.path.as_str() == "usr/share/acme/a").unwrap();
    assert_eq!((a.mode, a.mtime), (0o755, 7));
    assert!(package.notes.iter().any(|n| n.contains("`acme:root`")), "{:?}", package.notes);
    let kept = &package.source.control_files[0];
    let header = Header::parse(&kept.bytes).unwrap();
    assert_eq!(header.files().unwrap().len(), 4);
}

/// The names of one file: the archive has its bytes with the last of them.
#[test]
fn names_of_one_file() {
    let files: [Raw<'_>; 5] = [
        ("usr/a", FILE, b"bytes", "root"),
        ("usr/b", FILE, b"bytes", "root"),
        ("usr/c", FILE, b"bytes", "root"),
        ("usr/x", FILE, b"", "root"),
        ("usr/y", FILE, b"", "root"),
    ];
    let mut header = header_of(&files);
    header.set(tag::FILEINODES, Value::Int32(vec![1, 1, 1, 2, 2]));
    let payload = cpio_of(&[
        ("./usr/x", 2, b""),
        ("./usr/a", 3, b""),
        ("./usr/b", 3, b""),
        ("./usr/y", 2, b""),
        ("./usr/c", 3, b"bytes"),
    ]);
    let package = read_bytes(&rpm_of(&header, &payload)).unwrap();
    let links = |to: &str| {
        let all = package.tree.entries.iter();
        all.filter(|e| matches!(&e.node, TreeNode::Hardlink { target } if target.as_str() == to))
            .count()
    };
    assert_eq!((links("usr/a"), links("usr/x")), (2, 1));
}

/// What the payload says otherwise than the header, and what would become somebody else's.
#[test]
fn hostile_packages_are_refused() {
    let one: [Raw<'_>; 1] = [("usr/a", FILE, b"hello", "root")];
    let header = header_of(&one);
    let good = cpio_of(&[("./usr/a", 1, b"hello")]);
    read_bytes(&rpm_of(&header, &good)).unwrap();
    let says = |payload: &[u8], text: &str| {
        let error = refused(&header, payload);
        assert!(error.contains(text), "{error}");
    };
    says(&cpio_of(&[]), "is listed, and not there");
    says(&cpio_of(&[("./usr/a", 1, b"hello"), ("./usr/b", 1, b"x")]), "does not list `usr/b`");
    says(&cpio_of(&[("./usr/a", 1, b"hello"), ("./usr/a", 1, b"hello")]), "does not list");
    says(&cpio_of(&[("./usr/a", 1, b"hello!")]), "another size");
    says(&good[..good.len() - 200], "cut off");
    says(b"07070X", "cut off");
    says(&[b"07070X".as_slice(), &[b'0'; 200]].concat(), "cut off");
    let with = |change: &dyn Fn(&mut Header)| {
        let mut header = header.clone();
        change(&mut header);
        refused(&header, &good)
    };
    let setuid = with(&|h| {
        h.set(tag::FILEMODES, Value::Int16(vec![0o104_755]));
        h.set(tag::FILEUSERNAME, Value::texts(&["acme"]));
    });
    assert!(setuid.contains("setuid file of `acme`"), "{setuid}");
    let outside = with(&|h| h.set(tag::DIRNAMES, Value::texts(&["/usr/../../"])));
    assert!(outside.contains("does not list"), "{outside}");
    let steals = with(&|h| {
        h.set(tag::OBSOLETENAME, Value::texts(&["openssl"]));
        h.set(tag::OBSOLETEVERSION, Value::texts(&[""]));
        h.set(tag::OBSOLETEFLAGS, Value::Int32(vec![0]));
    });
    assert!(steals.contains("obsoletes `openssl`"), "{steals}");
    assert!(with(&|h| h.remove(tag::SOURCERPM)).contains("source package"));
    let sum = with(&|h| {
        h.set(tag::PAYLOADDIGESTALGO, Value::Int32(vec![8]));
        h.set(tag::PAYLOADDIGEST, Value::texts(&["00"]));
    });
    assert!(sum.contains("another sum"), "{sum}");
    let mut bytes = rpm_of(&header, &good);
    let at = bytes.windows(4).position(|w| w == b"acme").unwrap();
    bytes[at] = b'A';
    assert!(read_bytes(&bytes).unwrap_err().to_string().contains("another sum"));
    let bytes = rpm_of(&header, &good);
    for len in (4..bytes.len()).step_by(7) {
        drop(read_bytes(&bytes[..len]));
    }
    let name = ReadOptions { name: Some("x".parse().unwrap()), ..ReadOptions::default() };
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.rpm");
    fs::write(&path, &bytes).unwrap();
    assert!(read_package(&path, &name).unwrap_err().to_string().contains("--name"));
}

const SPEC: &str = "
Name: acme\nVersion: 1.0\nRelease: 3\nEpoch: 2\nSummary: Tools\nLicense: MIT\nBuildArch: noarch
Requires: bash >= 4, acme-base = 1.0-3, /bin/sh\nProvides: acme-api = 7\nObsoletes: acme-api < 7
%description\nTools of Acme.\n%prep\n%build\n%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc %{buildroot}/var/log
echo '#!/bin/sh' > %{buildroot}/usr/bin/acme
ln %{buildroot}/usr/bin/acme %{buildroot}/usr/bin/acme-2
ln -s acme %{buildroot}/usr/bin/acme-3
echo a > %{buildroot}/etc/acme.conf
touch %{buildroot}/var/log/acme.log
%post\necho hello
%files\n%attr(755,root,root) /usr/bin/acme\n%attr(755,root,root) /usr/bin/acme-2\n/usr/bin/acme-3
%config(noreplace) %attr(644,root,root) /etc/acme.conf\n%ghost /var/log/acme.log
%changelog\n* Thu Jan 01 2026 A <a@b> - 1.0-3\n- first\n";

fn build(dir: &TempDir, payload: &str) -> Option<PathBuf> {
    let spec = dir.path().join("acme.spec");
    fs::write(&spec, SPEC).unwrap();
    let mut command = Command::new("rpmbuild");
    command.args(["-bb", "--nodeps", "--define", &format!("_topdir {}", dir.path().display())]);
    command.args(["--define", &format!("_binary_payload {payload}")]).arg(&spec);
    let out = match command.output() {
        Ok(out) => out,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            drop(io::Write::write_all(&mut io::stderr(), b"skipped: there is no rpmbuild\n"));
            return None;
        }
        Err(e) => panic!("{e}"),
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(dir.path().join("RPMS/noarch/acme-1.0-3.noarch.rpm"))
}

/// What rpmbuild makes is read, whatever compresses it.
#[test]
fn packages_of_rpmbuild() {
    for payload in ["w19.zstdio", "w9.gzdio", "w6.xzdio"] {
        let dir = TempDir::new().unwrap();
        let Some(path) = build(&dir, payload) else { return };
        let package = read_package(&path, &ReadOptions::default()).unwrap();
        assert_eq!(package.version.as_str(), "2:1.0-3");
        assert_eq!(package.arch.as_str(), "all");
        let depends: Vec<_> = package.depends.iter().map(Line::as_str).collect();
        assert_eq!(depends, ["acme-base (= 1.0-3)", "bash (>= 4)"]);
        let provides: Vec<_> = package.provides.iter().map(PackageName::as_str).collect();
        assert_eq!(provides, ["acme-api"]);
        let paths: Vec<_> = package.tree.entries.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "etc",
                "etc/acme.conf",
                "usr",
                "usr/bin",
                "usr/bin/acme",
                "usr/bin/acme-2",
                "usr/bin/acme-3"
            ]
        );
        assert_eq!(package.scripts(), ["%post"]);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 5;
        bytes[last] ^= 1;
        assert!(read_bytes(&bytes).unwrap_err().to_string().contains("another sum"));
    }
}
