//! usr-merge: `/bin`, `/lib` and their like are links into `/usr` on every current system, so that
//! a package that still ships `/bin/x` is shown as `/usr/bin/x` (design §9).

const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Whether top-level directories such as `bin` are moved below `usr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsrMerge {
    /// Move them.
    Canonical,
    /// Leave every path as it is.
    AsIs,
}

/// The new path of an entry that moves. A top-level `bin` that is a link itself stays.
pub(super) fn moved(path: &str, is_dir: bool) -> Option<String> {
    let (first, rest) = path.split_once('/').map_or((path, None), |(f, r)| (f, Some(r)));
    (MERGED.contains(&first) && (rest.is_some() || is_dir)).then(|| format!("usr/{path}"))
}

/// What a relative link must hold after its entry moved one directory deeper; `None`: the same.
///
/// Only a link that begins by climbing to the top changes: what lies there, other than the merged
/// directories, is now one step farther.
pub(super) fn retargeted(path: &str, target: &str) -> Option<String> {
    moved(path, false)?;
    let depth = path.split('/').count().saturating_sub(1);
    let mut parts = target.split('/').peekable();
    let mut climbed = 0;
    while parts.next_if_eq(&"..").is_some() {
        climbed += 1;
    }
    let next = parts.peek().copied().unwrap_or_default();
    (climbed == depth && !MERGED.contains(&next)).then(|| format!("../{target}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries move only from really under those directories, and their links still lead there.
    #[test]
    fn paths_and_links() {
        assert_eq!(moved("bin/sh", false).as_deref(), Some("usr/bin/sh"));
        assert_eq!(moved("lib", true).as_deref(), Some("usr/lib"));
        assert_eq!(moved("lib", false), None);
        assert_eq!(moved("libexec/x", false), None);
        assert_eq!(moved("opt/bin/x", false), None);
        assert_eq!(retargeted("lib/a", "../etc/a").as_deref(), Some("../../etc/a"));
        assert_eq!(retargeted("lib64/ld.so", "../lib/ld-2.36.so"), None);
        assert_eq!(retargeted("lib/x/a", "../b"), None);
        assert_eq!(retargeted("lib/a", "/etc/a"), None);
        assert_eq!(retargeted("etc/a", "../bin/a"), None);
    }
}
