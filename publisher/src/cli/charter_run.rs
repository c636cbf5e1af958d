//! The commands that change a charter: options in, library called, result printed.

use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use stork_wire::charter::PublisherDoc;

use super::charter::{
    AddGroupArgs, AddPublisherArgs, ChangeArgs, CharterCommand, DelegateArgs, GrantArgs,
    GrantedArgs, ImportArgs, RenewArgs, RotateArgs, SendArgs, SignArgs, UngrantArgs,
};
use super::charter_show;
use super::commands::{print_json, print_lines, runtime};
use super::epoch_args::{AfterArgs, EpochArgs, RevokeArgs};
use super::narrow::PrivateArgs;
use super::run::Failure;
use crate::charter::{
    self, Change, Changed, CharterError, Delegating, EpochOptions, Granted, Leaves, Life,
    NewPublisher, Outcome, Privacy, RoleChange, RoleName, Step,
};
use crate::keys::Passphrase;
use crate::{out, push};

pub(super) fn run(command: CharterCommand) -> Result<(), Failure> {
    match command {
        CharterCommand::Init(args) => charter_show::init(args),
        CharterCommand::Sign(args) => sign(args),
        CharterCommand::Import(args) => import(&args),
        CharterCommand::AddGroup(args) => add_group(args),
        CharterCommand::AddPublisher(args) => add_publisher(args),
        CharterCommand::Grant(args) => grant(args),
        CharterCommand::Ungrant(args) => ungrant(args),
        CharterCommand::Delegate(args) => delegate(args),
        CharterCommand::Rotate(args) => rotate(args),
        CharterCommand::Revoke(args) => revoke(args),
        CharterCommand::Veto(args) => super::narrow::veto(args),
        CharterCommand::Private(args) => private(args),
        CharterCommand::Beacons(args) => super::beacons::run(args),
        CharterCommand::Renew(args) => renew(args),
        CharterCommand::NewEpoch(args) => new_epoch(args),
        CharterCommand::Compact(args) => super::compact::compact(args),
        CharterCommand::Send(args) => send(&args),
        CharterCommand::Profile(args) => charter_show::profile(args),
        CharterCommand::Show { path, json } => charter_show::show(&path, json),
        CharterCommand::Verify { path, at, json } => charter_show::verify(&path, at, json),
    }
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn private(args: PrivateArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let what = match (args.new_key, args.public) {
        (true, _) => Privacy::NewKey,
        (_, true) => Privacy::Public,
        _ => Privacy::Private,
    };
    let (changed, file) = charter::privacy(&change, &args.group, what)?;
    if let Some(file) = file {
        out::chat(&format!("the key is in {}", file.display()));
        out::chat("next: `stork group-key add` it on one host that has the grant");
    }
    report(&changed, &change.dir, json)
}

fn passphrase(file: Option<std::path::PathBuf>) -> Passphrase {
    file.map_or(Passphrase::Ask, Passphrase::File)
}

/// The change, and whether JSON is wanted.
pub(super) fn change(args: ChangeArgs) -> (Change, bool) {
    let change = Change {
        dir: args.charter,
        keys: args.key,
        passphrase: passphrase(args.passphrase_file),
        out: args.out,
        dry_run: args.dry_run,
        life: Life::days(now(), args.valid_days),
    };
    (change, args.json)
}

fn granted(args: GrantedArgs) -> Granted {
    Granted { packages: args.packages, provides: args.provides, release_bytes_max: args.max_bytes }
}

fn json_of(changed: &Changed) -> Value {
    let (state, file) = match &changed.outcome {
        Outcome::Made => ("made", None),
        Outcome::Pending(path) => ("pending", Some(path)),
        Outcome::AlreadySo => ("already so", None),
        Outcome::DryRun => ("dry run", None),
    };
    let documents = changed.steps.iter().map(|step| {
        let needs = step
            .needs
            .iter()
            .map(|n| json!({"role": n.who, "threshold": n.role.threshold, "signed": n.signed}));
        json!({
            "kind": step.item.kind.name(), "log": step.item.log, "number": step.item.seq,
            "hash": step.item.envelope.hash(), "title": step.doc.title(),
            "signatures": needs.collect::<Vec<_>>(),
        })
    });
    json!({
        "schema": "stork.charter-change/v1", "state": state, "pending": file,
        "missing": changed.missing(), "documents": documents.collect::<Vec<_>>(),
    })
}

fn show_steps(steps: &[Step]) {
    print_lines(&steps.iter().flat_map(charter::describe).collect::<Vec<_>>());
}

/// What became of a change, and what to do next.
pub(super) fn report(changed: &Changed, dir: &Path, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&json_of(changed));
    }
    show_steps(&changed.steps);
    match &changed.outcome {
        Outcome::Made => {
            out::chat(&format!("{} holds it.", dir.join(charter::BUNDLE_FILE).display()));
            out::chat("Every push brings it to the node that is pushed to, and that to the fleet.");
        }
        Outcome::AlreadySo => out::chat("Already so: nothing to do."),
        Outcome::DryRun => out::chat("Nothing was written."),
        Outcome::Pending(path) => next_hand(changed, path, dir),
    }
    Ok(())
}

/// To whom a pending file goes.
fn next_hand(changed: &Changed, path: &Path, dir: &Path) {
    let (path, dir) = (path.display(), dir.display());
    let missing = changed.missing();
    if missing.is_empty() {
        out::chat(&format!("{path} has all signatures. In each directory of the charter:"));
        out::chat(&format!("  stork-publish charter import {path} --charter {dir}"));
        return;
    }
    out::chat(&format!("{path} lacks signatures:"));
    missing.iter().for_each(|m| out::chat(&format!("  {m}")));
    out::chat("Send it to who holds the keys, for: stork-publish charter sign FILE --key KEY");
}

/// Shows what a change does and asks at the terminal.
fn consent(steps: &[Step], (yes, quiet): (bool, bool)) -> Result<bool, CharterError> {
    if !quiet {
        show_steps(steps);
    }
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        let why = "nobody can be asked here: look at it by --dry-run, then give --yes";
        return Err(CharterError::Usage(why.into()));
    }
    out::chat("Sign this? Type yes:");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    Ok(read.is_ok() && line.trim() == "yes")
}

fn sign(args: SignArgs) -> Result<(), Failure> {
    let change = Change {
        dir: args.charter,
        keys: args.key,
        passphrase: passphrase(args.passphrase_file),
        out: args.out,
        dry_run: args.dry_run,
        life: Life::days(now(), 1),
    };
    let how = (args.yes || args.dry_run, args.json);
    let signed = charter::sign(&change, &args.file, |steps| consent(steps, how))?;
    if args.json {
        return print_json(&json_of(&signed));
    }
    match &signed.outcome {
        Outcome::Pending(path) => {
            out::chat("Signed.");
            next_hand(&signed, path, &change.dir);
        }
        Outcome::AlreadySo => out::chat("Already so: nothing to sign."),
        Outcome::Made | Outcome::DryRun => out::chat("Nothing was signed."),
    }
    Ok(())
}

fn send(args: &SendArgs) -> Result<(), Failure> {
    let charter = charter::read_file(&args.charter)?;
    runtime()?.block_on(push::send_documents(&args.to, &charter, None))?;
    let documents = charter.items.len();
    if args.json {
        let all = json!({ "schema": "stork.charter-send/v1", "documents": documents });
        return print_json(&all);
    }
    out::result(&format!("{documents} documents sent"));
    Ok(())
}

fn import(args: &ImportArgs) -> Result<(), Failure> {
    let changed = charter::import(&args.charter, &args.file, args.dry_run)?;
    report(&changed, &args.charter, args.json)
}

fn add_group(args: AddGroupArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let granted = granted(args.granted);
    let changed = charter::add_group(&change, &args.name, &args.publisher, &granted)?;
    report(&changed, &change.dir, json)
}

fn add_publisher(args: AddPublisherArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let new = NewPublisher {
        name: args.name,
        root_keys: args.root_key,
        threshold: args.threshold,
        release_keys: args.release_key,
        groups: args.group,
    };
    let changed = charter::add_publisher(&change, &new, &granted(args.granted))?;
    report(&changed, &change.dir, json)
}

fn grant(args: GrantArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let granted = granted(args.granted);
    let changed = charter::grant(&change, &args.group, &args.publisher, &granted)?;
    report(&changed, &change.dir, json)
}

fn ungrant(args: UngrantArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let changed = charter::ungrant(&change, &args.group, &args.publisher)?;
    report(&changed, &change.dir, json)
}

fn delegate(args: DelegateArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let what = Delegating { to: args.to, packages: args.packages, terminating: args.terminating };
    let changed = charter::delegate(&change, &args.publisher, &what)?;
    report(&changed, &change.dir, json)
}

fn rotate(args: RotateArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let usage = |why: &str| Failure::from(CharterError::Usage(why.into()));
    let release = args.role.strip_prefix("release");
    let release = release.filter(|rest| rest.is_empty() || rest.starts_with(':'));
    let changed = if let Some(rest) = release {
        if !args.remove.is_empty() || args.threshold.is_some() {
            return Err(usage(
                "a release key is taken away by `charter revoke`, none has a threshold",
            ));
        }
        let publisher = rest.strip_prefix(':');
        charter::rotate_release(&change, publisher, &args.add, &args.packages)?
    } else {
        if !args.packages.is_empty() {
            return Err(usage("--packages is for release keys"));
        }
        let or = |why| CharterError::Usage(format!("{why}, or release or release:NAME"));
        let role: RoleName = args.role.parse().map_err(or)?;
        if args.stolen && (role != RoleName::Admission || args.remove.is_empty()) {
            return Err(usage("--stolen is for admission keys that are taken away by --remove"));
        }
        let RotateArgs { add, remove, threshold, stolen, .. } = args;
        let what = RoleChange { add, remove, threshold, stolen };
        charter::rotate(&change, &role, &what)?
    };
    report(&changed, &change.dir, json)
}

fn renew(args: RenewArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let changed = charter::renew(&change, &args.only)?;
    report(&changed, &change.dir, json)
}

fn epoch_options(after: &AfterArgs) -> EpochOptions {
    EpochOptions {
        publisher: after.publisher.clone(),
        after: after.after.filter(|_| !after.from_nothing).zip(after.hash),
        of_epoch: after.of_epoch,
        release_key: None,
        leaves: Leaves::Replaced,
        beacon_keys: Vec::new(),
        compacts: None,
    }
}

fn new_epoch(args: EpochArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let options = EpochOptions {
        release_key: args.release_key,
        beacon_keys: args.beacon_key,
        ..epoch_options(&args.after)
    };
    begin(&change, &options, &args.after, json)
}

fn revoke(args: RevokeArgs) -> Result<(), Failure> {
    let (change, json) = change(args.change);
    let options = EpochOptions {
        release_key: args.release_key,
        leaves: Leaves::Key(args.key_id),
        ..epoch_options(&args.after)
    };
    begin(&change, &options, &args.after, json)
}

/// Begins an epoch, and brings it to nodes.
fn begin(
    change: &Change,
    options: &EpochOptions,
    after: &AfterArgs,
    json: bool,
) -> Result<(), Failure> {
    let (changed, doc) = charter::new_epoch(change, options)?;
    if changed.outcome == Outcome::Made && !after.to.is_empty() {
        let charter = charter::read_file(&change.dir)?;
        let publisher = match &options.publisher {
            Some(name) => charter.publisher_named(name)?,
            None => charter::open(&change.dir)?.1.publisher,
        };
        runtime()?.block_on(push::send_documents(&after.to, &charter, Some(publisher)))?;
    }
    if json {
        return print_json(&epoch_json(&changed, &doc, &change.dir));
    }
    report(&changed, &change.dir, json)?;
    if options.release_key.is_some() {
        out::chat("Push with the new release key by --key, or name it in publisher.toml.");
    }
    Ok(())
}

fn epoch_json(changed: &Changed, doc: &PublisherDoc, dir: &Path) -> Value {
    let mut all = json_of(changed);
    let own = json!({
        "schema": "stork.charter-new-epoch/v1",
        "document": doc.number, "epoch": doc.epoch, "survivor": doc.survivor,
        "compacts": doc.compacts,
        "bundle": dir.join(charter::BUNDLE_FILE),
    });
    if let (Some(all), Value::Object(own)) = (all.as_object_mut(), own) {
        all.extend(own);
    }
    all
}
