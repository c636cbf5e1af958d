//! What the tests of images need: a store with two sets of every kind of node, and a guest's root.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use stork_wire::codec::{Blob, List};
use stork_wire::ids::ContentId;
use stork_wire::manifest::{Tree, TreeEntry, TreeNode, Xattr};

use super::super::tests::Folder;
use super::super::*;
use crate::store::tests::support::{self, install, member, noise};
use crate::store::tests::trees::assert_shows;
use crate::store::{LeaseSet, SetForm, SetMember, SetSpec};
use std::os::unix::fs::MetadataExt;

/// Bytes of one file that is looked for in memory.
pub(super) const LARGE: usize = 1 << 20;

pub(super) struct World {
    pub(super) folder: Folder,
    pub(super) store: Arc<Store>,
    pub(super) views: Views,
    pub(super) sets: [SetInfo; 2],
}

fn content(bytes: &[u8], xattrs: &[(&str, &[u8])]) -> TreeNode {
    let xattr = |(name, value): &(&str, &[u8])| Xattr {
        name: name.parse().unwrap(),
        value: Blob::new(value.to_vec()).unwrap(),
    };
    TreeNode::File {
        content: ContentId::of(bytes),
        size: bytes.len() as u64,
        xattrs: List::new(xattrs.iter().map(xattr).collect()).unwrap(),
    }
}

/// Every kind of node that a tree may have, and attributes that would be orders to overlayfs.
pub(super) fn world(form: SetForm) -> World {
    let (folder, store) = support::store();
    // Sets of one id would keep each other's generations, wherever on this machine they are shown.
    let own = folder.path().as_os_str().as_encoded_bytes().to_vec();
    let sets = ["a", "b"].map(|name| {
        let (text, large) = (name.as_bytes(), noise("large", LARGE));
        // 300 KiB of data, 1 MiB of nothing, and data.
        let sparse = [noise("s", 300 << 10), vec![0; LARGE], vec![7]].concat();
        let mut entries = vec![
            support::dir("usr"),
            support::dir("usr/many"),
            support::file("usr/data", text),
            support::file("usr/empty", b""),
            support::file("usr/own", &own),
            support::file("usr/large", &large),
            support::file("usr/sparse", &sparse),
            support::hard("usr/zhard", "usr/data"),
            support::link("usr/link", "data"),
            support::entry("usr/pipe", 0o600, TreeNode::Fifo),
            support::entry("usr/null", 0o666, TreeNode::CharDevice { major: 1, minor: 3 }),
        ];
        let order: &[(&str, &[u8])] = &[
            ("trusted.overlay.metacopy", b""),
            ("trusted.overlay.redirect", b"/../../secret"),
            ("user.note", b"mine"),
        ];
        entries.push(support::entry("usr/order", 0o4755, content(text, order)));
        let other = TreeEntry { uid: 70_000, gid: 100_001, ..support::file("usr/other", &large) };
        entries.push(other);
        entries.extend((0..300).map(|i| support::file(&format!("usr/many/file-{i:04}"), b"x")));
        let tree = support::tree(entries);
        let mut packed = support::pack(tree, &[text, &large, &sparse, b"x", &own], 4 << 20, None);
        packed.manifest.source.file_name = name.parse().unwrap();
        install(&store, &packed);
        let member = SetMember { privileged_allowed: true, ..member(name, &packed) };
        let set = store.build_set(&SetSpec { members: vec![member], form }).unwrap();
        store.lease(name, &LeaseSet { sets: [set.id].into(), ..Default::default() }).unwrap();
        set
    });
    let folder = Folder::of(folder);
    World { folder, views: Views::new(Arc::clone(&store)), store, sets }
}

impl World {
    pub(super) fn spec(&self, vm: &str, backend: Backend) -> ViewSpec {
        ViewSpec {
            vm: vm.parse().unwrap(),
            backend,
            target: self.folder.path().canonicalize().unwrap().join(vm).join("rootfs"),
            isolation: Isolation::Default,
            keep_generations: 1,
            options: ViewOptions::default(),
        }
    }
    pub(super) fn show(&self, spec: &ViewSpec, which: usize) -> Generation {
        self.views.show(spec, &self.sets[which], GenerationLabel::default(), 1).unwrap()
    }
    pub(super) fn restart(self) -> Self {
        let path = self.store.dir().to_owned();
        let Self { folder, store, views, sets } = self;
        drop((store, views));
        let store = support::open(&path);
        Self { folder, views: Views::new(Arc::clone(&store)), store, sets }
    }
    /// Everything that the store holds is what its names say.
    pub(super) fn whole(&self) {
        assert_eq!(self.store.verify(&|_| {}).unwrap().damaged, []);
    }
    /// The view shows the set, with bytes, attributes and devices.
    pub(super) fn compare(&self, top: &Path, which: usize) {
        self.compare_with(top, &self.store.set_tree(self.sets[which].id).unwrap().unwrap());
    }
    pub(super) fn compare_with(&self, top: &Path, tree: &Tree) {
        assert_shows(top, tree);
        for e in &tree.entries {
            let path = top.join(e.path.as_str());
            match &e.node {
                TreeNode::File { content, xattrs, .. } => {
                    assert_eq!(ContentId::of(&std::fs::read(&path).unwrap()), *content, "{path:?}");
                    for x in xattrs {
                        let mut value = [0; 64];
                        let len = rustix::fs::getxattr(&path, x.name.as_str(), &mut value).unwrap();
                        assert_eq!(value[..len], *x.value, "{path:?} {}", x.name);
                    }
                }
                TreeNode::CharDevice { major, minor } => {
                    let device = path.metadata().unwrap().rdev();
                    assert_eq!(device, rustix::fs::makedev(*major, *minor));
                }
                _ => {}
            }
        }
        let many = std::fs::read_dir(top.join("usr/many")).unwrap().count();
        assert_eq!(many, 300);
    }
}

/// What root of a container tries, in namespaces of its own; each line must fail.
const ATTACKS: &str = r#"
cd "$1" || exit 9
try() { if "$@" 2>/dev/null; then echo "did: $*"; fi; }
try sh -c 'echo x > usr/data'
try sh -c 'echo x >> usr/data'
try sh -c 'echo x > new'
try truncate -s 0 usr/data
try chmod 777 usr/data
try chown 1:1 usr/data
try touch -d @0 usr/data
try ln usr/data hard
try ln -s / soft
try mv usr/data usr/moved
try rm -f usr/data
try mkdir folder
try mknod device c 1 3
try mknod disk b 254 0
try setfattr -n user.x -v 1 usr/data
mount -o remount,rw "$1" 2>/dev/null
mount -o remount,bind,rw "$1" 2>/dev/null
try sh -c 'echo x > usr/data'
try sh -c 'echo x > new'
try rm -f usr/data
try chmod 777 usr/data
"#;

/// Runs the attacks as root of new mount and process namespaces, with a user namespace or without.
pub(super) fn attack(target: &Path, users: bool) -> String {
    let mut command = Command::new("unshare");
    if users {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--pid", "--fork", "sh", "-c", ATTACKS, "sh"]).arg(target);
    let out = command.output().unwrap();
    assert!(out.status.code().is_some_and(|c| c != 9), "{out:?}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}
