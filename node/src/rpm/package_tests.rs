//! Packages whose header and tree say different things; what real tools take is tested by
//! `tests/apt`.

use std::io::{self, Cursor, Read};

use ring::digest::{SHA256, digest};
use stork_wire::codec::{Blob, List};
use stork_wire::ids::{ContentId, hex};
use stork_wire::manifest::{
    ControlFile, Manifest, Packing, Source, SourceFormat, Tree, TreeEntry, TreeNode,
};
use stork_wire::rpm::{Header, Region, Value, tag};

use super::package::{RpmError, header_of, header_range, write_rpm};
use crate::apt::Written;

const TEXT: &[u8] = b"#!/bin/sh\n";

fn manifest(change: impl FnOnce(&mut Header, &mut Vec<TreeEntry>)) -> Manifest {
    let mut h = Header::default();
    for (tag, text) in [(tag::NAME, "acme"), (tag::VERSION, "1"), (tag::RELEASE, "1")] {
        h.set(tag, Value::Text(text.into()));
    }
    h.set(tag::BASENAMES, Value::texts(&["a", "b", "c"]));
    h.set(tag::DIRNAMES, Value::texts(&["/usr/"]));
    h.set(tag::DIRINDEXES, Value::Int32(vec![0; 3]));
    let len = u32::try_from(TEXT.len()).unwrap();
    h.set(tag::FILESIZES, Value::Int32(vec![len, len, 1]));
    h.set(tag::FILEMODES, Value::Int16(vec![0o100_755, 0o100_755, 0o120_777]));
    h.set(tag::FILERDEVS, Value::Int16(vec![0; 3]));
    h.set(tag::FILEMTIMES, Value::Int32(vec![7; 3]));
    h.set(tag::FILEFLAGS, Value::Int32(vec![0; 3]));
    h.set(tag::FILEDEVICES, Value::Int32(vec![1; 3]));
    h.set(tag::FILEINODES, Value::Int32(vec![1, 1, 2]));
    h.set(tag::FILELINKTOS, Value::texts(&["", "", "a"]));
    for tag in [tag::FILEUSERNAME, tag::FILEGROUPNAME] {
        h.set(tag, Value::texts(&["root", "root", "root"]));
    }
    let entry = |path: &str, mode, node| TreeEntry {
        path: path.parse().unwrap(),
        mode,
        uid: 0,
        gid: 0,
        mtime: 7,
        node,
    };
    let content = ContentId(*blake3::hash(TEXT).as_bytes());
    let file = TreeNode::File { content, size: TEXT.len() as u64, xattrs: List::empty() };
    let mut entries = vec![
        entry("usr", 0o755, TreeNode::Dir),
        entry("usr/a", 0o755, file),
        entry("usr/b", 0o755, TreeNode::Hardlink { target: "usr/a".parse().unwrap() }),
        entry("usr/c", 0o777, TreeNode::Symlink { target: "a".parse().unwrap() }),
    ];
    change(&mut h, &mut entries);
    let bytes = Blob::new(h.encode(Region::Main)).unwrap();
    let kept = ControlFile { name: "header".parse().unwrap(), mode: 0o644, bytes };
    Manifest {
        version: 2,
        tree: Tree { entries: List::truncated(entries) },
        source: Source {
            format: SourceFormat::Rpm,
            file_name: "acme.rpm".parse().unwrap(),
            size: 1,
            sha256: [0; 32],
            control: Blob::default(),
            control_files: List::truncated([kept]),
        },
        packing: Packing { piece_len: 65_536, packs: List::empty(), delta: None },
    }
}

fn written(manifest: &Manifest, text: &'static [u8]) -> Result<(Vec<u8>, Written), RpmError> {
    let mut out = Cursor::new(Vec::new());
    let mut open = |_| -> io::Result<Box<dyn Read>> { Ok(Box::new(text)) };
    let made = write_rpm(manifest, &mut open, &mut out)?;
    Ok((out.into_inner(), made))
}

/// The sums that the package says of itself are right, and it is the same again.
#[test]
fn a_package_says_its_own_sums() {
    let whole = manifest(|_, _| {});
    let (bytes, made) = written(&whole, TEXT).unwrap();
    assert_eq!(made.sha256, digest(&SHA256, &bytes).as_ref());
    assert_eq!(written(&whole, TEXT).unwrap().0, bytes);
    let (start, end) = header_range(&header_of(&whole).unwrap());
    let main = &bytes[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
    let header = Header::parse(main).unwrap();
    let payload = &bytes[usize::try_from(end).unwrap()..];
    let sum = hex(digest(&SHA256, payload).as_ref());
    assert_eq!(header.texts(tag::PAYLOADDIGEST).next(), Some(sum.as_bytes()));
    let unpacked = zstd::decode_all(payload).unwrap();
    let sum = hex(digest(&SHA256, &unpacked).as_ref());
    assert_eq!(header.texts(tag::PAYLOADDIGESTALT).next(), Some(sum.as_bytes()));
    // One of two names has the bytes.
    assert_eq!(unpacked.windows(TEXT.len()).filter(|w| *w == TEXT).count(), 1);
}

/// A header that lists what the tree has not, or otherwise, or less than the tree has.
#[test]
fn a_header_that_differs_from_its_tree_is_refused() {
    let differs = |change: &dyn Fn(&mut Header, &mut Vec<TreeEntry>)| match written(
        &manifest(|h, e| change(h, e)),
        TEXT,
    ) {
        Err(RpmError::Differs(path)) => path,
        other => panic!("{other:?}"),
    };
    let modes = |h: &mut Header, _: &mut Vec<TreeEntry>| {
        h.set(tag::FILEMODES, Value::Int16(vec![0o104_755, 0o104_755, 0o120_777]));
    };
    assert_eq!(differs(&modes), "usr/a", "setuid in the header alone");
    let link = |h: &mut Header, _: &mut Vec<TreeEntry>| {
        h.set(tag::FILELINKTOS, Value::texts(&["", "", "/etc/shadow"]));
    };
    assert_eq!(differs(&link), "usr/c");
    let missing = |_: &mut Header, e: &mut Vec<TreeEntry>| drop(e.pop());
    assert_eq!(differs(&missing), "usr/c");
    let more = |_: &mut Header, e: &mut Vec<TreeEntry>| {
        let extra = TreeEntry { path: "usr/d".parse().unwrap(), ..e[3].clone() };
        e.push(extra);
    };
    assert_eq!(differs(&more), "usr/d");
    // Two files that the header gives one number: rpm would take one for the other.
    let joined = |h: &mut Header, e: &mut Vec<TreeEntry>| {
        h.set(tag::FILEINODES, Value::Int32(vec![1, 1, 2]));
        e[2].node = e[1].node.clone();
    };
    assert_eq!(differs(&joined), "usr/b");
    let damaged = written(&manifest(|_, _| {}), b"#!/bin/ls\n");
    assert!(matches!(damaged, Err(RpmError::Damaged(_))), "{damaged:?}");
    let mut other = manifest(|_, _| {});
    other.source.format = SourceFormat::Deb;
    assert!(matches!(written(&other, TEXT), Err(RpmError::NotAnRpm)));
}
