//! The key of a build job: what it is for, and what its thief has of it, by every door.

use std::path::Path;
use std::process::Command;

use stork_publisher::delegate::{DelegateOptions, delegate};
use stork_publisher::keys::{Passphrase, read_secret};
use stork_tests::feed::Feed;
use stork_tests::fleet::{Fleet, Host, VmFile, binary, report};
use stork_tests::hostile::{Peer, place, runtime};
use stork_tests::raw_push::{Session, now};
use stork_wire::charter::PushCert;
use stork_wire::feed::Entry;
use stork_wire::frame::{PushReply, PushRequest, Refusal};
use stork_wire::sign::{Envelope, SecretKey};

use crate::check::{await_counter, fails, has_event, untouched};

/// A delegated key with its certificate.
struct Job {
    key: SecretKey,
    via: Envelope,
}

impl Job {
    /// From the directory of a job.
    fn read(dir: &Path) -> Self {
        let key = read_secret(&dir.join("ci"), &Passphrase::None).unwrap();
        let via = stork_publisher::delegate::read(&dir.join("ci.delegated")).unwrap().envelope;
        Self { key, via }
    }

    /// One that was good for an hour until so many seconds ago.
    fn expired(fleet: &Fleet, ago: u64) -> Self {
        let out = fleet.folder("old-job");
        let options = DelegateOptions {
            charter: fleet.charter.clone(),
            key: None,
            passphrase: Passphrase::None,
            packages: vec!["*".parse().unwrap()],
            ttl_s: 3_600,
            out: out.clone(),
        };
        delegate(&options, now() - 3_600 - ago).unwrap();
        Self::read(&out)
    }

    fn sign(&self, feed: &Feed, entry: Entry) -> Envelope {
        let entry = Entry { via: Some(Box::new(self.via.clone())), ..entry };
        Feed::sign_as(&entry, feed.publisher.fleet, &self.key)
    }

    /// Says hello to a host and commits an entry; the refusal.
    fn commits(&self, feed: &Feed, host: &Host, entry: &Envelope) -> (Refusal, String) {
        let (node, addr) = place(host);
        let (publisher, fleet) = (feed.publisher.id, feed.publisher.fleet);
        runtime().block_on(async {
            let session = Session::open(node, addr).await.unwrap();
            let (issued, expires, tls_key) = (now(), now() + 600, session.tls_key);
            let cert = PushCert { version: 1, tls_key, publisher, issued, expires };
            let cert = Envelope::sign(&cert, fleet, &self.key).unwrap();
            let hello = PushRequest::HelloDelegated { fleet, cert, via: self.via.clone() };
            let mut reply = session.ask(&hello, &[]).await.unwrap().0;
            if let PushReply::Welcome { .. } = reply {
                reply = session.ask(&PushRequest::Commit(entry.clone()), &[]).await.unwrap().0;
            }
            session.close().await;
            match reply {
                PushReply::Refused { code, message } => (code, message.to_string()),
                other => panic!("not refused: {other:?}"),
            }
        })
    }
}

/// A job pushes with the directory that it was given, and every VM shows it, also on a late host
/// and after restarts. Its thief gets nowhere: not with another package, not when the hour is over,
/// and not by handing hosts an entry that claims to be of that hour. When the release key ends
/// itself, what its job has signed ends too.
#[test]
fn t001_t002_the_key_of_a_build_job() {
    let mut fleet = Fleet::new(&["web"], 2);
    for host in &fleet.hosts {
        host.write_vm("vm", &VmFile::usual(&["web"], &host.target("vm")));
    }
    let package = |v: &str| fleet.package("app", v, &[("app", v.as_bytes())]);
    fleet.push(&package("1"), &["web"]);
    let dir = fleet.charter.parent().unwrap().join("job");
    let make = ["key", "delegate", "--packages", "app", "--json", "--charter"];
    let mut make_job = Command::new(binary("stork-publish"));
    make_job.args(make).arg(&fleet.charter).arg("--out").arg(&dir);
    let made = report(&make_job.output().unwrap());
    assert_eq!(made["schema"], "stork.delegate/v1");
    fails(&make_job.output().unwrap(), 1, "is not overwritten");
    let done = fleet.push_command_of(&dir, 0, &package("2"), &["web"]).output().unwrap();
    assert_eq!(report(&done)["outcome"], "published");
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("app", "2")]));
    let other = fleet.package("tool", "1", &[("tool", b"1")]);
    let out = fleet.push_command_of(&dir, 0, &other, &["web"]).output().unwrap();
    fails(&out, 4, "may release `app`, and not `tool`");

    let (job, old) = (Job::read(&dir), Job::expired(&fleet, 301));
    let feed = Feed::read(&fleet);
    assert!(feed.entry.via.is_some());
    let before = untouched(&fleet.hosts[1]);
    // Its own hello is good, and the entry is not.
    let tool = job.sign(&feed, feed.next_with(|r| r.package = "tool".parse().unwrap()));
    let (code, why) = job.commits(&feed, &fleet.hosts[0], &tool);
    assert_eq!(code, Refusal::Trust);
    assert!(why.contains("the delegated key may not release `tool`"), "{why}");
    let late = old.sign(&feed, feed.next_with(|_| {}));
    let (code, why) = old.commits(&feed, &fleet.hosts[0], &late);
    assert_eq!(code, Refusal::Trust);
    assert!(why.contains("the delegated key's certificate has run out"), "{why}");
    // By gossip, where nobody asks for content first.
    let insider = Peer::enlist(&fleet, "insider");
    let talk = insider.dial(&fleet.hosts[1]);
    let mut backdated = feed.next_with(|_| {});
    backdated.signed_at = now() - 600;
    talk.push(&feed.item(old.sign(&feed, backdated), feed.entry.seq + 1));
    await_counter(&fleet.hosts[1], "items_refused", "delegated_key", 1);
    assert!(has_event(&fleet.hosts[1], "item_refused", "older than the entry before it"));
    assert_eq!(untouched(&fleet.hosts[1]), before);

    for host in &mut fleet.hosts {
        host.restart();
    }
    let newcomer = fleet.enlist();
    newcomer.write_vm("vm", &VmFile::usual(&["web"], &newcomer.target("vm")));
    newcomer.start();
    fleet.hosts.iter().for_each(|h| h.await_vm("vm", &[("app", "2")]));

    let key = fleet.charter.join("keys/release");
    let mut end = Command::new(binary("stork-publish"));
    end.args(["key", "suicide", "--yes", "--json", "--reason", "stolen", "--to"]);
    end.arg(format!("{}@{}", fleet.hosts[0].id(), fleet.hosts[0].addr())).arg(&key);
    drop(report(&end.arg("--charter").arg(&fleet.charter).output().unwrap()));
    let out = fleet
        .push_command_of(&dir, 0, &fleet.package("app", "3", &[("app", b"3")]), &["web"])
        .output();
    fails(&out.unwrap(), 4, "has ended itself");
}
