//! One function for each command: options in, library called, result printed.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use stork_wire::ids::PublicKey;
use stork_wire::manifest::{Manifest, Variant};

use super::run::Failure;
use super::{InspectArgs, NewPassphrase, PackArgs, PushArgs, VerifyArgs};
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
    pub(super) fn choice(&self) -> Passphrase {
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

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(e, "this host is out of threads or files"))
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
        charter: args.who.charter,
        key: args.who.key,
        passphrase: args.who.passphrase_file.map_or(Passphrase::Ask, Passphrase::File),
        to: args.who.to,
        copies: args.copies.map(usize::from),
        origin: args.origin,
        origin_credentials: args.origin_credentials,
        groups: args.group,
        bundle: args.bundle.map(|name| (name, args.with)),
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
