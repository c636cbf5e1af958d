//! Looking at the fleet until every VM shows what it must.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::answer::{field, list, number, text};
use super::error::DemoError;
use super::fleet::{Fleet, Host, POLL};
use super::package::Package;
use super::process::Process;
use super::screen::{Row, Screen};

/// How long a version may take to every VM: far more than it needs, for a machine that is busy.
const ARRIVE_S: u64 = 60;

/// What a node says of one release.
#[derive(Debug, Clone, Default)]
pub(super) struct ReleaseSeen {
    pub(super) state: String,
    pub(super) origin: bool,
    pub(super) full_bytes: u64,
    pub(super) delta_bytes: Option<u64>,
    pub(super) fetched_bytes: u64,
    pub(super) fetched_as: Option<String>,
    /// Bytes sent to other hosts.
    pub(super) sent: u64,
    pub(super) from: Vec<(String, u64)>,
}

/// What a host says of one version of the package.
pub(super) async fn release(
    host: &Host,
    package: &Package,
    version: &str,
) -> Result<Option<ReleaseSeen>, DemoError> {
    let all = host.ask("/v1/releases").await?;
    let releases = list(&all, "releases");
    let is_it =
        |r: &&Value| text(r, "package") == package.name.as_str() && text(r, "version") == version;
    Ok(releases.iter().rfind(is_it).map(|r| {
        let swarms = list(r, "swarms");
        let mut from: Vec<(String, u64)> = Vec::new();
        for s in swarms.iter().flat_map(|s| list(s, "from")) {
            let (name, bytes) = (text(s, "host").to_owned(), number(s, "bytes"));
            match from.iter_mut().find(|(n, _)| *n == name) {
                Some((_, sum)) => *sum += bytes,
                None => from.push((name, bytes)),
            }
        }
        from.sort();
        ReleaseSeen {
            state: text(r, "state").to_owned(),
            origin: field(r, "origin").as_bool() == Some(true),
            full_bytes: number(r, "full_bytes"),
            delta_bytes: field(r, "delta_bytes").as_u64(),
            fetched_bytes: number(r, "fetched_bytes"),
            fetched_as: field(r, "fetched_as").as_str().map(str::to_owned),
            sent: swarms.iter().map(|s| number(s, "sent")).sum(),
            from,
        }
    }))
}

/// The rows of one host.
async fn rows_of(host: &Host, package: &Package) -> Result<Vec<Row>, DemoError> {
    let versions = &package.versions;
    let latest = package.latest()?;
    let blank = |i: usize| {
        let vm = host.vms.get(i);
        let wish = vm.map_or("", |v| v.constraint.as_str());
        Row {
            host: host.name.clone(),
            vm: vm.map_or_else(String::new, |v| v.name.clone()),
            wish: if wish.is_empty() { "newest".to_owned() } else { wish.to_owned() },
            first: i == 0,
            version: "–".to_owned(),
            ..Row::default()
        }
    };
    let mut rows: Vec<Row> = (0..host.vms.len()).map(blank).collect();
    if !host.is_up() {
        for row in &mut rows {
            row.state = "host is down".to_owned();
        }
        return Ok(rows);
    }
    let answer = host.ask("/v1/vms").await?;
    let release = release(host, package, &latest.text).await?.unwrap_or_default();
    for (row, vm) in rows.iter_mut().zip(&host.vms) {
        let all = list(&answer, "vms");
        let Some(seen) = all.iter().find(|v| text(v, "name") == vm.name.as_str()) else {
            continue;
        };
        let shown = list(seen, "shows");
        let shown = shown.iter().find(|s| text(s, "package") == package.name.as_str());
        let right = vm.right(versions).map(|v| v.text.as_str());
        if let Some(version) = shown.and_then(|s| field(s, "version").as_str()) {
            row.version = version.to_owned();
        }
        let idle = field(seen, "current").as_bool() == Some(true)
            && *field(seen, "switching") == Value::Bool(false);
        row.right = shown.is_some() && Some(row.version.as_str()) == right && idle;
        row.state = match field(seen, "error").as_str() {
            Some(error) => error.to_owned(),
            None if row.right && right == Some(latest.text.as_str()) => "shown".to_owned(),
            None if row.right => "stays".to_owned(),
            None if matches!(release.state.as_str(), "" | "known") => "waiting".to_owned(),
            None if release.state == "whole" => "switching".to_owned(),
            None => release.state.clone(),
        };
        row.from.clone_from(&release.from);
        row.pushed = release.origin;
    }
    Ok(rows)
}

/// Shows the table until every VM of every host that is up shows what it must.
pub(super) async fn until_right(
    fleet: &mut Fleet,
    package: &Package,
    screen: &mut Screen,
) -> Result<(), DemoError> {
    let began = Instant::now();
    loop {
        let mut rows = Vec::new();
        let mut right = true;
        for host in &mut fleet.hosts {
            if host.process.as_mut().is_some_and(Process::ended) {
                return Err(DemoError::Ended(host.name.clone()));
            }
            let of_host = rows_of(host, package).await?;
            right &= !host.is_up() || of_host.iter().all(|r| r.right);
            rows.extend(of_host);
        }
        screen.table(&rows, right);
        if right {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(ARRIVE_S) {
            let wrong = rows.iter().filter(|r| !r.right).map(|r| {
                let (vm, version, state) = (&r.vm, &r.version, &r.state);
                format!("{vm} shows {version} ({state})")
            });
            let wrong: Vec<String> = wrong.collect();
            let what = format!("that every VM shows the right version; {}", wrong.join("; "));
            return Err(DemoError::Late(what, ARRIVE_S));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The sum of some counters of one node.
pub(super) async fn counted(host: &Host, wanted: &[(&str, &str)]) -> Result<u64, DemoError> {
    let status = host.ask("/v1/status").await?;
    let all = list(&status, "counters");
    let is_wanted =
        |c: &&Value| wanted.iter().any(|(n, r)| text(c, "name") == *n && text(c, "reason") == *r);
    Ok(all.iter().filter(is_wanted).map(|c| number(c, "count")).sum())
}

/// When the first host committed the announcement of a version, in calendar milliseconds.
pub(super) async fn announced_at(
    host: &Host,
    package: &Package,
    version: &str,
) -> Result<Option<u64>, DemoError> {
    let answer = host.ask("/v1/events?after=0").await?;
    let events = list(&answer, "events");
    let begins = format!("{} {version} by ", package.name);
    let is_it = |e: &&Value| {
        text(e, "kind") == "announced"
            && field(e, "text").as_str().is_some_and(|t| t.starts_with(&begins))
    };
    Ok(events.iter().rfind(is_it).and_then(|e| field(e, "at_ms").as_u64()))
}
