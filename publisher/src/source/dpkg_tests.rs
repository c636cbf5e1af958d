//! What is read of a `.deb` is what dpkg unpacks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use stork_wire::manifest::TreeNode;
use tempfile::TempDir;

use super::tests::{content, run, sample};
use super::*;

/// What dpkg-deb builds is read, in every compression, to exactly the files that `dpkg -x` writes.
#[test]
fn as_dpkg_unpacks_it() {
    let dir = TempDir::new().unwrap();
    let top = sample(dir.path());
    fs::create_dir(top.join("DEBIAN")).unwrap();
    let control = "Package: acme\nVersion: 1:2-3\nArchitecture: all\nMaintainer: a <a@b>\n\
                   Description: test\n";
    fs::write(top.join("DEBIAN/control"), control).unwrap();
    // Times that are not those of this second, or a folder that is touched again would look right.
    assert!(run(Command::new("find").arg(&top).args([
        "-exec",
        "touch",
        "-hd@1500000000",
        "{}",
        "+"
    ])));
    for kind in ["gzip", "xz", "zstd", "none"] {
        let deb = dir.path().join(format!("{kind}.deb"));
        let mut build = Command::new("dpkg-deb");
        build.arg(format!("-Z{kind}")).args(["--root-owner-group", "-b"]).arg(&top).arg(&deb);
        if !run(&mut build) {
            return;
        }
        let package = read(&deb, &ReadOptions::default()).unwrap();
        assert_eq!(package.version.as_str(), "1:2-3");
        let out = dir.path().join(kind);
        assert!(run(Command::new("dpkg").arg("-x").arg(&deb).arg(&out)));
        let mut seen = 0;
        let links = package.tree.entries.iter();
        let links = links.filter(|e| matches!(e.node, TreeNode::Symlink { .. }));
        let touched: Vec<&str> =
            links.filter_map(|e| e.path.as_str().rsplit_once('/')).map(|(d, _)| d).collect();
        for e in &package.tree.entries {
            let (path, name) = (out.join(e.path.as_str()), e.path.as_str());
            let meta = fs::symlink_metadata(&path).unwrap();
            // dpkg-deb puts symlinks last, so that unpacking touches their folders again.
            if !touched.contains(&name) {
                assert_eq!(e.mtime, meta.mtime(), "{name}");
            }
            match &e.node {
                TreeNode::Dir => assert!(meta.is_dir()),
                TreeNode::File { .. } => {
                    assert_eq!(content(&package, name), fs::read(&path).unwrap());
                    assert_eq!(u32::from(e.mode), meta.mode() & 0o7777, "{name}");
                }
                TreeNode::Symlink { target } => {
                    assert_eq!(fs::read_link(&path).unwrap(), Path::new(target.as_str()));
                }
                TreeNode::Hardlink { target } => {
                    let first = fs::metadata(out.join(target.as_str())).unwrap();
                    assert_eq!(first.ino(), meta.ino());
                }
                other => panic!("{other:?}"),
            }
            seen += 1;
        }
        let there = Command::new("find").arg(&out).args(["-mindepth", "1"]).output().unwrap();
        assert_eq!(seen, there.stdout.iter().filter(|b| **b == b'\n').count());
    }
}
