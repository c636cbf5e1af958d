//! Documents that no command makes: a second publisher, and join tokens that must be refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use stork_node::config::NodeConfig;
use stork_node::run::open_store;
use stork_publisher::bundle::write_bundle;
use stork_publisher::charter::{
    Charter, GroupName, InitOptions, Profile, RoleKeys, init, read_file,
};
use stork_publisher::keys::{Passphrase, generate, read_secret, write_key};
use stork_wire::charter::{
    BODY_VERSION, GroupDoc, HostCert, JoinToken, PeerRecord, PublisherDoc, PublisherGrant,
    ReleaseKey, Role,
};
use stork_wire::codec::{List, decode, encode};
use stork_wire::frame::PeerHint;
use stork_wire::ids::{FleetId, LogId, NodeId};
use stork_wire::item::{Item, ItemKind};
use stork_wire::limits::RECORD_LEN_MAX;
use stork_wire::sign::{Body, Envelope, SecretKey};

use crate::fleet::Host;

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn key(charter: &Path, role: &str) -> SecretKey {
    read_secret(&charter.join("keys").join(role), &Passphrase::Ask).unwrap()
}

/// The fleet of a publisher's folder.
#[must_use]
pub fn fleet_of(charter: &Path) -> FleetId {
    read_file(charter).unwrap().fleet
}

pub(crate) fn item<T: Body>(
    kind: ItemKind,
    log: LogId,
    seq: u64,
    doc: &T,
    by: (FleetId, &SecretKey),
) -> Item {
    Item { kind, log, seq, envelope: Envelope::sign(doc, by.0, by.1).unwrap() }
}

pub(crate) fn publisher_doc(
    name: &str,
    root: &SecretKey,
    release: &SecretKey,
    expires: u64,
) -> PublisherDoc {
    let packages = List::new(vec!["*".parse().unwrap()]).unwrap();
    let key = release.public();
    let release = ReleaseKey { key, packages, not_after: expires, valid_through: None };
    PublisherDoc {
        version: BODY_VERSION,
        number: 1,
        prev: None,
        name: name.parse().unwrap(),
        issued: now(),
        expires,
        root: Role::single(root.public()),
        epoch: 1,
        survivor: None,
        release_keys: List::new(vec![release]).unwrap(),
        beacon_keys: List::empty(),
        homes: List::empty(),
        delegations: List::empty(),
        compacts: None,
    }
}

/// Adds a publisher to every group of a charter, before the fleet has begun. Returns the new
/// publisher's folder; the old folder gets the new charter as well.
#[must_use]
pub fn add_publisher(charter_dir: &Path, name: &str) -> PathBuf {
    let old = read_file(charter_dir).unwrap();
    let (fleet, expires) = (old.fleet, old.root.expires);
    let dir = charter_dir.with_file_name(name);
    fs::create_dir_all(dir.join("keys")).unwrap();
    let (root, release) = (generate().unwrap(), generate().unwrap());
    write_key(&dir.join("keys/release"), &release, "test", None).unwrap();
    let doc = publisher_doc(name, &root, &release, expires);
    let publisher = doc.publisher_id();
    let mut items = old.items.clone();
    let log = LogId::publisher(publisher);
    items.push(item(ItemKind::Publisher, log, 1, &doc, (fleet, &root)));
    let authority = key(charter_dir, "authority");
    let mut groups = Vec::new();
    for (id, before) in &old.groups {
        let log = LogId::group(*id);
        let last = old.items.iter().find(|i| i.log == log && i.seq == before.number).unwrap();
        let mut grants: Vec<PublisherGrant> = before.publishers.to_vec();
        let first = grants.first().unwrap().clone();
        grants.push(PublisherGrant { publisher, name: name.parse().unwrap(), ..first });
        grants.sort_by_key(|g| g.publisher);
        let doc = GroupDoc {
            number: before.number + 1,
            prev: Some(last.envelope.hash()),
            publishers: List::new(grants).unwrap(),
            ..before.clone()
        };
        items.push(item(ItemKind::Group, log, doc.number, &doc, (fleet, &authority)));
        groups.push(GroupName { id: *id, name: before.name.to_string() });
    }
    let charter = Charter::from_items(&items).unwrap();
    let bundle = write_bundle(&charter.items).unwrap();
    for folder in [charter_dir, &dir] {
        fs::write(folder.join("charter.bundle"), &bundle).unwrap();
    }
    let release_key = Some("keys/release".to_owned());
    let profile =
        Profile { fleet, publisher, release_key, groups, origin: None, origin_credentials: None };
    fs::write(dir.join("publisher.toml"), toml::to_string(&profile).unwrap()).unwrap();
    dir
}

/// A join token signed with a charter's admission key, whatever it says.
#[must_use]
pub fn token(charter: &Path, fleet: FleetId, admitter: &str, addr: &str, expires: u64) -> String {
    let token = JoinToken {
        version: BODY_VERSION,
        fleet,
        id: *b"sixteen bytes id",
        admitter: admitter.parse().unwrap(),
        addrs: List::new(vec![addr.parse().unwrap()]).unwrap(),
        name: None,
        site: "default".parse().unwrap(),
        issued: expires - 600,
        expires,
        scope: None,
    };
    JoinToken::to_text(&Envelope::sign(&token, fleet, &key(charter, "admission")).unwrap())
}

/// Makes the certificate of a host that does not run so many days older.
pub fn age_certificate(charter: &Path, host: &Host, days: u64) {
    let config = NodeConfig { state: host.dir.join("state"), ..NodeConfig::default() };
    let store = open_store(&config).unwrap();
    let cert: Envelope =
        decode(&store.get_state("cert").unwrap().unwrap(), RECORD_LEN_MAX).unwrap();
    let cert: HostCert = cert.claimed().unwrap();
    let ago = days * 24 * 3_600;
    let cert = HostCert { issued: cert.issued - ago, expires: cert.expires - ago, ..cert };
    let signed = Envelope::sign(&cert, fleet_of(charter), &key(charter, "admission")).unwrap();
    store.put_state("cert", &encode(&signed)).unwrap();
}

/// Certificate and record of a host with this key, as the fleet of a charter would sign them.
#[must_use]
pub fn host(charter: &Path, host: &SecretKey) -> PeerHint {
    let (fleet, issued) = (fleet_of(charter), now());
    let (node, expires) = (NodeId(host.public().0), issued + 3_600);
    let site: stork_wire::text::Label = "default".parse().unwrap();
    let cert = HostCert {
        version: BODY_VERSION,
        node,
        name: "forged".parse().unwrap(),
        site: site.clone(),
        issued,
        expires,
        scope: None,
    };
    let record = PeerRecord {
        version: BODY_VERSION,
        node,
        incarnation: 1,
        addrs: List::empty(),
        site,
        groups: List::empty(),
        cell: None,
        admits: false,
        issued,
        expires,
    };
    let admission = key(charter, "admission");
    let cert = Envelope::sign(&cert, fleet, &admission).unwrap();
    let record = Envelope::sign(&record, fleet, host).unwrap();
    PeerHint { cert, record }
}

/// A charter with one group `web` and one publisher `acme`.
pub fn found_charter(dir: &Path) -> Result<()> {
    found_charter_with(dir, Vec::new())
}

/// The same with these keys for beacons.
pub(crate) fn found_charter_with(dir: &Path, beacon_keys: Vec<PathBuf>) -> Result<()> {
    let options = InitOptions {
        dir: dir.to_owned(),
        fleet: "lab".parse()?,
        groups: vec!["web".parse()?],
        publisher: "acme".parse()?,
        packages: Vec::new(),
        provides: Vec::new(),
        homes: Vec::new(),
        valid_days: 30,
        release_key: None,
        beacon_keys,
        passphrase: Passphrase::None,
        roles: RoleKeys::default(),
    };
    init(&options, now())?;
    Ok(())
}
