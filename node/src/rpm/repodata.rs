//! The metadata of a repository: `primary`, `filelists` and `other`, and `repomd.xml`, which names
//! them by their hashes and is signed.
//!
//! They are not compressed, since nothing is sent: the guest reads them from the view.

use ring::digest::{SHA256, digest};
use stork_wire::ids::hex;
use stork_wire::rpm::info::{Dependency, Evr, FileInfo, Relation};
use stork_wire::rpm::{BadHeader, Header, tag};

use super::package::header_range;
use super::xml::Xml;
use crate::apt::{EPOCH, Names, Written};

/// A package must be there before scripts of this one run.
const BEFORE_SCRIPTS: u32 = 1 << 6 | 1 << 9 | 1 << 10;
const COMMON: &str = "http://linux.duke.edu/metadata/common";
const RPM: &str = "http://linux.duke.edu/metadata/rpm";
const FILELISTS: &str = "http://linux.duke.edu/metadata/filelists";
const OTHER: &str = "http://linux.duke.edu/metadata/other";
const REPO: &str = "http://linux.duke.edu/metadata/repo";

/// One package of the metadata.
#[derive(Debug, Clone)]
pub struct Indexed {
    /// Its header.
    pub header: Header,
    /// Its length and hash.
    pub rpm: Written,
}

impl Indexed {
    /// The name of the package in the pool, as rpm has it: without the epoch.
    #[must_use]
    pub fn file_name(&self) -> String {
        let text = |tag| self.header.text(tag);
        let (name, version) = (text(tag::NAME), text(tag::VERSION));
        format!("{name}-{version}-{}.{}.rpm", text(tag::RELEASE), text(tag::ARCH))
    }

    fn id(&self) -> String {
        hex(&self.rpm.sha256)
    }

    fn version(&self, xml: &mut Xml) {
        let evr = self.header.evr();
        let Evr { epoch, version, release } = Evr::of(&evr);
        xml.empty("version", &[("epoch", epoch), ("ver", version), ("rel", release)]);
    }
}

/// The files of `repodata/`: name and text. `repomd.xml` is the last one.
pub type Metadata = [(&'static str, String); 4];

/// The metadata of packages, which must be in the order of their names.
pub fn metadata(all: &[Indexed]) -> Result<Metadata, BadHeader> {
    let count = all.len().to_string();
    let packages = ("packages", count.as_str());
    let mut primary = Xml::document("metadata", &[("xmlns", COMMON), ("xmlns:rpm", RPM), packages]);
    let mut lists = Xml::document("filelists", &[("xmlns", FILELISTS), packages]);
    let mut other = Xml::document("otherdata", &[("xmlns", OTHER), packages]);
    for one in all {
        let files = one.header.files()?;
        describe(&mut primary, one, &files)?;
        list(&mut lists, one, &files);
        history(&mut other, one);
    }
    let parts = [
        ("primary", "repodata/primary.xml", primary.finish("metadata")),
        ("filelists", "repodata/filelists.xml", lists.finish("filelists")),
        ("other", "repodata/other.xml", other.finish("otherdata")),
    ];
    let head = head(&parts);
    let [primary, lists, other] = parts.map(|(_, path, text)| (path, text));
    Ok([primary, lists, other, ("repodata/repomd.xml", head)])
}

fn head(parts: &[(&str, &str, String)]) -> String {
    let mut xml = Xml::document("repomd", &[("xmlns", REPO), ("xmlns:rpm", RPM)]);
    xml.text("revision", &[], &EPOCH.to_string());
    for (kind, path, text) in parts {
        let sum = hex(digest(&SHA256, text.as_bytes()).as_ref());
        xml.open("data", &[("type", kind)]);
        xml.text("checksum", &[("type", "sha256")], &sum);
        xml.empty("location", &[("href", path)]);
        xml.text("timestamp", &[], &EPOCH.to_string());
        xml.text("size", &[], &text.len().to_string());
        xml.close("data");
    }
    xml.finish("repomd")
}

/// What `primary` says of a package.
fn describe(xml: &mut Xml, one: &Indexed, files: &[FileInfo]) -> Result<(), BadHeader> {
    let h = &one.header;
    let file = one.file_name();
    let (name, arch) = (h.text(tag::NAME), h.text(tag::ARCH));
    let number = |tag| h.numbers(tag).first().copied().unwrap_or(0).to_string();
    xml.open("package", &[("type", "rpm")]);
    xml.text("name", &[], &name);
    xml.text("arch", &[], &arch);
    one.version(xml);
    xml.text("checksum", &[("type", "sha256"), ("pkgid", "YES")], &one.id());
    for (element, tag) in [
        ("summary", tag::SUMMARY),
        ("description", tag::DESCRIPTION),
        ("packager", tag::PACKAGER),
        ("url", tag::URL),
    ] {
        xml.text(element, &[], &h.text(tag));
    }
    let built = number(tag::BUILDTIME);
    xml.empty("time", &[("file", &EPOCH.to_string()), ("build", &built)]);
    let (len, installed) = (one.rpm.len.to_string(), number(tag::SIZE));
    // The length of the payload before it was compressed is about what is installed.
    xml.empty("size", &[("package", &len), ("installed", &installed), ("archive", &installed)]);
    xml.empty("location", &[("href", &format!("{}/{file}", Names::POOL))]);
    xml.open("format", &[]);
    for (element, tag) in [
        ("rpm:license", tag::LICENSE),
        ("rpm:vendor", tag::VENDOR),
        ("rpm:group", tag::GROUP),
        ("rpm:buildhost", tag::BUILDHOST),
        ("rpm:sourcerpm", tag::SOURCERPM),
    ] {
        xml.text(element, &[], &h.text(tag));
    }
    let (start, end) = header_range(h);
    let range = [("start", start.to_string()), ("end", end.to_string())];
    xml.empty("rpm:header-range", &range.each_ref().map(|(k, v)| (*k, v.as_str())));
    for (element, relation) in [
        ("rpm:provides", Relation::Provides),
        ("rpm:requires", Relation::Requires),
        ("rpm:conflicts", Relation::Conflicts),
        ("rpm:obsoletes", Relation::Obsoletes),
        ("rpm:recommends", Relation::Recommends),
        ("rpm:suggests", Relation::Suggests),
        ("rpm:supplements", Relation::Supplements),
        ("rpm:enhances", Relation::Enhances),
    ] {
        relations(xml, element, &h.dependencies(relation)?);
    }
    for f in files.iter().filter(|f| is_primary(&f.path)) {
        list_file(xml, f);
    }
    xml.close("format");
    xml.close("package");
    Ok(())
}

fn relations(xml: &mut Xml, element: &str, all: &[Dependency<'_>]) {
    // What rpm itself must be able to do, it looks at by itself.
    let all: Vec<_> = all.iter().filter(|d| !d.is_rpmlib()).collect();
    if all.is_empty() {
        return;
    }
    xml.open(element, &[]);
    for d in all {
        let mut attributes = vec![("name", d.name)];
        if let Some(comparison) = d.comparison() {
            let Evr { epoch, version, release } = Evr::of(d.version);
            attributes.extend([("flags", comparison), ("epoch", epoch), ("ver", version)]);
            attributes.extend((!release.is_empty()).then_some(("rel", release)));
        }
        let before = element == "rpm:requires" && d.flags & BEFORE_SCRIPTS != 0;
        attributes.extend(before.then_some(("pre", "1")));
        xml.empty("rpm:entry", &attributes);
    }
    xml.close(element);
}

/// Files by which packages are asked for often, and which `primary` has so: those that
/// `createrepo_c` chooses.
fn is_primary(path: &str) -> bool {
    let bin = |dir: &str| dir.ends_with("bin");
    let folder = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    folder.split('/').any(bin) || path.starts_with("etc/") || path == "usr/lib/sendmail"
}

fn list_file(xml: &mut Xml, file: &FileInfo) {
    let path = format!("/{}", file.path);
    let kind: &[_] = match file.kind() {
        0o040_000 => &[("type", "dir")],
        _ if file.is_ghost() => &[("type", "ghost")],
        _ => &[],
    };
    xml.text("file", kind, &path);
}

fn named(xml: &mut Xml, one: &Indexed) {
    let (name, arch) = (one.header.text(tag::NAME), one.header.text(tag::ARCH));
    xml.open("package", &[("pkgid", &one.id()), ("name", &name), ("arch", &arch)]);
    one.version(xml);
}

fn list(xml: &mut Xml, one: &Indexed, files: &[FileInfo]) {
    named(xml, one);
    files.iter().for_each(|file| list_file(xml, file));
    xml.close("package");
}

/// The changelog is in the package itself.
fn history(xml: &mut Xml, one: &Indexed) {
    named(xml, one);
    xml.close("package");
}

/// An entry for `/etc/yum.repos.d`: the repository at `path`, whose metadata are signed by the key
/// that is in it.
#[must_use]
pub fn repo_file(path: &str) -> String {
    let key = Names::KEY;
    format!(
        "[stork]\nname=stork: what the host shows to this VM\nbaseurl=file://{path}\n\
         gpgkey=file://{path}/{key}\nrepo_gpgcheck=1\ngpgcheck=0\nenabled=1\nmetadata_expire=1\n\
         skip_if_unavailable=0\n"
    )
}
