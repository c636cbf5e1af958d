//! The commands that found, show and check a charter: options in, library called, result printed.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use stork_wire::ids::NodeId;
use stork_wire::text::{GroupName, Label, Pattern};

use super::NewPassphrase;
use super::charter::ProfileArgs;
use super::charter_run::now;
use super::commands::{print_json, print_lines};
use super::run::Failure;
use crate::charter::{self, Charter, CharterError, InitOptions, Outcome, RoleKeys, RoleName};
use crate::{keys, out};

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Where everything is written
    #[arg(long)]
    pub(super) dir: PathBuf,
    /// The fleet's name
    #[arg(long, value_name = "NAME")]
    pub(super) fleet: Label,
    /// A group; may be given several times
    #[arg(long, value_name = "NAME", required = true)]
    pub(super) group: Vec<GroupName>,
    /// The publisher's name
    #[arg(long, value_name = "NAME")]
    pub(super) publisher: Label,
    /// Package names that the publisher may use; default: all
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    pub(super) packages: Vec<Pattern>,
    /// Names that its packages may provide beside their own; default: none
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    pub(super) provides: Vec<Pattern>,
    /// Nodes that take the publisher's entries; default: any
    #[arg(long, value_name = "NODEID", num_args = 1..=4)]
    pub(super) home: Vec<NodeId>,
    /// Days until the documents must have been renewed
    #[arg(long, value_name = "N", default_value_t = 365,
        value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(super) valid_days: u32,
    /// Use this release key instead of making one
    #[arg(long, value_name = "FILE.pub")]
    pub(super) release_key: Option<PathBuf>,
    /// Key of a node that says how far the feed goes; up to 16 times
    #[arg(long, value_name = "FILE.pub")]
    pub(super) beacon_key: Vec<PathBuf>,
    /// A key of somebody else in a role: root, admission, authority or publisher
    #[arg(long, value_name = "ROLE=FILE.pub", value_parser = role_file)]
    pub(super) second_key: Vec<(RoleName, PathBuf)>,
    /// So many keys of a role must sign; default: 1
    #[arg(long, value_name = "ROLE=K", value_parser = role_count)]
    pub(super) threshold: Vec<(RoleName, u8)>,
    #[command(flatten)]
    pub(super) passphrase: NewPassphrase,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `ROLE=WHAT`.
fn role_and(text: &str) -> Result<(RoleName, &str), String> {
    let (role, rest) = text.split_once('=').ok_or("ROLE=… is expected")?;
    Ok((role.parse()?, rest))
}

fn role_file(text: &str) -> Result<(RoleName, PathBuf), String> {
    role_and(text).map(|(role, file)| (role, PathBuf::from(file)))
}

fn role_count(text: &str) -> Result<(RoleName, u8), String> {
    let (role, count) = role_and(text)?;
    count.parse().map(|n| (role, n)).map_err(|_e| format!("`{count}` is no count of keys"))
}

pub(super) fn profile(args: ProfileArgs) -> Result<(), Failure> {
    let made = charter::write_profile(&args.charter, &args.publisher, args.release_key)?;
    if args.json {
        return print_json(&json!({
            "schema": "stork.charter-profile/v1", "fleet": made.fleet, "publisher": made.publisher,
            "groups": made.groups,
        }));
    }
    out::result(&format!("publisher  {} {}", args.publisher, made.publisher));
    for group in &made.groups {
        out::result(&format!("group      {} {}", group.name, group.id));
    }
    Ok(())
}

pub(super) fn verify(path: &Path, at: Option<u64>, json: bool) -> Result<(), Failure> {
    let checked = charter::verify(path, at.unwrap_or_else(now))?;
    if json {
        print_json(&checked)?;
    } else {
        print_lines(&checked.faults.iter().map(|f| format!("wrong: {f}")).collect::<Vec<_>>());
        print_lines(&checked.warnings.iter().map(|f| format!("soon: {f}")).collect::<Vec<_>>());
    }
    if checked.faults.is_empty() {
        if !json {
            out::result(&format!("ok: {} documents", checked.documents));
        }
        return Ok(());
    }
    let why = format!("{} things are wrong with this charter", checked.faults.len());
    Err(CharterError::Broken(why).into())
}

pub(super) fn init(args: InitArgs) -> Result<(), Failure> {
    let passphrase = args.passphrase.choice();
    let options = InitOptions {
        dir: args.dir,
        fleet: args.fleet,
        groups: args.group,
        publisher: args.publisher,
        packages: args.packages,
        provides: args.provides,
        homes: args.home,
        valid_days: args.valid_days,
        release_key: args.release_key,
        beacon_keys: args.beacon_key,
        passphrase,
        roles: RoleKeys { keys: args.second_key, thresholds: args.threshold },
    };
    let made = charter::init(&options, now())?;
    let pending = match &made.changed.outcome {
        Outcome::Pending(path) => Some(path),
        _ => None,
    };
    let (profile, dir) = (&made.profile, options.dir.display());
    if args.json {
        return print_json(&json!({
            "schema": "stork.charter-init/v1",
            "dir": options.dir,
            "fleet": profile.fleet,
            "publisher": profile.publisher,
            "groups": profile.groups,
            "bundle": options.dir.join(charter::BUNDLE_FILE),
            "pending": pending,
            "missing": made.changed.missing(),
        }));
    }
    out::result(&format!("fleet      {} {}", options.fleet, profile.fleet));
    out::result(&format!("publisher  {} {}", options.publisher, profile.publisher));
    for group in &profile.groups {
        out::result(&format!("group      {} {}", group.name, group.id));
    }
    if let Some(path) = pending {
        print_lines(
            &made.changed.missing().iter().map(|m| format!("lacks      {m}")).collect::<Vec<_>>(),
        );
        out::chat(&format!(
            "The keys are in {dir}/keys. The fleet is founded when others have signed:"
        ));
        out::chat(&format!(
            "  send {} to them for `stork-publish charter sign`, then",
            path.display()
        ));
        out::chat(&format!("  stork-publish charter import {} --charter {dir}", path.display()));
        return Ok(());
    }
    out::chat(&format!("The charter is in {dir}/charter.bundle, the keys are in {dir}/keys."));
    out::chat(
        "Keep keys/root, keys/authority and keys/publisher offline: nothing daily needs them.",
    );
    out::chat("Next:");
    out::chat(&format!("  give {dir}/charter.bundle to the first node, then publish to it:"));
    out::chat(&format!("  stork-publish push FILE --charter {dir} --to NODEID@HOST:PORT"));
    Ok(())
}

pub(super) fn show(path: &Path, json: bool) -> Result<(), Failure> {
    let charter = charter::read_file(path)?;
    let ends = charter::expiry(&charter, now());
    if json {
        return print_json(&json!({
            "schema": "stork.charter/v1",
            "fleet": charter.fleet,
            "root": charter.root,
            "groups": charter.groups,
            "publishers": charter.publishers,
            "documents": charter.items.len(),
            "expired": ends.faults,
            "expiring": ends.warnings,
        }));
    }
    print_lines(&lines_of(&charter));
    for line in ends.faults.iter().chain(&ends.warnings) {
        out::chat(&format!("warning: {line}: stork-publish charter renew"));
    }
    Ok(())
}

fn lines_of(charter: &Charter) -> Vec<String> {
    let root = &charter.root;
    let role = |r: &stork_wire::charter::Role| {
        let keys: Vec<String> = r.keys.iter().map(keys::fingerprint).collect();
        format!("{} of {}: {}", r.threshold, r.keys.len(), keys.join(", "))
    };
    let mut lines = vec![
        format!("fleet      {} {}", root.name, charter.fleet),
        format!("  root document {}, expires {}", root.number, out::day(root.expires)),
        format!("  root       {}", role(&root.root)),
        format!("  admission  {}", role(&root.admission)),
    ];
    for a in &root.authorities {
        lines.push(format!("  groups {}  {}", a.names.as_str(), role(&a.role)));
    }
    for (id, doc) in &charter.publishers {
        lines.push(format!("publisher  {} {id}", doc.name));
        let (number, epoch, day) = (doc.number, doc.epoch, out::day(doc.expires));
        lines.push(format!("  document {number}, epoch {epoch}, expires {day}"));
        for key in &doc.release_keys {
            let names: Vec<&str> = key.packages.iter().map(|p| p.as_str()).collect();
            let key = keys::fingerprint(&key.key);
            lines.push(format!("  release key {key} for {}", names.join(", ")));
        }
        for key in &doc.beacon_keys {
            lines.push(format!("  beacon key {}", keys::fingerprint(key)));
        }
        for home in &doc.homes {
            lines.push(format!("  home {home}"));
        }
    }
    for (id, doc) in &charter.groups {
        lines.push(format!("group      {} {id}", doc.name));
        lines.push(format!("  document {}, expires {}", doc.number, out::day(doc.expires)));
        for grant in &doc.publishers {
            let names: Vec<&str> = grant.packages.iter().map(|p| p.as_str()).collect();
            lines.push(format!("  publisher {} may publish {}", grant.name, names.join(", ")));
        }
        for v in &doc.veto {
            let (key, end) = (keys::fingerprint(&v.key), out::day(v.not_after));
            lines.push(format!("  veto key {key} denies until {end}"));
        }
        if let Some(key) = doc.private {
            lines.push(format!("  private, sealed with key {}", key.short()));
        }
        if let Some(s) = doc.beacon_s {
            lines.push(format!("  beacons speak to its VMs for {s} s at the most"));
        }
    }
    lines
}
