//! A `.deb` that was published, kept as a tree and written again is to dpkg what it was.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use stork_node::apt::{DebError, write_deb};
use stork_publisher::source::{ReadOptions, UsrMerge, read};
use stork_tests::debs::debs;
use stork_wire::codec::{Blob, List};
use stork_wire::ids::ContentId;
use stork_wire::manifest::{MANIFEST_VERSION, Manifest, Packing, SourceFormat, TreeNode, Xattr};

use super::run;

/// The manifest of a package, without packs, and its contents.
fn published(deb: &Path, usr_merge: UsrMerge) -> (Manifest, BTreeMap<ContentId, Vec<u8>>) {
    let package = read(deb, &ReadOptions { usr_merge, ..ReadOptions::default() }).unwrap();
    let mut contents = BTreeMap::new();
    for (id, size) in package.tree.payload() {
        let mut bytes = Vec::new();
        package.contents.read_into(&id, 0, size, &mut bytes).unwrap();
        contents.insert(id, bytes);
    }
    let packing = Packing { piece_len: 65_536, packs: List::empty(), delta: None };
    let (tree, source) = (package.tree, package.source);
    (Manifest { version: MANIFEST_VERSION, tree, source, packing }, contents)
}

fn rebuild(deb: &Path, usr_merge: UsrMerge, to: &Path) {
    let (manifest, contents) = published(deb, usr_merge);
    let mut open = |id: ContentId| {
        let bytes = contents.get(&id).cloned().unwrap();
        Ok(Box::new(Cursor::new(bytes)) as Box<dyn std::io::Read>)
    };
    let mut file = File::options().read(true).write(true).create_new(true).open(to).unwrap();
    let made = write_deb(&manifest, &mut open, &mut file).unwrap();
    assert_eq!(made.len, file.metadata().unwrap().len());
    let mut again = Cursor::new(Vec::new());
    assert_eq!(write_deb(&manifest, &mut open, &mut again).unwrap(), made, "the same bytes again");
    if let Some(out) = run(Command::new("sha256sum").arg(to)) {
        let hash = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(hash.split(' ').next(), Some(stork_wire::ids::hex(&made.sha256).as_str()));
    }
}

/// Everything about the files below a folder: kind, mode, owner, time, links, bytes.
fn listing(top: &Path) -> BTreeMap<String, String> {
    fn walk(top: &Path, at: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
            let meta = path.symlink_metadata().unwrap();
            let owner = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
            let what = if meta.is_dir() {
                walk(top, &path, out);
                owner
            } else if meta.is_symlink() {
                format!("{owner} {} {}", meta.mtime(), fs::read_link(&path).unwrap().display())
            } else {
                let hash = ContentId::of(&fs::read(&path).unwrap());
                format!("{owner} {} {} {}", meta.mtime(), meta.nlink(), hash.short())
            };
            out.insert(name, what);
        }
    }
    let mut out = BTreeMap::new();
    walk(top, top, &mut out);
    out
}

/// Real packages with conffiles, maintainer scripts, links and files in `/lib`: dpkg unpacks the
/// same files and the same control archive from what was written again.
#[test]
fn dpkg_unpacks_what_was_published() {
    let Some(debs) = debs() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (i, deb) in [&debs.hello, &debs.nginx[0], &debs.ssl[0], &debs.python].iter().enumerate() {
        let place = |name: &str| dir.path().join(format!("{i}-{name}"));
        rebuild(&deb.file, UsrMerge::AsIs, &place("again.deb"));
        for (what, option) in [("files", "-x"), ("control", "-e")] {
            let mut listings = Vec::new();
            for (file, name) in [(&deb.file, "old"), (&place("again.deb"), "new")] {
                let to = place(&format!("{name}-{what}"));
                if run(Command::new("dpkg-deb").arg(option).arg(file).arg(&to)).is_none() {
                    return;
                }
                listings.push(listing(&to));
            }
            let (old, new) = (&listings[0], &listings[1]);
            if what == "files" {
                assert_eq!(old, new, "{}", deb.file.display());
            } else {
                // Times of a control archive mean nothing.
                let is_time = |w: &&str| w.len() == 10 && w.parse::<u64>().is_ok();
                let timeless = |l: &BTreeMap<String, String>| -> Vec<(String, String)> {
                    let words = |v: &str| v.split(' ').filter(|w| !is_time(w)).collect::<String>();
                    l.iter().map(|(k, v)| (k.clone(), words(v))).collect()
                };
                assert_eq!(timeless(old), timeless(new), "{}", deb.file.display());
            }
        }
        let info = run(Command::new("dpkg-deb").arg("-f").arg(place("again.deb")).arg("Version"));
        let version = String::from_utf8(info.unwrap().stdout).unwrap();
        assert_eq!(version.trim(), deb.version);
    }
}

/// A package with files in `/lib` is written with them in `/usr/lib`, as packing moved them; its
/// sums name them there, and are right.
#[test]
fn moved_files_keep_their_sums() {
    let Some(debs) = debs() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("again.deb");
    rebuild(&debs.nginx[0].file, UsrMerge::Canonical, &file);
    let (files, control) = (dir.path().join("files"), dir.path().join("control"));
    for (option, to) in [("-x", &files), ("-e", &control)] {
        if run(Command::new("dpkg-deb").arg(option).arg(&file).arg(to)).is_none() {
            return;
        }
    }
    assert!(files.join("usr/lib/systemd/system/nginx.service").exists());
    assert!(!files.join("lib").exists());
    let sums = control.join("md5sums");
    run(Command::new("md5sum").args(["--quiet", "--strict", "-c"]).arg(sums).current_dir(&files));
    assert!(fs::read_to_string(control.join("conffiles")).unwrap().contains("/etc/"));
}

/// What no `.deb` can hold is refused with its name, and a damaged file of the store is seen.
#[test]
fn what_is_no_deb_is_refused() {
    let Some(debs) = debs() else { return };
    let (good, _) = published(&debs.hello.file, UsrMerge::AsIs);
    let build = |manifest: &Manifest| {
        let mut open = |_| Ok(Box::new(Cursor::new(b"other bytes")) as Box<dyn std::io::Read>);
        write_deb(manifest, &mut open, &mut Cursor::new(Vec::new())).unwrap_err()
    };
    assert!(matches!(build(&good), DebError::Damaged(_)));
    let mut folder = good.clone();
    folder.source.format = SourceFormat::Directory;
    assert!(matches!(build(&folder), DebError::NotADeb));
    let mut named = good.clone();
    let mut files = named.source.control_files.to_vec();
    files[0].name = "../../postinst".parse().unwrap();
    named.source.control_files = List::new(files).unwrap();
    assert!(matches!(build(&named), DebError::BadName(_)));
    let mut marked = good;
    let mut entries = marked.tree.entries.to_vec();
    for entry in &mut entries {
        if let TreeNode::File { xattrs, .. } = &mut entry.node {
            let value = Blob::new(vec![1]).unwrap();
            *xattrs = List::new(vec![Xattr { name: "user.x".parse().unwrap(), value }]).unwrap();
        }
    }
    marked.tree.entries = List::new(entries).unwrap();
    assert!(matches!(build(&marked), DebError::Attributes(_)));
}
