//! Headers that are written, read, asked, and broken.

use super::info::{Dependency, Evr, Relation, debian_arch};
use super::*;

fn sample() -> Header {
    let mut h = Header::default();
    h.set(tag::NAME, Value::Text(b"acme".to_vec()));
    h.set(tag::VERSION, Value::Text(b"1.0~rc1".to_vec()));
    h.set(tag::RELEASE, Value::Text(b"3.fc40".to_vec()));
    h.set(tag::EPOCH, Value::Int32(vec![2]));
    h.set(tag::ARCH, Value::Text(b"noarch".to_vec()));
    h.set(tag::PROVIDENAME, Value::texts(&["acme", "acme-api", "libacme.so.1()(64bit)"]));
    h.set(tag::PROVIDEVERSION, Value::texts(&["2:1.0~rc1-3.fc40", "1.0", ""]));
    h.set(tag::PROVIDEFLAGS, Value::Int32(vec![8, 8, 0]));
    h.set(tag::OBSOLETENAME, Value::texts(&["acme-api"]));
    h.set(tag::OBSOLETEVERSION, Value::texts(&["0.9"]));
    h.set(tag::OBSOLETEFLAGS, Value::Int32(vec![2]));
    h.set(tag::BASENAMES, Value::texts(&["acme", "acme.conf"]));
    h.set(tag::DIRNAMES, Value::texts(&["/usr/bin/", "/etc/"]));
    h.set(tag::DIRINDEXES, Value::Int32(vec![0, 1]));
    h.set(tag::FILESIZES, Value::Int32(vec![7, 9]));
    h.set(tag::FILEMODES, Value::Int16(vec![0o100_755, 0o100_644]));
    h.set(tag::FILERDEVS, Value::Int16(vec![0, 0]));
    h.set(tag::FILEMTIMES, Value::Int32(vec![1, 2]));
    h.set(tag::FILELINKTOS, Value::texts(&["", ""]));
    h.set(tag::FILEFLAGS, Value::Int32(vec![0, 64]));
    h.set(tag::FILEUSERNAME, Value::texts(&["root", "acme"]));
    h.set(tag::FILEGROUPNAME, Value::texts(&["root", "root"]));
    h.set(tag::FILEDEVICES, Value::Int32(vec![1, 1]));
    h.set(tag::FILEINODES, Value::Int32(vec![1, 2]));
    h
}

/// What is written is read again, with numbers at places that their size divides and the region
/// around everything; the same values give the same bytes.
#[test]
fn headers_are_read_as_written() {
    let mut h = sample();
    h.set(9_000, Value::Int64(vec![1, u64::MAX]));
    h.set(9_001, Value::Bytes { kind: 7, bytes: vec![1, 2, 3] });
    let bytes = h.encode(Region::Main);
    assert_eq!(Header::parse(&bytes).unwrap(), h);
    assert_eq!(Header::len_of(bytes.first_chunk().unwrap()).unwrap(), bytes.len() as u64);
    assert_eq!(Header::parse(&bytes).unwrap().encode(Region::Main), bytes);
    assert_eq!(u32_at(&bytes, 16), Some(63));
    let count = u32_at(&bytes, 8).unwrap();
    let trailer = &bytes[bytes.len() - 16..];
    assert_eq!(u32_at(trailer, 8), Some((count * 16).wrapping_neg()));
}

/// What the header says of itself, in Debian's words where there are any.
#[test]
fn what_a_header_says() {
    let h = sample();
    assert_eq!(h.evr(), "2:1.0~rc1-3.fc40");
    assert_eq!(debian_arch(&h.text(tag::ARCH)), "all");
    let provided = h.provided().unwrap();
    assert_eq!(provided.iter().map(|p| p.as_str()).collect::<Vec<_>>(), ["acme-api"]);
    assert_eq!(h.replaces_unprovided(), Ok(None));
    let files = h.files().unwrap();
    assert_eq!((files[1].path.as_str(), files[1].is_ghost()), ("etc/acme.conf", true));
    assert_eq!((files[0].kind(), files[0].size), (0o100_000, 7));
    let mut other = sample();
    other.set(tag::OBSOLETENAME, Value::texts(&["openssl"]));
    assert_eq!(other.replaces_unprovided(), Ok(Some("openssl".to_owned())));
    assert_eq!(Evr::of("1:2.0-3"), Evr { epoch: "1", version: "2.0", release: "3" });
    assert_eq!(Evr::of("2.0"), Evr { epoch: "0", version: "2.0", release: "" });
}

/// A requirement becomes a line of Debian's only where it means the same.
#[test]
fn requirements_become_lines() {
    let line =
        |name, flags, version| Dependency { name, flags, version }.line().map(|l| l.to_string());
    assert_eq!(line("acme", 12, "1.0").unwrap(), "acme (>= 1.0)");
    assert_eq!(line("acme", 8, "1.0-2").unwrap(), "acme (= 1.0-2)");
    assert_eq!(line("acme", 8, "1.0").unwrap(), "acme");
    assert_eq!(line("acme", 2, "1:1.0").unwrap(), "acme (<< 1:1.0)");
    assert_eq!(line("acme", 0, "").unwrap(), "acme");
    assert_eq!(line("libc.so.6()(64bit)", 0, ""), None);
    assert_eq!(line("/bin/sh", 0, ""), None);
}

/// Whatever is wrong is an error: lengths, ends, types, what is there twice, and values that share
/// bytes, by which a short header would become a long one.
#[test]
fn broken_headers_are_refused() {
    let good = sample().encode(Region::Main);
    for len in 0..good.len() {
        Header::parse(&good[..len]).unwrap_err();
    }
    let with = |at: usize, bytes: &[u8]| {
        let mut all = good.clone();
        all[at..at + bytes.len()].copy_from_slice(bytes);
        Header::parse(&all).map_err(|e| e.to_string())
    };
    assert!(with(0, &[0]).unwrap_err().contains("magic"));
    assert!(with(8, &[0xff; 4]).unwrap_err().contains("entries"));
    // The entry after the region: its type, its place, its count.
    assert!(with(32 + 4, &[0, 0, 0, 77]).unwrap_err().contains("type 77"));
    assert!(with(32 + 8, &[0xff; 4]).unwrap_err().contains("beyond"));
    assert!(with(32 + 4, &[0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap_err().contains("end"));
    let second: [u8; 16] = good[32..48].try_into().unwrap();
    assert!(with(48, &second).is_err());
    let mut uneven = sample();
    uneven.set(tag::FILEMODES, Value::Int16(vec![0]));
    uneven.files().unwrap_err();
    uneven.set(tag::PROVIDEFLAGS, Value::Int32(vec![]));
    uneven.dependencies(Relation::Provides).unwrap_err();
    let mut outside = sample();
    outside.set(tag::DIRINDEXES, Value::Int32(vec![0, 7]));
    outside.files().unwrap_err();
}
