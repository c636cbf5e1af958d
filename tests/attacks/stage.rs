//! Where the stories play: two real nodes in this process, and hosts between them that lie.
//!
//! The first node is where publishers come to, and the third party that must hear nothing; the
//! second one is the victim. Both have a VM `vm` that wants `app` and shows version 1 at the start.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use stork_node::config::LimitsConfig;
use stork_tests::compare::compare_with_folder;
use stork_tests::feed::Feed;
use stork_tests::fleet::noise;
use stork_tests::hostile::{Content, Lie, Manners, Peer, Talk, has, runtime, server};
use stork_tests::lab::{Founding, Lab, LabNode, Place};
use stork_tests::wait::wait_until;
use stork_wire::codec::List;
use stork_wire::feed::Release;
use stork_wire::frame::{Frame, TransferFrame};
use stork_wire::item::Item;
use stork_wire::manifest::Variant;
use tokio::runtime::Runtime;

/// The third party.
pub(crate) const OTHER: usize = 0;
/// The victim.
pub(crate) const VICTIM: usize = 1;

pub(crate) struct Stage {
    pub(crate) runtime: Runtime,
    pub(crate) lab: Lab,
    insiders: usize,
}

impl Drop for Stage {
    /// What both nodes have to say about a story that fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.lab.nodes {
                let events = self.runtime.block_on(node.client().get("/v1/events"));
                eprintln!("{}: {:#}", node.name, events.unwrap_or_default());
                let releases = self.runtime.block_on(node.client().get("/v1/releases"));
                eprintln!("{}: {:#}", node.name, releases.unwrap_or_default());
            }
        }
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::prepared(|_| {})
    }

    /// The same with a charter that is changed before the fleet begins.
    pub(crate) fn prepared(prepare: impl FnOnce(&Path)) -> Self {
        let founding = Founding { publishers: vec!["globex".to_owned()], ..Founding::default() };
        let runtime = runtime();
        let lab = runtime.block_on(async {
            let mut lab = Lab::begin(&founding).unwrap();
            prepare(&lab.charter);
            for i in 0..2 {
                let limits = LimitsConfig::UNLIMITED;
                lab.add_node_at(i, Place { limits, ..Place::default() }).await.unwrap();
            }
            lab.settle().await.unwrap();
            lab
        });
        let stage = Self { runtime, lab, insiders: 0 };
        for node in [OTHER, VICTIM] {
            stage.write_vm(node, "vm", "", "[[subscribe]]\npackage = \"app\"");
        }
        stage.good_news("1");
        stage
    }

    pub(crate) fn node(&self, node: usize) -> &LabNode {
        &self.lab.nodes[node]
    }

    /// Writes a VM's file with lines of `[vm]` and with its tables, and lets the node read it. It
    /// trusts `acme` where the tables say nothing of trust.
    pub(crate) fn write_vm(&self, node: usize, name: &str, lines: &str, tables: &str) {
        let config = &self.node(node).config;
        let target = config.vms.with_file_name(format!("view-{name}"));
        let trust = if tables.contains("[[trust]]") { "" } else { "[[trust]]\nallow = \"acme\"\n" };
        let text = format!(
            "[vm]\ngroups = [\"web\"]\n{lines}\n{tables}\n{trust}\
             [view]\nbackend = \"hardlink\"\nisolation = \"none\"\ntarget = {target:?}\n"
        );
        fs::create_dir_all(&config.vms).unwrap();
        fs::write(config.vms.join(format!("{name}.toml")), text).unwrap();
        let client = self.node(node).client();
        self.runtime.block_on(client.post("/v1/reload", &json!({}))).unwrap();
        assert_eq!(self.status(node)["bad_vm_files"], json!([]));
    }

    pub(crate) fn get(&self, node: usize, path: &str) -> Value {
        self.runtime.block_on(async { self.node(node).client().get(path).await.unwrap() })
    }

    pub(crate) fn status(&self, node: usize) -> Value {
        self.get(node, "/v1/status")
    }

    pub(crate) fn counter(&self, node: usize, name: &str, reason: &str) -> u64 {
        let status = self.status(node);
        let fits = |c: &&Value| c["name"] == name && c["reason"] == reason;
        let all = status["counters"].as_array().unwrap();
        all.iter().find(fits).map_or(0, |c| c["count"].as_u64().unwrap())
    }

    pub(crate) fn await_counter(&self, node: usize, name: &str, reason: &str, at_least: u64) {
        let what = format!("{at_least} {name} {reason} on {}", self.node(node).name);
        wait_until(&what, || self.counter(node, name, reason) >= at_least);
    }

    pub(crate) fn has_event(&self, node: usize, kind: &str, text: &str) -> bool {
        self.runtime.block_on(self.node(node).event_ms(kind, text)).is_some()
    }

    /// What a VM shows: versions by package.
    pub(crate) fn shows(&self, node: usize, vm: &str) -> BTreeMap<String, String> {
        let all = self.get(node, "/v1/vms");
        let vm = all["vms"].as_array().unwrap().iter().find(|v| v["name"] == vm).unwrap();
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let shows = vm["shows"].as_array().unwrap().iter();
        shows.map(|s| (text(&s["package"]), text(&s["version"]))).collect()
    }

    pub(crate) fn await_shows(&self, node: usize, vm: &str, packages: &[(&str, &str)]) {
        let wanted: BTreeMap<_, _> =
            packages.iter().map(|(p, v)| ((*p).to_owned(), (*v).to_owned())).collect();
        let what = format!("{vm} on {} to show {packages:?}", self.node(node).name);
        wait_until(&what, || self.shows(node, vm) == wanted);
    }

    /// What `stork why` says, all of it.
    pub(crate) fn why(&self, node: usize, vm: &str, package: &str) -> String {
        self.get(node, &format!("/v1/why/{vm}/{package}")).to_string()
    }

    /// Publishes a package of one file, as its publisher does.
    pub(crate) fn publish(&self, name: &str, version: &str) {
        let dir = self.lab.dir.path().join("packages").join(format!("{name}-{version}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), format!("{name} {version}")).unwrap();
        self.runtime.block_on(self.lab.publish(&dir, name, version)).unwrap();
    }

    /// What a story ends with: the next true release of `app` reaches every VM.
    pub(crate) fn good_news(&self, version: &str) {
        self.publish("app", version);
        for node in [OTHER, VICTIM] {
            self.await_shows(node, "vm", &[("app", version)]);
        }
    }

    /// The publisher's feed as it stands, and the key that continues it.
    pub(crate) fn feed(&self) -> Feed {
        let first = self.node(OTHER);
        Feed::read_at(&self.lab.charter, (first.id, first.addr))
    }

    /// A new insider with a link to the victim.
    pub(crate) fn insider(&mut self) -> (Peer, Talk) {
        self.insider_with(has(Vec::new()))
    }

    /// The same with manners.
    pub(crate) fn insider_with(&mut self, manners: Manners) -> (Peer, Talk) {
        self.insiders += 1;
        let name = format!("insider-{}", self.insiders);
        let body = json!({ "name": name, "site": "default", "ttl_s": 600 });
        let token = self.runtime.block_on(self.node(OTHER).client().post("/v1/tokens", &body));
        let token = token.unwrap()["token"].as_str().unwrap().to_owned();
        let peer = Peer::enlist_by(&token, &self.lab.charter, &name);
        let victim = self.node(VICTIM);
        let talk = peer.dial_at((victim.id, victim.addr), manners);
        (peer, talk)
    }

    /// What an attack must not change: what is known, what is shown, and what the other heard.
    pub(crate) fn state(&self) -> Value {
        let of = |node: usize| {
            let status = self.status(node);
            let vms = self.get(node, "/v1/vms");
            let shown = vms["vms"].as_array().unwrap().iter();
            let shown: Vec<_> = shown.map(|v| (&v["name"], &v["shows"])).collect();
            let entries = self.counter(node, "items_committed", "entry");
            json!([status["releases"], status["documents"], shown, entries])
        };
        json!([of(OTHER), of(VICTIM), self.status(OTHER)["gossip"]["pushes_in"]])
    }

    /// A new insider pushes an item, which the victim refuses with this word: counted, told,
    /// without any change, and the third party hears nothing of it.
    pub(crate) fn refuses(&mut self, code: &str, item: &Item) {
        wait_until("the last insider to be gone", || self.status(VICTIM)["links"] == 1);
        let (_peer, talk) = self.insider();
        let before = (self.state(), self.counter(VICTIM, "items_refused", code));
        talk.push(item);
        self.await_counter(VICTIM, "items_refused", code, before.1 + 1);
        assert!(self.has_event(VICTIM, "item_refused", code), "{code}");
        assert_eq!(self.state(), before.0, "{code}");
        assert_eq!(self.counter(OTHER, "items_refused", code), 0, "{code} was passed on");
    }

    /// An insider passes on items that are well signed: both nodes take them.
    pub(crate) fn spreads(&mut self, items: &[Item]) {
        let before = [OTHER, VICTIM].map(|n| self.counter(n, "items_committed", "entry"));
        let (_peer, talk) = self.insider_with(has(items.to_vec()));
        items.iter().for_each(|i| talk.push(i));
        for (node, before) in [OTHER, VICTIM].into_iter().zip(before) {
            let all = before + items.len() as u64;
            self.await_counter(node, "items_committed", "entry", all);
        }
    }

    /// A content of one file of 100 kB, which no node has.
    pub(crate) fn content(&self, name: &str, version: &str) -> Arc<Content> {
        let dir = self.lab.dir.path().join("contents").join(format!("{name}-{version}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("app"), noise(&format!("{name} {version}"), 100_000)).unwrap();
        Arc::new(Content::of_folder(&dir, name, version))
    }

    /// The victim's VM shows `app` at this version, with the bytes of [`Self::content`], and the
    /// other node got it from there.
    pub(crate) fn completes(&self, version: &str) {
        let folder = self.lab.dir.path().join("contents").join(format!("app-{version}"));
        for node in [OTHER, VICTIM] {
            self.await_shows(node, "vm", &[("app", version)]);
            compare_with_folder(&self.node(node).config.vms.with_file_name("view-vm"), &folder);
        }
        for (name, reason) in [("pieces", "bad"), ("peers_blamed", "bad_manifest")] {
            assert_eq!(self.counter(OTHER, name, reason), 0, "{name} {reason} was passed on");
        }
    }

    /// An insider that serves a content well.
    pub(crate) fn honest(&mut self, content: &Arc<Content>) -> (Peer, Talk) {
        let (peer, talk) = self.insider_with(server(content, Lie::No, Lie::No));
        talk.send(Frame::Transfer(TransferFrame::HasManifest(content.reference.id)));
        (peer, talk)
    }

    /// Ends the victim and starts it again.
    pub(crate) fn restart_victim(&mut self) {
        let victim = &mut self.lab.nodes[VICTIM];
        self.runtime.block_on(victim.stop()).unwrap();
        self.runtime.block_on(victim.start()).unwrap();
        wait_until("it to be linked", || self.status(VICTIM)["links"] == 1);
    }
}

/// Makes of a release one of this content.
pub(crate) fn with_content(release: &mut Release, content: &Content) {
    let packing = &content.manifest.packing;
    release.tree = content.manifest.tree.id();
    release.manifest = content.reference;
    release.full_bytes = packing.bytes(Variant::Full);
    release.delta = None;
    release.unpacked_bytes = content.manifest.tree.payload_len();
    release.origins = List::empty();
    release.files = u32::try_from(content.manifest.tree.entries.len()).unwrap();
}
