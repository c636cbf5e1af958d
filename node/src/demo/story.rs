//! The story that the demonstration tells, in its order: publish, publish a delta, refuse
//! forgeries, lose a host, refuse flipped blocks, catch up, and look at every view.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::answer::{field, number};
use super::error::DemoError;
use super::fleet::{Fleet, Host, POLL};
use super::insider::Insider;
use super::package::{Package, Version};
use super::screen::Screen;
use super::views::{Compared, own_disk_bytes};
use super::watch::{announced_at, counted, release, until_right};
use crate::cli::out::bytes;

/// Releases after which no host asking the hostile one is called a failure.
const TRIES: usize = 3;
/// How long a refusal may take to be counted.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);
/// Counters of refused announcements.
const FORGED: [(&str, &str); 5] = [
    ("items_refused", "bad_signature"),
    ("items_refused", "unauthorised_key"),
    ("items_refused", "malformed"),
    ("items_refused", "wrong_log"),
    ("items_refused", "threshold_not_met"),
];
/// The counter of refused blocks.
const FLIPPED: [(&str, &str); 1] = [("pieces", "bad")];

/// What was measured; `None` where it did not come to that.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    pub(super) publish_to_last_vm_ms: Option<u64>,
    pub(super) origin_bytes: Option<u64>,
    pub(super) content_bytes: Option<u64>,
    /// Bytes that one host fetched for the second version: the most that any did.
    pub(super) delta_bytes: Option<u64>,
    pub(super) second_vm_disk_bytes: Option<u64>,
    pub(super) forged_refused: u64,
    pub(super) flipped_refused: u64,
    pub(super) catch_up_ms: Option<u64>,
    pub(super) views_right: usize,
}

/// Everything that is alive while the story is told.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) root: PathBuf,
    pub(super) fleet: Fleet,
    pub(super) package: Package,
    pub(super) figures: Figures,
    /// What did not go as it should, though the story went on.
    pub(super) faults: Vec<String>,
    /// Refused things that a killed node had counted.
    lost: (u64, u64),
}

fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Story {
    pub(super) fn new(root: &Path, fleet: Fleet, package: Package) -> Self {
        let (figures, faults) = (Figures::default(), Vec::new());
        Self { root: root.to_owned(), fleet, package, figures, faults, lost: (0, 0) }
    }

    /// Tells all of it.
    pub(super) async fn tell(&mut self, screen: &mut Screen) -> Result<(), DemoError> {
        self.first_version(screen).await?;
        let mut insider = self.admit_insider(screen).await?;
        self.second_version(screen).await?;
        self.forgeries(&insider, screen).await?;
        self.third_version(&mut insider, screen).await?;
        self.catch_up(screen).await?;
        self.count_refused().await?;
        self.look_at_views(screen)
    }

    /// Pushes the newest version, and watches it arrive meanwhile; gives the calendar times at
    /// which its announcement was committed and the last VM was seen to show it.
    async fn publish(&mut self, screen: &mut Screen) -> Result<(u64, u64), DemoError> {
        let first = self.fleet.first()?;
        let (Some(node), Some(addr)) = (first.node, first.addr) else {
            return Err(DemoError::Wrong("the first host has no address".into()));
        };
        let version = self.package.latest()?.clone();
        let text = format!("publishing {} {}", self.package.name, version.text);
        let more = json!({ "package": self.package.name, "version": version.text });
        screen.event("publishing", &text, &more);
        let mut args = self.named("push", &version);
        args.extend(["--charter".into(), self.fleet.charter.display().to_string()]);
        args.extend(["--to".into(), format!("{node}@{addr}"), "--json".into()]);
        let binary = self.fleet.binary.clone();
        let watching = async {
            until_right(&mut self.fleet, &self.package, screen).await?;
            Ok(now_ms())
        };
        let pushing = binary.run_json("__publish", &args);
        let (report, shown) = tokio::try_join!(pushing, watching)?;
        self.published(&version, &report, screen);
        let at = announced_at(self.fleet.first()?, &self.package, &version.text).await?;
        let at = at.ok_or_else(|| DemoError::Wrong("the announcement was not noted".into()))?;
        Ok((at, shown))
    }

    fn published(&self, version: &Version, report: &Value, screen: &mut Screen) {
        let (full, delta) =
            (field(report, "full_bytes").as_u64(), field(report, "delta_bytes").as_u64());
        let delta_text = match delta {
            Some(delta) => format!(", {} as a delta", bytes(delta)),
            None => String::new(),
        };
        let unpacked = bytes(number(report, "unpacked_bytes"));
        let packed = bytes(full.unwrap_or(0));
        let text = format!("published {}: {unpacked}, packed {packed}{delta_text}", version.text);
        let more = json!({
            "package": self.package.name, "version": version.text, "full_bytes": full,
            "delta_bytes": delta, "tree": field(report, "tree"),
            "manifest": field(report, "manifest"),
        });
        screen.event("published", &text, &more);
    }

    /// Arguments of the publisher for one version.
    fn named(&self, command: &str, version: &Version) -> Vec<String> {
        let mut args = vec![command.to_owned(), version.source.display().to_string()];
        if version.unnamed {
            args.extend(["--name".into(), self.package.name.clone()]);
            args.extend(["--version".into(), version.text.clone()]);
            args.extend(["--arch".into(), self.package.arch.clone()]);
        }
        args
    }

    async fn first_version(&mut self, screen: &mut Screen) -> Result<(), DemoError> {
        screen.step("A first version, from one publisher to every VM");
        let (announced, shown) = self.publish(screen).await?;
        let took = shown.saturating_sub(announced);
        let first = self.fleet.first()?;
        let version = self.package.latest()?.text.clone();
        let seen = release(first, &self.package, &version).await?;
        let seen = seen.ok_or_else(|| DemoError::Wrong("the release is not known".into()))?;
        if let Some(view) = first.vms.first() {
            self.package.learn_first(&view.view)?;
        }
        let mut disk = 0;
        for vm in self.fleet.hosts.iter().filter_map(|h| h.vms.get(1)) {
            let what = || format!("look at {}", vm.view.display());
            let own = own_disk_bytes(&vm.view);
            disk = disk.max(own.map_err(|source| DemoError::Io { what: what(), source })?);
        }
        self.figures.publish_to_last_vm_ms = Some(took);
        self.figures.origin_bytes = Some(seen.sent);
        self.figures.content_bytes = Some(seen.full_bytes);
        self.figures.second_vm_disk_bytes = Some(disk);
        let text = format!(
            "every VM shows it {took} ms after its announcement; the publisher's host sent {} of \
             {}, the hosts gave each other the rest; a host's second VM takes {} of disk",
            bytes(seen.sent),
            bytes(seen.full_bytes),
            bytes(disk)
        );
        let more = json!({
            "version": version, "took_ms": took, "origin_bytes": seen.sent,
            "content_bytes": seen.full_bytes, "second_vm_disk_bytes": disk,
        });
        screen.event("arrived", &text, &more);
        Ok(())
    }

    /// A host more, which is hostile.
    async fn admit_insider(&self, screen: &mut Screen) -> Result<Insider, DemoError> {
        let token = self.fleet.first()?.token("mallory").await?;
        let dir = self.root.join("mallory");
        let mut insider = Insider::join(&dir, &token, self.fleet.group).await?;
        for host in &self.fleet.hosts {
            if let (Some(node), Some(addr)) = (host.node, host.addr) {
                insider.connect(node, addr).await?;
            }
        }
        let text = "a host `mallory` is admitted with a good token; it will turn out hostile";
        screen.event("insider", text, &json!({ "host": "mallory" }));
        Ok(insider)
    }

    async fn second_version(&mut self, screen: &mut Screen) -> Result<(), DemoError> {
        screen.step("A second version, of which hosts fetch only what changed");
        self.package.next(&self.root)?;
        self.publish(screen).await?;
        let version = self.package.latest()?.text.clone();
        let (mut most, mut full, mut offered) = (0, 0, None);
        for host in self.fleet.hosts.iter().skip(1) {
            let seen = release(host, &self.package, &version).await?.unwrap_or_default();
            (full, offered) = (seen.full_bytes, seen.delta_bytes);
            most = most.max(seen.fetched_bytes);
            if offered.is_some() && seen.fetched_as.as_deref() != Some("delta") {
                self.faults.push(format!("{} did not fetch {version} as a delta", host.name));
            }
        }
        self.figures.delta_bytes = Some(most);
        let text = match offered {
            Some(_) => format!("each host fetched {} instead of {}", bytes(most), bytes(full)),
            // So small a package that a delta would save less than a fifth.
            None => format!("no delta was offered: it would save too little of {}", bytes(full)),
        };
        let more = json!({ "version": version, "delta_bytes": most, "full_bytes": full });
        screen.event("delta", &text, &more);
        Ok(())
    }

    async fn forgeries(&mut self, insider: &Insider, screen: &mut Screen) -> Result<(), DemoError> {
        screen.step("Forged announcements from an admitted host");
        let version = self.package.latest()?.text.clone();
        let real = insider.heard(&version).await?;
        let before = self.counted_all(&FORGED).await?;
        let forged = insider.forge(&real).await?;
        let began = Instant::now();
        let refused = loop {
            let refused = self.counted_all(&FORGED).await?.saturating_sub(before);
            if refused >= forged.sent || began.elapsed() > REFUSED_WITHIN {
                break refused;
            }
            tokio::time::sleep(POLL).await;
        };
        if refused < forged.sent {
            let sent = forged.sent;
            self.faults.push(format!("{refused} of {sent} forged announcements were refused"));
        }
        for host in &self.fleet.hosts {
            for version in [&forged.stolen, &forged.own] {
                if release(host, &self.package, version).await?.is_some() {
                    self.faults.push(format!("{} believes the forged {version}", host.name));
                }
            }
        }
        until_right(&mut self.fleet, &self.package, screen).await?;
        let text = format!(
            "mallory announced {} {} (under a stolen signature) and {} (under its own) to every \
             host: {refused} of {} refused, no VM changed",
            self.package.name, forged.stolen, forged.own, forged.sent
        );
        let more = json!({ "what": "announcement", "sent": forged.sent, "refused": refused });
        screen.event("refused", &text, &more);
        Ok(())
    }

    async fn third_version(
        &mut self,
        insider: &mut Insider,
        screen: &mut Screen,
    ) -> Result<(), DemoError> {
        screen.step("A host dies; a third version comes, and mallory serves it with flipped bits");
        if let Some(last) = self.fleet.hosts.last_mut() {
            self.lost.0 += counted(last, &FORGED).await?;
            self.lost.1 += counted(last, &FLIPPED).await?;
            last.kill();
            let text = format!("killed {}", last.name);
            screen.event("killed", &text, &json!({ "host": last.name }));
        }
        let mut blocks = 0;
        for _ in 0..TRIES {
            let before = self.package.latest()?.tree.clone();
            self.package.next(&self.root)?;
            self.arm(insider, &before).await?;
            self.publish(screen).await?;
            blocks = self.counted_all(&FLIPPED).await?;
            if blocks > 0 {
                break;
            }
        }
        let sent = insider.flipped();
        if blocks == 0 {
            let text = format!("no flipped block was refused in {TRIES} releases ({sent} sent)");
            self.faults.push(text);
        }
        let text = format!(
            "{blocks} of {sent} blocks with a flipped bit refused before anything was written; \
             the same blocks came whole from honest hosts"
        );
        let more = json!({ "what": "block", "sent": sent, "refused": blocks });
        screen.event("refused", &text, &more);
        Ok(())
    }

    /// The hostile host has the content, as every host will, before it is announced.
    async fn arm(&mut self, insider: &Insider, base: &Path) -> Result<(), DemoError> {
        let version = self.package.latest()?;
        let packed =
            self.root.join("mallory").join(format!("packed-{}", self.package.versions.len()));
        let mut args = self.named("pack", version);
        args.extend(["--base".into(), base.display().to_string()]);
        args.extend(["--out".into(), packed.display().to_string()]);
        self.fleet.binary.run("__publish", &args).await?;
        insider.arm(&packed).await
    }

    async fn catch_up(&mut self, screen: &mut Screen) -> Result<(), DemoError> {
        screen.step("The dead host comes back and catches up");
        let began = Instant::now();
        let Some(last) = self.fleet.hosts.last_mut() else { return Ok(()) };
        last.start(&self.fleet.binary)?;
        last.ready().await?;
        let name = last.name.clone();
        until_right(&mut self.fleet, &self.package, screen).await?;
        let took = since(began);
        self.figures.catch_up_ms = Some(took);
        let text = format!("{name} shows the right versions {took} ms after its start");
        screen.event("caught_up", &text, &json!({ "host": name, "took_ms": took }));
        Ok(())
    }

    async fn counted_all(&self, wanted: &[(&str, &str)]) -> Result<u64, DemoError> {
        let mut sum = 0;
        for host in self.fleet.hosts.iter().filter(|h| h.is_up()) {
            sum += counted(host, wanted).await?;
        }
        Ok(sum)
    }

    async fn count_refused(&mut self) -> Result<(), DemoError> {
        self.figures.forged_refused = self.lost.0 + self.counted_all(&FORGED).await?;
        self.figures.flipped_refused = self.lost.1 + self.counted_all(&FLIPPED).await?;
        Ok(())
    }

    /// Compares every file of every view with what was published.
    fn look_at_views(&mut self, screen: &mut Screen) -> Result<(), DemoError> {
        let mut compared = Compared::default();
        let mut right = 0;
        for vm in self.fleet.hosts.iter().flat_map(|h| &h.vms) {
            let Some(version) = vm.right(&self.package.versions) else { continue };
            let difference = compared.difference(&vm.view, &version.tree);
            let what = || format!("look at {}", vm.view.display());
            match difference.map_err(|source| DemoError::Io { what: what(), source })? {
                None => right += 1,
                Some(why) => {
                    let (vm, version) = (&vm.name, &version.text);
                    self.faults.push(format!("the view of {vm} is not {version}: {why}"));
                }
            }
        }
        self.figures.views_right = right;
        let all = self.vms();
        let text = format!("{right} of {all} views hold exactly the files that were published");
        screen.event("views", &text, &json!({ "right": right, "vms": all }));
        Ok(())
    }

    pub(super) fn vms(&self) -> usize {
        self.fleet.hosts.iter().map(|h| h.vms.len()).sum()
    }

    /// Logs of all nodes, for whoever must find out what was wrong.
    pub(super) fn logs(&self) -> Vec<Value> {
        self.fleet.hosts.iter().map(|h: &Host| json!(h.log)).collect()
    }
}
