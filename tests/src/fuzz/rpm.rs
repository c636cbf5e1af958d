//! Headers of RPM packages, which publishers write and hosts put into metadata for dnf.

use stork_node::apt::Written;
use stork_node::rpm::{Indexed, check, metadata};
use stork_wire::rpm::{Header, Region, Value, tag};

use super::{feature, kind_of};

/// A header: read, written, and asked for all that a host asks of it.
pub(super) fn rpm_header(data: &[u8]) -> String {
    let header = match Header::parse(data) {
        Ok(header) => header,
        Err(e) => return feature(&kind_of(&e), data.len()),
    };
    let bytes = header.encode(Region::Main);
    assert_eq!(Header::parse(&bytes).as_ref(), Ok(&header), "what is written is read");
    drop(check(&header, ["acme", "1-1", "all"], &[]));
    let one = Indexed { header, rpm: Written { len: 1, sha256: [0; 32] } };
    match metadata(&[one]) {
        Ok(parts) => {
            // Text of the header stays text: three elements each that are packages' own.
            let packages = parts.iter().map(|(_, t)| t.matches("<package ").count());
            assert_eq!(packages.sum::<usize>(), 3);
            feature("metadata", data.len())
        }
        Err(e) => feature(&kind_of(&e), data.len()),
    }
}

pub(super) fn samples() -> Vec<Vec<u8>> {
    let mut h = Header::default();
    for (tag, text) in [(tag::NAME, "acme"), (tag::VERSION, "1"), (tag::RELEASE, "1")] {
        h.set(tag, Value::Text(text.into()));
    }
    h.set(tag::SUMMARY, Value::Texts { translated: true, count: 1, bytes: b"<&>\0".to_vec() });
    h.set(tag::ARCH, Value::Text(b"noarch".to_vec()));
    h.set(tag::REQUIRENAME, Value::texts(&["bash", "rpmlib(X)"]));
    h.set(tag::REQUIREVERSION, Value::texts(&["1:4-2", ""]));
    h.set(tag::REQUIREFLAGS, Value::Int32(vec![12, 1 << 24]));
    h.set(tag::BASENAMES, Value::texts(&["acme"]));
    h.set(tag::DIRNAMES, Value::texts(&["/usr/bin/"]));
    for (tag, number) in [
        (tag::DIRINDEXES, 0),
        (tag::FILESIZES, 7),
        (tag::FILEMTIMES, 7),
        (tag::FILEFLAGS, 0),
        (tag::FILEDEVICES, 1),
        (tag::FILEINODES, 1),
    ] {
        h.set(tag, Value::Int32(vec![number]));
    }
    h.set(tag::FILEMODES, Value::Int16(vec![0o100_755]));
    h.set(tag::FILERDEVS, Value::Int16(vec![0]));
    for tag in [tag::FILELINKTOS, tag::FILEUSERNAME, tag::FILEGROUPNAME] {
        h.set(tag, Value::texts(&["root"]));
    }
    vec![h.encode(Region::Main), Header::default().encode(Region::Main)]
}
