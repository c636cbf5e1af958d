//! `md5sums` and `conffiles` of a control archive name files by the paths of the original archive.
//! Packing moved some of them below `/usr` (usr-merge), and dpkg looks them up by these names.

use std::collections::BTreeSet;

use stork_wire::manifest::{Tree, TreeNode};

/// The paths of a tree that are no folders.
pub(super) fn files(tree: &Tree) -> BTreeSet<&str> {
    let files = tree.entries.iter().filter(|e| !matches!(e.node, TreeNode::Dir));
    files.map(|e| e.path.as_str()).collect()
}

/// Where a path of the original archive is now, if it moved.
fn moved(files: &BTreeSet<&str>, path: &str) -> bool {
    !files.contains(path) && files.contains(format!("usr/{path}").as_str())
}

/// The lines of one of the two files with the paths that the tree has. What is no text, or names
/// nothing of the tree, stays as it is.
pub(super) fn settled(files: &BTreeSet<&str>, name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    // `HASH  PATH`, and `/PATH` or `remove-on-upgrade /PATH`.
    let mark = match name {
        "md5sums" => "  ",
        "conffiles" => "/",
        _ => return None,
    };
    let mut out = String::with_capacity(bytes.len());
    let mut any = false;
    for line in text.split_inclusive('\n') {
        let at = line.find(mark).map(|at| at + mark.len());
        let parts = at.and_then(|at| line.split_at_checked(at));
        match parts {
            Some((before, path)) if moved(files, path.trim_end_matches('\n')) => {
                any = true;
                out.push_str(before);
                out.push_str("usr/");
                out.push_str(path);
            }
            _ => out.push_str(line),
        }
    }
    any.then(|| out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What moved is named by its new place, everything else stays as it was.
    #[test]
    fn moved_paths_are_named_anew() {
        let files: BTreeSet<&str> = ["usr/lib/a", "etc/b", "usr/bin/c"].into();
        let text = "00  lib/a\n11  etc/b\n22  bin/gone\n";
        let out = settled(&files, "md5sums", text.as_bytes()).unwrap();
        assert_eq!(out, b"00  usr/lib/a\n11  etc/b\n22  bin/gone\n");
        let text = "/etc/b\nremove-on-upgrade /lib/a\n/bin/c";
        let out = settled(&files, "conffiles", text.as_bytes()).unwrap();
        assert_eq!(out, b"/etc/b\nremove-on-upgrade /usr/lib/a\n/usr/bin/c");
        assert_eq!(settled(&files, "conffiles", b"/etc/b\n"), None);
        assert_eq!(settled(&files, "postinst", b"/lib/a\n"), None);
        assert_eq!(settled(&files, "md5sums", &[0xff]), None);
    }
}
