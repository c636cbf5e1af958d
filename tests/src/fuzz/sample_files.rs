//! Valid manifests and configuration files, as far as they are whole files.

use stork_wire::codec::encode;
use stork_wire::ids::{ContentId, PackId, PieceHash};
use stork_wire::manifest::{
    ControlFile, Manifest, Pack, Packing, Source, SourceFormat, Tree, TreeEntry, TreeNode, Xattr,
};

use super::samples::list;

/// A manifest with one of each kind of entry.
fn a_manifest() -> Manifest {
    let bytes = vec![7u8; 70_000];
    let content = ContentId::of(&bytes);
    let xattr = Xattr {
        name: "user.a".parse().unwrap(),
        value: stork_wire::codec::Blob::new(vec![1, 2]).unwrap(),
    };
    let file = TreeNode::File { content, size: 70_000, xattrs: list([xattr]) };
    let nodes = [
        ("bin", TreeNode::Dir),
        ("bin/a", file),
        ("bin/b", TreeNode::Hardlink { target: "bin/a".parse().unwrap() }),
        ("bin/c", TreeNode::Symlink { target: "../bin/a".parse().unwrap() }),
        ("bin/d", TreeNode::CharDevice { major: 1, minor: 3 }),
        ("bin/e", TreeNode::Fifo),
    ];
    let entry = |(path, node): (&str, TreeNode)| TreeEntry {
        path: path.parse().unwrap(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 1_700_000_000,
        node,
    };
    let pack = Pack::describe(&bytes, 70_000, 64 * 1024).unwrap();
    assert_eq!((pack.id, pack.pieces.len()), (PackId::of(&bytes), 2));
    assert_ne!(pack.pieces.first(), Some(&PieceHash::of(&bytes)));
    let script = ControlFile {
        name: "postinst".parse().unwrap(),
        mode: 0o755,
        bytes: stork_wire::codec::Blob::new(b"#!/bin/sh\n".to_vec()).unwrap(),
    };
    Manifest {
        version: 1,
        tree: Tree { entries: list(nodes.map(entry)) },
        source: Source {
            format: SourceFormat::Deb,
            file_name: "hello.deb".parse().unwrap(),
            size: 10,
            sha256: [1; 32],
            control: stork_wire::codec::Blob::new(b"Package: hello\n".to_vec()).unwrap(),
            control_files: list([script]),
        },
        packing: Packing { piece_len: 64 * 1024, packs: list([pack]), delta: None },
    }
}

pub(super) fn manifests() -> Vec<Vec<u8>> {
    vec![encode(&a_manifest())]
}

pub(super) fn node_tomls() -> Vec<Vec<u8>> {
    let all = b"listen = \"[::]:7749\"\nadvertise = [\"10.0.0.1:7749\"]\nstate = \"/s\"\n\
                vms = \"/v\"\nsocket = \"/a\"\nmin_free_bytes = 1\n\
                seed_bytes = 18446744073709551615\nlog = \"json\"\n\
                [bandwidth]\nup = \"1.5 MiB/s\"\nwan_down = \"80Mbit/s\"\n\
                [[bandwidth.window]]\ndays = [\"mon\", \"sun\"]\nfrom = \"22:00\"\n\
                to = \"06:00\"\nup = \"unlimited\"\ndown = 0\nwan_up = \"none\"\n";
    vec![all.to_vec(), b"".to_vec(), b"listen = 1".to_vec(), b"lisen = \"x\"".to_vec()]
}

pub(super) fn vm_tomls() -> Vec<Vec<u8>> {
    let all = b"[vm]\nname = \"db\"\narch = \"amd64\"\ngroups = [\"web\"]\n\
                [[subscribe]]\npackage = \"hello\"\ngroup = \"web\"\nversion = \">= 1\"\n\
                [[pin]]\npackage = \"hello\"\nversion = \"1.*\"\nreason = \"why\"\n\
                [[hold]]\npackage = \"other\"\nreason = \"x\"\n\
                [[trust]]\nallow = \"acme\"\npackages = [\"hello*\"]\n\
                [view]\nbackend = \"hardlink\"\ntarget = \"/views/db\"\nisolation = \"none\"\n\
                keep_generations = 3\n[hook]\ncommand = [\"true\"]\ntimeout_s = 10\n";
    let policy = b"[vm]\ngroups = [\"web\"]\nfreshness = \"no_new\"\ndepends = \"pull\"\n\
                   depends_bytes_max = 1000\n[[trust]]\nallow = \"acme\"\nprovides = [\"mta\"]\n\
                   publishers = { need = 1, of = [\"acme\", \"audit\"] }\n\
                   freshness = \"hide\"\ndelegations = true\n\
                   [view]\nbackend = \"tree\"\ntarget = \"/x\"\n";
    let none = b"[vm]\ngroups = []\n[view]\ntarget = \"/x\"\n".to_vec();
    vec![all.to_vec(), policy.to_vec(), none]
}
