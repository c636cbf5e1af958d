//! Package sets: the same on every host, equal to their manifests, and never a mixture.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use stork_wire::codec::{Blob, List, encode};
use stork_wire::manifest::{Tree, TreeEntry, TreeNode, Xattr};

use super::support::*;
use crate::store::db::SETS;
use crate::store::merge::set_id;
use crate::store::objects::ObjectRow;
use crate::store::sets::SetRow;
use crate::store::{LeaseSet, SetError, SetForm, Store};

/// Every entry on disk is what the tree says.
pub(crate) fn assert_shows(root: &Path, tree: &Tree) {
    for e in &tree.entries {
        let path = root.join(e.path.as_str());
        let meta = path.symlink_metadata().unwrap();
        assert_eq!(meta.mtime(), e.mtime, "{path:?}");
        assert_eq!((meta.uid(), meta.gid()), (e.uid, e.gid), "{path:?}");
        match &e.node {
            TreeNode::Dir => assert!(meta.is_dir()),
            TreeNode::File { size, .. } => assert_eq!(meta.len(), *size),
            TreeNode::Symlink { target } => {
                assert_eq!(std::fs::read_link(&path).unwrap().to_str(), Some(target.as_str()));
                continue;
            }
            TreeNode::Hardlink { target } => {
                let first = root.join(target.as_str()).symlink_metadata().unwrap();
                assert_eq!(first.ino(), meta.ino());
            }
            _ => {}
        }
        assert_eq!(meta.mode() & 0o7777, u32::from(e.mode), "{path:?}");
    }
}

/// Times, modes, links and names are those of the manifests, whatever the order of the packages;
/// two stores give the same id, and a set is built once.
#[test]
fn a_set_is_its_manifests() {
    let (_folder, store) = store();
    let mut first = small("a", b"data of a");
    let mut entries = first.manifest.tree.entries.clone().into_vec();
    entries.push(hard("usr/z", "usr/a/data"));
    entries.push(dir("usr/deep"));
    entries.push(dir("usr/deep/er"));
    entries[0].mtime += 50;
    entries.last_mut().unwrap().mode = 0o300;
    first.manifest.tree = tree(entries);
    let second = small("b", b"data of b");
    install(&store, &first);
    install(&store, &second);
    let (a, b) = (member("a 1", &first), member("b 1", &second));
    let set = store.build_set(&spec(vec![a.clone(), b.clone()])).unwrap();
    let merged = store.set_tree(set.id).unwrap().unwrap();
    assert_eq!(merged.entries.len(), 13);
    assert_shows(&set.path, &merged);
    assert_shows(&set.path, &first.manifest.tree);
    let usr = set.path.join("usr").metadata().unwrap();
    assert_eq!(usr.mtime(), 1_700_000_050, "the greater time of both packages");
    assert_eq!(store.build_set(&spec(vec![b, a])).unwrap().id, set.id);
    let (_folder, elsewhere) = super::support::store();
    install(&elsewhere, &second);
    install(&elsewhere, &first);
    let again = elsewhere.build_set(&spec(vec![member("x", &second), member("y", &first)]));
    assert_eq!(again.unwrap().id, set.id);
}

/// Names that several threads make: every file of many folders, with links across them and several
/// names for one object, is where it belongs, and a file that lacks is told by its path.
#[test]
fn large_trees_are_built_by_several_threads() {
    let (folder, store) = store();
    let contents: Vec<Vec<u8>> = (0..7u8).map(|n| vec![n; 9]).collect();
    let mut entries = Vec::new();
    for d in 0..40 {
        entries.push(dir(&format!("d{d:02}")));
        entries.extend((0..50).map(|f| file(&format!("d{d:02}/f{f:02}"), &contents[f % 7])));
        entries.push(link(&format!("d{d:02}/link"), "f00"));
        if d > 0 {
            entries.push(hard(&format!("d{d:02}/same"), &format!("d{:02}/f07", d - 1)));
        }
    }
    let tree = tree(entries);
    let all: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    install(&store, &pack(tree.clone(), &all, 1 << 20, None));
    let dest = folder.path().join("stork/sets/.build-large");
    store.link_tree(&tree, &dest).unwrap();
    assert_shows(&dest, &tree);
    let mut more = tree.entries.to_vec();
    more.push(file("z", b"nowhere"));
    let lacks = super::support::tree(more);
    let dest = folder.path().join("stork/sets/.build-lacks");
    let error = store.link_tree(&lacks, &dest).unwrap_err();
    assert!(matches!(&error, SetError::Incomplete { package } if package == "z"), "{error}");
    assert!(!dest.exists());
}

/// Sets of earlier versions, which had the name of a backend as their tag, stay what they are; one
/// of a later version's form is kept as long as a lease names it, and shown to nobody.
#[test]
fn sets_of_other_versions() {
    let (_folder, store) = store();
    let packed = small("a", b"data");
    install(&store, &packed);
    let set = store.build_set(&spec(vec![member("a 1", &packed)])).unwrap();
    let tree = store.set_tree(set.id).unwrap().unwrap();
    let sets = store.dir().join("sets");
    let [old, later] = ["hardlink", "hologram"].map(|tag| {
        let id = set_id(tag, &tree, []);
        assert_ne!(id, set.id);
        store.link_tree(&tree, &sets.join(id.to_string())).unwrap();
        store.write_file(&sets, &format!("{id}.tree"), &encode(&tree)).unwrap();
        let (members, tag) = (set.members.clone(), tag.to_owned());
        let row = SetRow { members, tag, suid: false, devices: false };
        store.put_record(SETS, id.as_bytes(), &row).unwrap();
        id
    });
    let all = LeaseSet { sets: [set.id, old, later].into(), ..LeaseSet::default() };
    store.lease("all", &all).unwrap();
    let dir = store.dir().to_owned();
    drop(store);
    let store = open(&dir);
    let ids: BTreeSet<_> = store.sets().unwrap().into_iter().map(|s| s.id).collect();
    assert_eq!(ids, [set.id, old].into());
    assert_eq!(store.set_info(old).unwrap().unwrap().form, SetForm::Folder);
    assert_eq!(store.set_info(later).unwrap(), None);
    assert_eq!(store.verify(&|_| {}).unwrap().damaged, []);
    assert_eq!(store.gc(false).unwrap().sets, 0);
    assert!(sets.join(later.to_string()).exists());
    store.release_lease("all").unwrap();
    assert_eq!(store.gc(false).unwrap().sets, 3);
    assert!(!sets.join(later.to_string()).exists());
}

fn packed(entries: Vec<TreeEntry>, contents: &[&[u8]]) -> Packed {
    pack(tree(entries), contents, 1 << 20, None)
}

fn conflict(a: &Packed, b: &Packed) -> String {
    let (_folder, store) = store();
    install(&store, a);
    install(&store, b);
    let set = spec(vec![member("zoo 1", a), member("ant 2", b)]);
    let error = store.build_set(&set).unwrap_err();
    assert!(matches!(error, SetError::Conflict { .. }), "{error}");
    assert_eq!(store.sets().unwrap(), []);
    error.to_string()
}

/// Two packages that fill a path differently are refused with both names, in the same words
/// whatever their order.
#[test]
fn conflicts() {
    let text = |bytes: &[u8]| packed(vec![file("f", bytes)], &[bytes]);
    let said = conflict(&text(b"x"), &text(b"y"));
    assert_eq!(said, "`f` is in ant 2 and in zoo 1, and they differ in content");
    let folder = packed(vec![dir("lib"), file("lib/x", b"x")], &[b"x"]);
    let said = conflict(&folder, &packed(vec![link("lib", "usr/lib")], &[]));
    assert!(said.contains("directory where the other has a symbolic link"), "{said}");
    let mut private = dir("lib");
    private.mode = 0o700;
    let said = conflict(&folder, &packed(vec![private], &[]));
    assert!(said.contains("differ in mode"), "{said}");
    let said = conflict(&folder, &packed(vec![file("lib", b"x")], &[b"x"]));
    assert!(said.contains("differ in kind"), "{said}");
}

/// Privileges are refused with the path and the package, and granted ones are said with the set.
#[test]
fn privileges_need_a_grant() {
    let (_folder, store) = store();
    let mut su = file("su", b"#!");
    su.mode = 0o4755;
    let mut cap = file("ping", b"ping");
    let TreeNode::File { xattrs, .. } = &mut cap.node else { panic!("no file") };
    let x =
        Xattr { name: "trusted.test".parse().unwrap(), value: Blob::new(b"v".to_vec()).unwrap() };
    *xattrs = List::new(vec![x]).unwrap();
    for (entry, bytes, word) in
        [(su, b"#!".as_slice(), "setuid"), (cap, b"ping", "a privileged attribute")]
    {
        let packed = packed(vec![entry], &[bytes]);
        install(&store, &packed);
        let mut m = member("tools 1", &packed);
        let error = store.build_set(&spec(vec![m.clone()])).unwrap_err();
        assert!(matches!(&error, SetError::Privilege { what, .. } if *what == word), "{error}");
        m.privileged_allowed = true;
        let set = store.build_set(&spec(vec![m])).unwrap();
        assert!(set.needs_suid && !set.needs_devices);
    }
}

/// Devices and pipes appear only with a grant, and as root.
#[test]
fn devices() {
    if !root_or_skip("making a device") {
        return;
    }
    let (_folder, store) = store();
    let mut pipe = dir("pipe");
    pipe.node = TreeNode::Fifo;
    let mut null = dir("null");
    (null.node, null.mode) = (TreeNode::CharDevice { major: 1, minor: 3 }, 0o666);
    let packed = packed(vec![null, pipe], &[]);
    install(&store, &packed);
    let mut m = member("dev", &packed);
    assert!(store.build_set(&spec(vec![m.clone()])).is_err());
    m.privileged_allowed = true;
    let set = store.build_set(&spec(vec![m])).unwrap();
    assert!(set.needs_devices && !set.needs_suid);
    assert_shows(&set.path, &packed.manifest.tree);
    let meta = set.path.join("null").metadata().unwrap();
    assert_eq!(meta.rdev(), rustix::fs::makedev(1, 3));
}

/// A tree of which a file is missing is neither noted as complete nor built.
#[test]
fn incomplete_trees() {
    let (_folder, store) = store();
    let packed = small("a", b"data");
    assert!(store.put_tree(&packed.manifest.tree).is_err());
    let error = store.build_set(&spec(vec![member("a 1", &packed)])).unwrap_err();
    assert!(matches!(&error, SetError::Incomplete { package } if package == "a 1"), "{error}");
}

/// A further variant of a content is copied from the one that is here.
#[test]
fn variants_share_a_content() {
    let (_folder, store) = store();
    install(&store, &small("a", b"data"));
    let mut entry = file("x", b"data");
    entry.mode = 0o600;
    let key = store.ensure_variant(&entry).unwrap().unwrap();
    assert_eq!(key, ObjectRow::of(&entry).unwrap().key());
    let meta = store.object_path(key).metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.len()), (0o600, 4));
    assert!(store.ensure_variant(&file("y", b"unknown")).is_err());
    assert_eq!(store.ensure_variant(&dir("d")).unwrap(), None);
}

/// Where a file system bounds the links of a file (ext4: 65 000), a copy takes over.
#[test]
fn more_links_than_a_file_may_have() {
    let (folder, store) = store();
    let packed = packed(vec![file("f", b"data")], &[b"data"]);
    install(&store, &packed);
    let object = ObjectRow::of(&packed.manifest.tree.entries[0]).unwrap().key();
    let path = store.object_path(object);
    let spare = folder.path().join("spare");
    std::fs::create_dir(&spare).unwrap();
    let full = (0..65_000).any(|i| std::fs::hard_link(&path, spare.join(i.to_string())).is_err());
    if !full {
        println!("skipped: this file system does not bound links at 65 000");
        return;
    }
    let set = store.build_set(&spec(vec![member("a", &packed)])).unwrap();
    assert_eq!(std::fs::read(set.path.join("f")).unwrap(), b"data");
    assert_shows(&set.path, &packed.manifest.tree);
    assert_ne!(set.path.join("f").metadata().unwrap().ino(), path.metadata().unwrap().ino());
    assert_eq!(store.verify(&|_| {}).unwrap().damaged, []);
}

/// A destination on another file system is refused in words, and nothing is left there.
#[test]
fn links_stay_on_their_disk() {
    let (_folder, store) = store();
    let packed = small("a", b"data");
    install(&store, &packed);
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() || shm.metadata().unwrap().dev() == store.dir().metadata().unwrap().dev() {
        println!("skipped: there is no second file system at /dev/shm");
        return;
    }
    let other = tempfile::tempdir_in(shm).unwrap();
    let dest = other.path().join("x");
    let error = store.link_tree(&packed.manifest.tree, &dest).unwrap_err();
    assert!(matches!(error, SetError::OtherFileSystem { .. }), "{error}");
    assert!(!dest.exists());
}

/// Two threads that build one set meet.
#[test]
fn builds_meet() {
    let (_folder, store) = store();
    let packed = small("a", b"data");
    install(&store, &packed);
    let build = |store: &Store| store.build_set(&spec(vec![member("a", &packed)])).unwrap().id;
    let ids = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4).map(|_| s.spawn(|| build(&store))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(ids.windows(2).all(|w| w[0] == w[1]));
}
