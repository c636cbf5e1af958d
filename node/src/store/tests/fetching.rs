//! Pieces, pushes and unpacking, with honest and with hostile packs.

use stork_wire::codec::List;
use stork_wire::ids::{ContentId, PackId, PieceHash};
use stork_wire::manifest::{Delta, DeltaPack, Manifest, Pack, Run, TreeNode, Variant};

use super::support::*;
use crate::store::{StoreError, UnpackError, UploadState, Written};

/// A wrong piece is refused before it is written, and what was written survives a restart; pieces
/// that the disk changed meanwhile are forgotten.
#[test]
fn pieces_are_checked_and_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stork");
    let bytes = noise("pack", 5 * PIECE as usize + 100);
    let pack = Pack::describe(&bytes, 1, PIECE).unwrap();
    let piece = |i: usize| bytes.chunks(PIECE as usize).nth(i).unwrap();
    {
        let store = open(&path);
        let partial = store.open_partial(pack.id, pack.size, PIECE, &pack.pieces).unwrap();
        let wrong = partial.write_piece(1, piece(2));
        assert!(matches!(wrong, Err(StoreError::BadPiece { index: 1, .. })), "{wrong:?}");
        assert_eq!(partial.write_piece(1, piece(1)).unwrap(), Written::New);
        assert_eq!(partial.write_piece(1, piece(1)).unwrap(), Written::Already);
        assert_eq!(partial.write_piece(3, piece(3)).unwrap(), Written::New);
        assert_eq!(partial.write_piece(5, piece(5)).unwrap(), Written::New);
        assert!(partial.write_piece(6, piece(0)).is_err());
        assert_eq!(partial.read_piece(3).unwrap().unwrap(), piece(3));
        assert_eq!(partial.read_piece(0).unwrap(), None);
        let at = u64::from(PIECE);
        assert_eq!(store.read_pack(pack.id, at + 7, 9).unwrap(), piece(1)[7..16]);
        assert!(store.read_pack(pack.id, at - 1, 9).is_err());
    }
    let data = path.join("incoming").join(pack.id.to_string());
    let mut raw = std::fs::read(&data).unwrap();
    raw[3 * PIECE as usize] ^= 1;
    std::fs::write(&data, raw).unwrap();
    let (store, recovery) = open_when_free(&path, options());
    assert_eq!((recovery.partial_packs, recovery.unfinished), (1, 0));
    let partial = store.open_partial(pack.id, pack.size, PIECE, &pack.pieces).unwrap();
    assert_eq!(partial.have(), [false, true, false, false, false, true]);
    for i in [0, 2, 3] {
        assert_eq!(partial.write_piece(i, piece(i as usize)).unwrap(), Written::New);
    }
    assert_eq!(partial.write_piece(4, piece(4)).unwrap(), Written::Whole);
    assert!(store.has_pack(pack.id) && partial.is_whole());
    assert_eq!(store.read_pack(pack.id, 0, bytes.len()).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(path.join("incoming")).unwrap().count(), 0);
    let again = store.open_partial(pack.id, pack.size, PIECE, &pack.pieces).unwrap();
    assert_eq!(again.write_piece(0, piece(0)).unwrap(), Written::Already);
}

/// Pieces of a wrong whole: the manifest contradicts itself, and nothing is fetched for it.
#[test]
fn pieces_that_are_not_the_pack() {
    let (folder, store) = store();
    let bytes = noise("x", 100);
    let id = PackId::of(b"something else");
    let opened = store.open_partial(id, 100, PIECE, &[PieceHash::of(&bytes)]);
    assert!(matches!(opened, Err(StoreError::PackUse { .. })), "{opened:?}");
    assert_eq!(std::fs::read_dir(folder.path().join("stork/incoming")).unwrap().count(), 0);
}

/// A push goes on where it stopped, also after a restart, and is checked at its end.
#[test]
fn pushes_resume() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stork");
    let bytes = noise("push", 1000);
    let id = PackId::of(&bytes);
    {
        let store = open(&path);
        assert_eq!(store.upload_state(id, 1000).unwrap(), UploadState::Partial(0));
        assert_eq!(store.upload_append(id, 1000, 0, &bytes[..600]).unwrap(), 600);
        assert!(store.upload_append(id, 1000, 0, &bytes[..600]).is_err());
        assert!(store.upload_append(id, 1000, 600, &noise("y", 401)).is_err());
        assert!(store.upload_finish(id, 1000).is_err());
    }
    let store = open(&path);
    assert_eq!(store.upload_state(id, 1000).unwrap(), UploadState::Partial(600));
    store.upload_append(id, 1000, 600, &bytes[600..]).unwrap();
    store.upload_finish(id, 1000).unwrap();
    assert_eq!(store.upload_state(id, 1000).unwrap(), UploadState::Whole);
    assert_eq!(store.read_pack(id, 0, 1000).unwrap(), bytes);
    let wrong = PackId::of(b"wrong");
    store.upload_append(wrong, 5, 0, b"right").unwrap();
    assert!(matches!(store.upload_finish(wrong, 5), Err(StoreError::Corrupt(_))));
    assert_eq!(store.upload_state(wrong, 5).unwrap(), UploadState::Partial(0));
}

/// Files that cross segments, variants of one content, an empty file: all are written once and
/// right.
#[test]
fn unpacks_a_full_release() {
    let (_folder, store) = store();
    let (big, text) = (noise("big", 300_000), b"text".to_vec());
    let mut script = file("run", &text);
    script.mode = 0o755;
    let tree = tree(vec![file("big", &big), file("empty", b""), file("text", &text), script]);
    let packed = pack(tree.clone(), &[&big, &text], 100_000, None);
    assert_eq!(packed.full.len(), 4);
    store.put_manifest(&packed.reference(), &packed.bytes()).unwrap();
    fetch(&store, &packed, Variant::Full);
    assert!(!store.tree_complete(tree.id()).unwrap());
    let seen = std::cell::Cell::new(0);
    let report = store.unpack(&packed.manifest, Variant::Full, &|n| seen.set(n)).unwrap();
    assert_eq!((report.files_written, report.files_shared), (4, 0));
    assert_eq!((report.bytes, seen.get()), (300_004, 300_004));
    assert!(store.tree_complete(tree.id()).unwrap());
    assert_eq!(store.read_content(ContentId::of(&big)).unwrap(), big);
    let again = store.unpack(&packed.manifest, Variant::Full, &|_| {}).unwrap();
    assert_eq!((again.files_shared, again.packs_skipped, again.bytes), (4, 4, 0));
    let decoded = store.manifest_decoded(packed.reference().id).unwrap().unwrap();
    assert_eq!(decoded, packed.manifest);
}

/// A delta gives the same bytes as the full packs, is refused without its base, and its full packs
/// can be made again from the files.
#[test]
fn unpacks_a_delta_and_repacks() {
    let (old, mut new) = (noise("same", 400_000), noise("same", 400_000));
    new[200_000] ^= 1;
    let base = pack(tree(vec![file("lib", &old)]), &[&old], 1 << 20, None);
    let base_tree = base.manifest.tree.clone();
    let next = pack(tree(vec![file("lib", &new)]), &[&new], 1 << 20, Some((&base_tree, &[&old])));
    assert!(next.delta[0].len() < 10_000, "{}", next.delta[0].len());
    let (_folder, store) = store();
    fetch(&store, &next, Variant::Delta);
    let refused = store.unpack(&next.manifest, Variant::Delta, &|_| {});
    assert!(matches!(refused, Err(UnpackError::NoBase(_))), "{refused:?}");
    install(&store, &base);
    store.unpack(&next.manifest, Variant::Delta, &|_| {}).unwrap();
    assert_eq!(store.read_content(ContentId::of(&new)).unwrap(), new);
    let id = next.manifest.packing.packs[0].id;
    assert!(!store.has_pack(id));
    assert!(store.repack(&next.manifest, 0).unwrap());
    assert_eq!(store.read_pack(id, 0, next.full[0].len()).unwrap(), next.full[0]);
}

/// A delta that keeps one file and takes a part of another as prefix: unpacked where both are here.
/// A kept file that is missing, and a part that its file does not have, are refused; old bytes that
/// are damaged are blamed, and not the pack.
#[test]
fn unpacks_a_delta_of_parts() {
    let (kept, old) = (noise("kept", 100_000), noise("old", 400_000));
    let mut new = old[150_000..350_000].to_vec();
    new[77] ^= 1;
    let base = pack(tree(vec![file("a", &kept), file("b", &old)]), &[&kept, &old], 1 << 20, None);
    let entries = || vec![file("a", &kept), file("b", &new)];
    let mut next = pack(tree(entries()), &[&kept, &new], 1 << 20, None);
    let bytes = compress(&new, &old[100_000..360_000]);
    assert!(bytes.len() < 2_000, "{}", bytes.len());
    let run = |len| Run { content: ContentId::of(&old), from: 100_000, len };
    let order = next.manifest.tree.payload();
    let flags: Vec<bool> = order.iter().map(|(id, _)| *id == ContentId::of(&kept)).collect();
    let delta = |len| {
        let pack = Pack::describe(&bytes, new.len() as u64, PIECE).unwrap();
        let pack = DeltaPack { pack, prefix: List::new(vec![run(len)]).unwrap() };
        let (kept, packs) = (Delta::spans(&flags).unwrap(), List::new(vec![pack]).unwrap());
        Some(Delta { base: base.manifest.tree.id(), kept, packs })
    };
    next.delta = vec![bytes.clone()];
    next.manifest.packing.delta = delta(260_000);
    assert_eq!(Manifest::from_bytes(&next.bytes()).unwrap(), next.manifest);

    let (_folder, store) = store();
    fetch(&store, &next, Variant::Delta);
    let unpack = |packed: &Packed| store.unpack(&packed.manifest, Variant::Delta, &|_| {});
    let refused = unpack(&next);
    assert!(matches!(refused, Err(UnpackError::NoBase(id)) if id == ContentId::of(&kept)));
    install(&store, &base);
    next.manifest.packing.delta = delta(300_001);
    assert!(matches!(unpack(&next), Err(UnpackError::BadPrefix(_))));
    next.manifest.packing.delta = delta(260_000);

    let path = store.content_path(ContentId::of(&old)).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"damaged", 200_000).unwrap();
    let refused = unpack(&next);
    let blamed = |e: &StoreError| matches!(e, StoreError::DamagedContent(_));
    assert!(matches!(&refused, Err(UnpackError::Store(e)) if blamed(e)), "{refused:?}");
    std::os::unix::fs::FileExt::write_all_at(&file, &old, 0).unwrap();
    let report = unpack(&next).unwrap();
    assert_eq!((report.bytes, report.files_written, report.files_shared), (200_000, 1, 1));
    assert_eq!(store.read_content(ContentId::of(&new)).unwrap(), new);
    assert!(store.tree_complete(next.manifest.tree.id()).unwrap());
}

/// An image of many zeros takes as much room in the store as it holds, and so does a second object
/// with the same bytes.
#[test]
fn zeros_take_no_room() {
    use std::os::unix::fs::MetadataExt;
    let mut image = vec![0; 24 << 20];
    for at in [0, (7 << 20) + 12_345, 23 << 20] {
        image[at..at + 100_000].copy_from_slice(&noise("data", 100_000));
    }
    let before = b"so that the image begins in the midst of a chunk".to_vec();
    let mut twin = file("twin", &image);
    twin.mode = 0o600;
    let entries = vec![file("a", &before), file("image", &image), twin];
    let (_folder, store) = store();
    let packed = pack(tree(entries), &[&before, &image], 4 << 20, None);
    install(&store, &packed);
    let objects = store.files_of("objects").unwrap();
    let large: Vec<_> = objects.iter().filter(|o| o.bytes == image.len() as u64).collect();
    assert_eq!(large.len(), 2);
    for object in large {
        assert!(std::fs::read(&object.path).unwrap() == image);
        let room = object.path.metadata().unwrap().blocks() * 512;
        assert!(room < 1 << 20, "{room}");
    }
}

/// T086: a frame that gives more than was declared is stopped, and leaves nothing behind.
#[test]
fn t086_bomb() {
    let (folder, store) = store();
    let mut packed = small("a", b"1234567890");
    let declared = packed.manifest.packing.packs[0].unpacked;
    let bomb = compress(&vec![0; 64 << 20], &[]);
    assert!(bomb.len() < 20_000);
    let pack = Pack::describe(&bomb, declared, PIECE).unwrap();
    packed.manifest.packing.packs = List::new(vec![pack]).unwrap();
    packed.full = vec![bomb];
    fetch(&store, &packed, Variant::Full);
    let result = store.unpack(&packed.manifest, Variant::Full, &|_| {});
    assert!(matches!(result, Err(UnpackError::Bomb { .. })), "{result:?}");
    assert_eq!(store.stat().unwrap().objects, 0);
    let tmp = folder.path().join("stork/objects/tmp");
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
}

/// Wrong contents, too few bytes, too wide a window and sizes that can't be are all refused.
#[test]
fn hostile_packs() {
    let (_folder, store) = store();
    let try_pack = |bytes: Vec<u8>, unpacked: u64, packed: &mut Packed| {
        let pack = Pack::describe(&bytes, unpacked, PIECE).unwrap();
        packed.manifest.packing.packs = List::new(vec![pack]).unwrap();
        packed.full = vec![bytes];
        fetch(&store, packed, Variant::Full);
        store.unpack(&packed.manifest, Variant::Full, &|_| {}).unwrap_err()
    };
    let one = |bytes: &[u8]| pack(tree(vec![file("f", bytes)]), &[bytes], 64 << 20, None);
    let wrong = try_pack(compress(b"654321", &[]), 6, &mut one(b"123456"));
    assert!(matches!(wrong, UnpackError::WrongContent { .. }), "{wrong:?}");
    let short = try_pack(compress(b"123", &[]), 6, &mut one(b"123456"));
    assert!(matches!(short, UnpackError::BadPack { .. }), "{short:?}");
    let mut more = compress(b"123456", &[]);
    more.push(7);
    let more = try_pack(more, 6, &mut one(b"123456"));
    assert!(matches!(more, UnpackError::BadPack { .. }), "{more:?}");
    let zeros = vec![0; 20 << 20];
    let wide = try_pack(compress(&zeros, b"x"), zeros.len() as u64, &mut one(&zeros));
    assert!(matches!(wide, UnpackError::BadPack { .. }), "{wide:?}");
    let mut liar = one(b"123456");
    let mut entries = liar.manifest.tree.entries.clone().into_vec();
    let TreeNode::File { size, .. } = &mut entries[0].node else { panic!("no file") };
    *size = 7;
    liar.manifest.tree = tree(vec![entries.remove(0), file("g", b"123456")]);
    let refused = store.unpack(&liar.manifest, Variant::Full, &|_| {});
    assert!(matches!(refused, Err(UnpackError::WrongSize(_))), "{refused:?}");
}

/// A pack that the disk changed is found out, removed, and can be fetched again.
#[test]
fn a_pack_that_rotted() {
    let (_folder, store) = store();
    let packed = small("a", &noise("rot", 10_000));
    fetch(&store, &packed, Variant::Full);
    let id = packed.manifest.packing.packs[0].id;
    let path = store.pack_path(id);
    let mut raw = std::fs::read(&path).unwrap();
    raw[5_000] ^= 1;
    std::fs::write(&path, raw).unwrap();
    let result = store.unpack(&packed.manifest, Variant::Full, &|_| {});
    assert!(matches!(result, Err(UnpackError::Store(StoreError::Corrupt(_)))), "{result:?}");
    assert!(!store.has_pack(id));
    install(&store, &packed);
    assert!(store.tree_complete(packed.manifest.tree.id()).unwrap());
}
