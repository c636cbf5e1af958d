//! Random trees become images that say the same tree: to a reader of our own, to `fsck.erofs`, and
//! to the kernel.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use stork_wire::codec::{Blob, List};
use stork_wire::manifest::{TreeNode, Xattr};

use super::reader::{Image, Seen};
use super::*;
use crate::store::tests::support::root_or_skip;

/// The bytes of a file of a tree made here: its content's id is the hash of them.
fn content(seed: u8, size: u64) -> Vec<u8> {
    (0..size).map(|i| seed.wrapping_mul(31).wrapping_add((i % 251) as u8) | 1).collect()
}

fn entry(path: &str, node: TreeNode) -> TreeEntry {
    TreeEntry { path: path.parse().unwrap(), mode: 0o755, uid: 0, gid: 0, mtime: 5, node }
}

fn file(path: &str, seed: u8, size: u64) -> TreeEntry {
    let content = ContentId::of(&content(seed, size));
    entry(path, TreeNode::File { content, size, xattrs: List::empty() })
}

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.parse().unwrap(), value: Blob::new(value.to_vec()).unwrap() }
}

fn with_xattrs(entry: TreeEntry, xattrs: Vec<Xattr>) -> TreeEntry {
    let TreeNode::File { content, size, .. } = entry.node else { panic!("no file") };
    let xattrs = List::new(xattrs).unwrap();
    TreeEntry { node: TreeNode::File { content, size, xattrs }, ..entry }
}

fn tree(mut entries: Vec<TreeEntry>) -> Tree {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let tree = Tree { entries: List::new(entries).unwrap() };
    tree.check().unwrap();
    tree
}

type Contents = BTreeMap<ContentId, Vec<u8>>;

/// Every content of at most 256 seeds and these sizes.
fn contents(sizes: &[u64]) -> Contents {
    let all = sizes.iter().flat_map(|size| (0..4).map(|seed| content(seed, *size)));
    all.map(|bytes| (ContentId::of(&bytes), bytes)).collect()
}

/// Writes a plan, as the shell does.
fn image(plan: &Plan, contents: &Contents) -> Vec<u8> {
    let mut out = plan.metadata.clone();
    assert_eq!(out.len() as u64 % BLOCK, 0);
    out.resize(usize::try_from(plan.len).unwrap(), 0);
    let mut end = plan.metadata.len() as u64;
    for run in &plan.runs {
        assert!(run.at % BLOCK == 0 && run.at >= end, "runs ascend and do not meet");
        end = run.at + run.len;
        let index = |n: u64| usize::try_from(n).unwrap();
        let bytes = &contents[&run.content][index(run.from)..index(run.from + run.len)];
        out[index(run.at)..index(end)].copy_from_slice(bytes);
    }
    assert!(end <= plan.len);
    out
}

/// Path, mode, owner, time and bytes.
type Told = (String, u16, (u32, u32), i64, Vec<u8>);

/// What a reader must see of a tree.
fn expected(tree: &Tree, contents: &Contents) -> Vec<Told> {
    let mut by_path: BTreeMap<&str, &TreeEntry> = BTreeMap::new();
    let mut out = Vec::new();
    for named in &tree.entries {
        let e = match &named.node {
            TreeNode::Hardlink { target } => by_path[target.as_str()],
            _ => named,
        };
        by_path.insert(named.path.as_str(), e);
        let (kind, bytes) = match &e.node {
            TreeNode::Dir => (0o040_000, Vec::new()),
            TreeNode::File { content, .. } => (0o100_000, contents[content].clone()),
            TreeNode::Symlink { target } => (0o120_000, target.as_str().as_bytes().to_vec()),
            TreeNode::Fifo => (0o010_000, Vec::new()),
            TreeNode::CharDevice { .. } => (0o020_000, Vec::new()),
            TreeNode::BlockDevice { .. } => (0o060_000, Vec::new()),
            TreeNode::Hardlink { .. } => panic!("links lead to files"),
        };
        let mode = if kind == 0o120_000 { kind | 0o777 } else { kind | e.mode };
        out.push((named.path.to_string(), mode, (e.uid, e.gid), e.mtime, bytes));
    }
    out.sort();
    out
}

fn told(seen: &[Seen]) -> Vec<Told> {
    let below = seen.iter().filter(|s| s.path != ".");
    below.map(|s| (s.path.clone(), s.mode, s.owner, s.mtime, s.bytes.clone())).collect()
}

const SIZES: &[u64] = &[0, 1, 4_095, 4_096, 4_097, 40_000, 100_000];

/// Trees with every kind of node, odd owners and times, and folders of several blocks.
fn trees() -> impl Strategy<Value = Tree> {
    let name = prop_oneof!["[a-c+.-]{1,2}[a-z]{0,3}", "[a-z]{200,250}"];
    let node = prop_oneof![
        4 => (0_u8..4, 0..SIZES.len()).prop_map(|(seed, size)| {
            let (size, content) = (SIZES[size], content(seed, SIZES[size]));
            TreeNode::File { content: ContentId::of(&content), size, xattrs: List::empty() }
        }),
        3 => Just(TreeNode::Dir),
        2 => "[a-z]{1,300}".prop_map(|t| TreeNode::Symlink { target: t.parse().unwrap() }),
        1 => Just(TreeNode::Fifo),
        1 => (0_u32..4096, 0_u32..1 << 20)
            .prop_map(|(major, minor)| TreeNode::BlockDevice { major, minor }),
        1 => (1_u32..4096, 0_u32..1 << 20)
            .prop_map(|(major, minor)| TreeNode::CharDevice { major, minor }),
        1 => Just(TreeNode::Hardlink { target: "x".parse().unwrap() }),
    ];
    let owner = prop_oneof![3 => 0_u32..3, 1 => 65_534_u32..65_538, 1 => Just(u32::MAX)];
    let time = prop_oneof![4 => Just(1_700_000_000_i64), 1 => -5_i64..1 << 40];
    let attribute = proptest::option::weighted(0.2, proptest::collection::vec(any::<u8>(), 0..300));
    let one = (name, node, any::<u16>(), owner.clone(), owner, (time, attribute, any::<u16>()));
    proptest::collection::vec(one, 0..120).prop_map(|all| {
        let mut dirs = vec![String::new()];
        let mut entries: BTreeMap<String, TreeEntry> = BTreeMap::new();
        let mut files: Vec<String> = Vec::new();
        for (name, node, mode, uid, gid, (mtime, attribute, pick)) in all {
            let dir = dirs[usize::from(pick) % dirs.len()].clone();
            let path = format!("{dir}{name}");
            if path.len() > 1_000
                || entries.contains_key(&path)
                || path.parse::<stork_wire::text::TreePath>().is_err()
            {
                continue;
            }
            let node = match node {
                TreeNode::Hardlink { .. } => match files.iter().find(|f| **f < path) {
                    Some(f) => TreeNode::Hardlink { target: f.parse().unwrap() },
                    None => continue,
                },
                node => node,
            };
            match &node {
                TreeNode::Dir => dirs.push(format!("{path}/")),
                TreeNode::File { .. } => files.push(path.clone()),
                _ => {}
            }
            let mode = mode & 0o7777;
            let mut e = TreeEntry { path: path.parse().unwrap(), mode, uid, gid, mtime, node };
            if let Some(value) = attribute.filter(|_| matches!(e.node, TreeNode::File { .. })) {
                let names = ["security.capability", "trusted.overlay.redirect", "user.x"];
                e = with_xattrs(e, names.map(|n| xattr(n, &value)).to_vec());
            }
            entries.insert(path, e);
        }
        tree(entries.into_values().collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// What goes in comes out, in both kinds of images; the same tree gives the same bytes.
    #[test]
    fn random_trees(tree in trees()) {
        let contents = contents(SIZES);
        let holes = BTreeMap::new();
        let inside = plan(&tree, Files::Inside(&holes), 2 << 20).unwrap();
        prop_assert_eq!(inside.len % (2 << 20), 0);
        let bytes = image(&inside, &contents);
        let seen = Image(&bytes).read();
        prop_assert_eq!(told(&seen), expected(&tree, &contents));
        prop_assert_eq!(&plan(&tree, Files::Inside(&holes), 2 << 20).unwrap(), &inside);
        let path = |e: &TreeEntry| format!("/of/{}", e.path);
        let beside = plan(&tree, Files::Beside(&path), BLOCK).unwrap();
        prop_assert!(beside.runs.is_empty());
        let seen_beside = Image(&image(&beside, &contents)).read();
        for (a, b) in seen.iter().zip(&seen_beside) {
            prop_assert_eq!((&a.path, a.mode, a.owner, a.mtime, a.size, a.links, a.device),
                (&b.path, b.mode, b.owner, b.mtime, b.size, b.links, b.device));
            let redirects: Vec<_> =
                b.xattrs.iter().filter(|(n, _)| n == "trusted.overlay.redirect").collect();
            let own = a.mode >> 12 == 8 && a.size > 0;
            prop_assert_eq!(redirects.len(), usize::from(own));
            prop_assert!(redirects.iter().all(|(_, v)| v.starts_with(b"/of/")));
            if !a.xattrs.is_empty() {
                let escaped = |n: &str| n == "trusted.overlay.overlay.redirect";
                prop_assert!(b.xattrs.iter().any(|(n, _)| escaped(n)));
                prop_assert!(a.xattrs.iter().any(|(n, _)| n == "trusted.overlay.redirect"));
            }
        }
    }
}

/// A tree of every kind, for other programs.
fn sample() -> (Tree, Contents) {
    let mut entries = vec![
        entry("dir", TreeNode::Dir),
        file("dir/a", 1, 100_000),
        file("dir/b", 2, 4_097),
        file("dir/empty", 0, 0),
        entry("dir/hard", TreeNode::Hardlink { target: "dir/a".parse().unwrap() }),
        entry("dir/link", TreeNode::Symlink { target: "a".parse().unwrap() }),
        entry("null", TreeNode::CharDevice { major: 1, minor: 3 }),
        entry("pipe", TreeNode::Fifo),
        entry("many", TreeNode::Dir),
        file("same", 1, 100_000),
    ];
    entries.extend((0..500).map(|i| file(&format!("many/file-with-a-name-{i:03}"), 3, 1)));
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let owned = with_xattrs(
        file("ping", 0, 40_000),
        vec![xattr("security.capability", &capability), xattr("user.note", b"x")],
    );
    entries.push(TreeEntry { uid: 70_000, gid: 5, mtime: 1_600_000_000, mode: 0o4711, ..owned });
    (tree(entries), contents(SIZES))
}

/// The bytes of one image: whoever changes them changes the image of every set.
#[test]
fn golden() {
    let (tree, contents) = sample();
    let plan = plan(&tree, Files::Inside(&BTreeMap::new()), BLOCK).unwrap();
    let bytes = image(&plan, &contents);
    assert_eq!(bytes.len(), 192_512);
    assert_eq!(
        blake3::hash(&bytes).to_hex().as_str(),
        "47046069905a182f59a07b05230a1079049efd33c44efad01249f025bbba0189"
    );
    let shared: Vec<u64> = Image(&bytes)
        .read()
        .iter()
        .filter(|s| ["dir/a", "dir/hard", "same"].contains(&s.path.as_str()))
        .map(|s| s.inode)
        .collect();
    assert!(shared[0] == shared[1] && shared[1] != shared[2], "a hard link is one inode");
    let of = |seed| content(seed, 100_000);
    let runs = plan.runs.iter().filter(|r| r.content == ContentId::of(&of(1)));
    assert_eq!(runs.count(), 1, "one content stands once");
}

/// Trees that have no image are refused with a word.
#[test]
fn refused() {
    let beside =
        |e: TreeEntry| plan(&tree(vec![e]), Files::Beside(&|_| "/x".to_owned()), BLOCK).map(drop);
    let null = entry("w", TreeNode::CharDevice { major: 0, minor: 0 });
    assert!(matches!(beside(null.clone()), Err(ErofsError::Whiteout { .. })));
    let inside = plan(&tree(vec![null]), Files::Inside(&BTreeMap::new()), BLOCK);
    assert!(inside.is_ok());
    let far = entry("d", TreeNode::BlockDevice { major: 4_096, minor: 0 });
    assert!(matches!(beside(far), Err(ErofsError::Device { .. })));
    let odd = with_xattrs(file("f", 0, 1), vec![xattr("btrfs.compression", b"x")]);
    assert!(matches!(beside(odd), Err(ErofsError::Attribute { .. })));
    let long = format!("user.{}", "x".repeat(256));
    let long = with_xattrs(file("f", 0, 1), vec![xattr(&long, b"")]);
    assert!(matches!(beside(long), Err(ErofsError::Attribute { .. })));
    // A tree that nobody checked.
    let orphan = Tree { entries: List::new(vec![file("no/parent", 0, 1)]).unwrap() };
    let orphan = plan(&orphan, Files::Inside(&BTreeMap::new()), BLOCK);
    assert!(matches!(orphan, Err(ErofsError::Tree { .. })));
}

/// Holes take no room, wherever they are; a file of more than 4 GiB is one of the long form.
#[test]
fn holes() {
    let size = 5 * (1 << 30) + 7;
    let id = ContentId::of(b"large");
    let node = TreeNode::File { content: id, size, xattrs: List::empty() };
    let tree = tree(vec![entry("large", node)]);
    let ranges = [10..20, HOLE..2 * HOLE, (1 << 32)..(1 << 32) + 1, size - 1..size];
    let data = BTreeMap::from([(id, ranges.to_vec())]);
    let plan = plan(&tree, Files::Inside(&data), BLOCK).unwrap();
    let lens: Vec<(u64, u64)> = plan.runs.iter().map(|r| (r.from, r.len)).collect();
    assert_eq!(lens, [(0, 2 * HOLE), (1 << 32, HOLE), (5 << 30, 7)]);
    assert!(plan.len < 1 << 20, "{}", plan.len);
    let mut bytes = plan.metadata.clone();
    bytes.resize(usize::try_from(plan.len).unwrap(), 7);
    let seen = Image(&bytes).read();
    assert_eq!((seen[1].size, seen[1].holes), (size, (5 << 15) + 1 - 4));
}

fn fsck(path: &Path, more: &[&str]) -> Option<String> {
    let out = match Command::new("fsck.erofs").args(more).arg(path).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: fsck.erofs is not here (Debian package erofs-utils)");
            return None;
        }
        other => other.unwrap(),
    };
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    Some(text.into_owned())
}

/// The tools of the file system's own authors find no fault, and extract the same bytes.
#[test]
fn fsck_finds_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let (tree, contents) = sample();
    let holes = BTreeMap::new();
    let plans = [
        plan(&tree, Files::Inside(&holes), 2 << 20).unwrap(),
        plan(&tree, Files::Beside(&|e| format!("/{}", e.path)), BLOCK).unwrap(),
    ];
    for (i, plan) in plans.iter().enumerate() {
        std::fs::write(&path, image(plan, &contents)).unwrap();
        if fsck(&path, &[]).is_none() {
            return;
        }
        if i == 0 && root_or_skip("devices and owners") {
            let out = folder.path().join("out");
            fsck(&path, &[&format!("--extract={}", out.display())]);
            compare(&out, &tree, &contents);
        }
    }
}

/// A folder holds what the tree says.
fn compare(top: &Path, tree: &Tree, contents: &Contents) {
    use std::os::unix::fs::MetadataExt;
    for (path, mode, owner, mtime, bytes) in expected(tree, contents) {
        let full = top.join(&path);
        let meta = full.symlink_metadata().unwrap();
        // The extractor gives owners last, which takes setuid bits away.
        assert_eq!(meta.mode() & !0o6000, u32::from(mode) & !0o6000, "{path}");
        assert_eq!((meta.uid(), meta.gid()), owner, "{path}");
        let read = match mode & 0o170_000 {
            0o100_000 => std::fs::read(&full).unwrap(),
            0o120_000 => std::fs::read_link(&full).unwrap().into_os_string().into_encoded_bytes(),
            _ => Vec::new(),
        };
        assert_eq!(read, bytes, "{path}");
        assert!(meta.is_dir() || meta.mtime() == mtime, "{path}");
    }
}
