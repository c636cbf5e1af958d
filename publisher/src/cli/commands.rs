//! One function for each command: options in, library called, result printed.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;
use stork_wire::ids::PublicKey;
use stork_wire::manifest::{Manifest, Variant};

use super::run::Failure;
use super::{EpochArgs, InitArgs, InspectArgs, NewPassphrase, PackArgs, PushArgs, VerifyArgs};
use crate::charter::{self, Charter, EpochOptions, InitOptions};
use crate::keys::{self, Passphrase};
use crate::pack::{self, Base, Packed};
use crate::progress::Progress;
use crate::push::{self, BaseChoice, PushOptions};
use crate::source::{self, Package, ReadOptions, SourceError};
use crate::{inspect as look, out};

pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    out::result(&text.map_err(|e| Failure::new(e, "report this as a bug"))?);
    Ok(())
}

pub(super) fn print_lines(lines: &[String]) {
    for line in lines {
        out::result(line);
    }
}

impl NewPassphrase {
    fn choice(&self) -> Passphrase {
        match (&self.passphrase_file, self.no_passphrase) {
            (_, true) => Passphrase::None,
            (Some(file), false) => Passphrase::File(file.clone()),
            (None, false) => Passphrase::Ask,
        }
    }
}

pub(super) fn key_generate(
    path: &Path,
    comment: &str,
    passphrase: &NewPassphrase,
    json: bool,
) -> Result<(), Failure> {
    let secret = passphrase.choice().chosen(path)?;
    let key = keys::generate()?;
    keys::write_key(path, &key, comment, secret.as_ref().map(|s| s.as_str()))?;
    show_key(key.public(), comment, path, json)
}

pub(super) fn key_show(path: &Path, json: bool) -> Result<(), Failure> {
    let (key, comment) = keys::read_public(path)?;
    show_key(key, &comment, path, json)
}

fn show_key(key: PublicKey, comment: &str, path: &Path, json: bool) -> Result<(), Failure> {
    let fingerprint = keys::fingerprint(&key);
    if json {
        return print_json(&json!({
            "schema": "stork.key/v1",
            "file": path,
            "key_id": key.key_id(),
            "public_key": key,
            "fingerprint": fingerprint,
            "comment": comment,
        }));
    }
    out::result(&format!("file         {}", path.display()));
    out::result(&format!("key id       {}", key.key_id()));
    out::result(&format!("public key   {key}"));
    out::result(&format!("fingerprint  {fingerprint}"));
    Ok(())
}

pub(super) fn charter_init(args: InitArgs) -> Result<(), Failure> {
    let passphrase = args.passphrase.choice();
    let options = InitOptions {
        dir: args.dir,
        fleet: args.fleet,
        groups: args.group,
        publisher: args.publisher,
        packages: args.packages,
        homes: args.home,
        valid_days: args.valid_days,
        release_key: args.release_key,
        beacon_keys: args.beacon_key,
        passphrase,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let made = charter::init(&options, now)?;
    let (profile, dir) = (&made.profile, options.dir.display());
    if args.json {
        return print_json(&json!({
            "schema": "stork.charter-init/v1",
            "dir": options.dir,
            "fleet": profile.fleet,
            "publisher": profile.publisher,
            "groups": profile.groups,
            "bundle": options.dir.join(charter::BUNDLE_FILE),
        }));
    }
    out::result(&format!("fleet      {} {}", options.fleet, profile.fleet));
    out::result(&format!("publisher  {} {}", options.publisher, profile.publisher));
    for group in &profile.groups {
        out::result(&format!("group      {} {}", group.name, group.id));
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

pub(super) fn charter_new_epoch(args: EpochArgs) -> Result<(), Failure> {
    let after = args.after.filter(|_| !args.from_nothing).zip(args.hash);
    let options = EpochOptions {
        dir: args.charter,
        after,
        of_epoch: args.of_epoch,
        key: args.key,
        passphrase: args.passphrase_file.map_or(Passphrase::Ask, Passphrase::File),
        release_key: args.release_key,
        beacon_keys: args.beacon_key,
        valid_days: args.valid_days,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (charter, doc) = charter::new_epoch(&options, now)?;
    if !args.to.is_empty() {
        let publisher = charter::open(&options.dir)?.1.publisher;
        runtime()?.block_on(push::send_documents(&args.to, &charter, publisher))?;
    }
    if args.json {
        return print_json(&json!({
            "schema": "stork.charter-new-epoch/v1",
            "document": doc.number, "epoch": doc.epoch, "survivor": doc.survivor,
            "bundle": options.dir.join(charter::BUNDLE_FILE),
        }));
    }
    let place = doc.survivor.map_or_else(|| "nothing".to_owned(), |s| s.at.to_string());
    out::result(&format!("document {}: epoch {} begins after {place}", doc.number, doc.epoch));
    if args.to.is_empty() {
        out::chat("Every push brings it to the node that is pushed to, and that to the fleet.");
    }
    if options.release_key.is_some() {
        out::chat("Push with the new release key by --key, or name it in publisher.toml.");
    }
    Ok(())
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(e, "this host is out of threads or files"))
}

pub(super) fn charter_show(path: &Path, json: bool) -> Result<(), Failure> {
    let charter = charter::read_file(path)?;
    if json {
        return print_json(&json!({
            "schema": "stork.charter/v1",
            "fleet": charter.fleet,
            "root": charter.root,
            "groups": charter.groups,
            "publishers": charter.publishers,
            "documents": charter.items.len(),
        }));
    }
    print_lines(&charter_lines(&charter));
    Ok(())
}

fn charter_lines(charter: &Charter) -> Vec<String> {
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
    }
    lines
}

/// Reads an older package as the base: its name does not matter to its tree.
fn read_base(path: &Path, options: &ReadOptions) -> Result<Package, SourceError> {
    let unnamed = ReadOptions { name: None, version: None, arch: None, ..options.clone() };
    match source::read(path, &unnamed) {
        Err(SourceError::Missing { .. }) => source::read(path, options),
        other => other,
    }
}

pub(super) fn pack(args: &PackArgs) -> Result<(), Failure> {
    let options = args.read.options();
    let package = source::read(&args.file, &options)?;
    let base = args.base.as_ref().map(|path| read_base(path, &options)).transpose()?;
    let progress = Progress::for_stderr();
    let old = base.as_ref().map(|b| Base { tree: &b.tree, contents: &b.contents });
    let packed = pack::pack(&package, old, &progress);
    progress.done();
    let packed = packed?;
    packed.write_to(&args.out).map_err(pack::PackError::Io)?;
    for note in &package.notes {
        out::chat(&format!("note: {note}"));
    }
    show_packed(&package, &packed, args)
}

fn show_packed(package: &Package, packed: &Packed, args: &PackArgs) -> Result<(), Failure> {
    let packing = &packed.manifest.packing;
    let delta = packing.delta.as_ref().map(|_| packing.bytes(Variant::Delta));
    let full = packing.bytes(Variant::Full);
    let pieces = packing.piece_count(Variant::Full);
    let manifest = Manifest::reference(&packed.bytes);
    let (unpacked, files) = (package.unpacked_bytes(), package.tree.entries.len());
    if args.json {
        return print_json(&json!({
            "schema": "stork.pack/v1",
            "package": package.name.as_str(),
            "version": package.version.as_str(),
            "arch": package.arch.as_str(),
            "tree": package.tree.id(),
            "manifest": manifest.id,
            "files": files,
            "unpacked_bytes": unpacked,
            "full_bytes": full,
            "packs": packing.packs.len(),
            "pieces": pieces,
            "piece_len": packing.piece_len,
            "delta_bytes": delta,
            "delta_tried_bytes": packed.delta_tried,
            "scripts_not_run": package.scripts(),
            "notes": package.notes,
            "out": args.out,
        }));
    }
    let (name, version, arch) = (&package.name, &package.version, &package.arch);
    out::result(&format!("packed {name} {version} ({arch})"));
    out::result(&format!("  tree      {}", package.tree.id()));
    out::result(&format!("  manifest  {}", manifest.id));
    out::result(&format!("  content   {files} entries, {}", out::bytes(unpacked)));
    let len = out::bytes(packing.piece_len.into());
    let packs = packing.packs.len();
    let full = out::bytes(full);
    out::result(&format!("  packs     {full} in {packs} packs, {pieces} pieces of {len}"));
    out::result(&match (delta, packed.delta_tried) {
        (Some(bytes), _) => format!("  delta     {}", out::bytes(bytes)),
        (None, Some(b)) => format!("  delta     none: {} would save too little", out::bytes(b)),
        (None, None) => "  delta     none".into(),
    });
    let scripts = package.scripts();
    if !scripts.is_empty() {
        out::result(&format!("  scripts   a tree view will not run: {}", scripts.join(", ")));
    }
    Ok(())
}

pub(super) fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let found = look::inspect(&args.path, &args.read.options())?;
    if args.json {
        return print_json(&found);
    }
    print_lines(&found.lines());
    Ok(())
}

pub(super) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let done = look::verify(&args.dir)?;
    if args.json {
        return print_json(&done);
    }
    let (packs, contents) = (done.packs, done.contents);
    let bytes = out::bytes(done.unpacked_bytes);
    out::result(&format!("ok: {packs} packs, {contents} contents, {bytes}, tree {}", done.tree));
    if done.delta_packs > 0 {
        out::result(&format!("ok: the hashes of {} delta packs", done.delta_packs));
    }
    Ok(())
}

pub(super) fn push(args: PushArgs) -> Result<(), Failure> {
    let options = PushOptions {
        read: args.read.options(),
        package: args.file,
        charter: args.charter,
        key: args.key,
        passphrase: args.passphrase_file.map_or(Passphrase::Ask, Passphrase::File),
        to: args.to,
        copies: args.copies.map(usize::from),
        origin: args.origin,
        origin_credentials: args.origin_credentials,
        groups: args.group,
        urgency: args.urgency.into(),
        expires_days: args.expires_days,
        base: match args.base.as_str() {
            "auto" => BaseChoice::Auto,
            "none" => BaseChoice::None,
            file => BaseChoice::File(PathBuf::from(file)),
        },
        allow_lower: args.allow_lower,
        dry_run: args.dry_run,
    };
    let report = runtime()?.block_on(push::push(&options, &Progress::for_stderr()))?;
    if args.json {
        return print_json(&report);
    }
    print_lines(&report.lines());
    Ok(())
}
