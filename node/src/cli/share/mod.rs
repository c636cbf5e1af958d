//! `stork vm share ROOT`: a VM that was installed by other means gives back the room that equal
//! files of the store take anyhow.
//!
//! Files with the bytes of an object are told to share its blocks (`FIDEDUPERANGE`): the kernel
//! compares both while nobody can write to either, so that neither a race nor a lie of the guest
//! puts bytes into a file. Only blocks are shared. Owner, mode, times, attributes and links of
//! the VM's file stay its own, so all of them may differ, and whoever writes gets a copy. Hard
//! links would share the inode as well, which root of the VM could then write to for all others,
//! and would have to replace files that a running VM may be writing: they are not made.

mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustix::io::Errno;
use serde_json::{Value, json};
use stork_publisher::progress::Progress;
use stork_wire::ids::ContentId;

use super::out::{causes, failure, result};
use crate::control::{Client, ClientError};
use crate::view::{Shared, dedupe};
use walk::{Seen, Walked};

/// Sizes that the daemon is asked about at once.
const SIZES_AT_ONCE: usize = 4_096;
/// Bytes that are joined by one call.
const STEP: u64 = 16 << 20;

/// `stork vm share`.
#[derive(Debug, Args)]
pub(super) struct ShareArgs {
    /// The VM's folder, on the same disk as the store.
    root: PathBuf,
    /// Only say what could be shared.
    #[arg(long)]
    dry_run: bool,
}

/// What was found and done.
#[derive(Debug, Default)]
struct Report {
    files: u64,
    bytes: u64,
    equal_files: u64,
    equal_bytes: u64,
    shared_files: u64,
    shared_bytes: u64,
    same_files: u64,
    changed_files: u64,
    passed_over: u64,
    freed_bytes: u64,
    /// Why nothing can be shared here.
    cannot: Option<String>,
}

/// Objects by size: content and file.
type Objects = BTreeMap<u64, BTreeMap<ContentId, PathBuf>>;

async fn find(client: &Client, files: &[Seen]) -> Result<Objects, ClientError> {
    let sizes: BTreeSet<u64> = files.iter().map(|f| f.size).collect();
    let sizes: Vec<u64> = sizes.into_iter().collect();
    let mut out = Objects::new();
    for some in sizes.chunks(SIZES_AT_ONCE) {
        let found = client.post("/v1/store/find", &json!({ "sizes": some })).await?;
        let objects = found.get("objects").and_then(Value::as_array);
        for object in objects.into_iter().flatten() {
            let text = |key: &str| object.get(key).and_then(Value::as_str);
            let size = object.get("size").and_then(Value::as_u64);
            let content = text("content").and_then(|c| c.parse().ok());
            let Some(((size, content), path)) = size.zip(content).zip(text("path")) else {
                continue;
            };
            out.entry(size).or_default().insert(content, path.into());
        }
    }
    Ok(out)
}

/// Hashes a file, and no more of it than it had when it was seen.
fn hash(file: &File, size: u64) -> io::Result<ContentId> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(size.saturating_add(1)))?;
    Ok(ContentId(*hasher.finalize().as_bytes()))
}

/// Errors that mean that this disk, or these two places, cannot share.
fn cannot(e: &io::Error) -> Option<String> {
    let why = match Errno::from_raw_os_error(e.raw_os_error()?) {
        Errno::XDEV => "it is on another disk than the store",
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS => {
            "its file system cannot share blocks (xfs and btrfs can)"
        }
        Errno::PERM | Errno::ACCESS => "this user may not",
        _ => return None,
    };
    Some(why.to_owned())
}

/// Joins a file with an object; how many bytes are shared then.
fn join(object: &File, file: &File, size: u64) -> io::Result<Shared> {
    let mut at = 0;
    while at < size {
        match dedupe(object.as_fd(), file.as_fd(), at, STEP.min(size - at))? {
            Shared::Differ | Shared::Bytes(0) => return Ok(Shared::Differ),
            Shared::Bytes(n) => at += n,
        }
    }
    Ok(Shared::Bytes(at))
}

impl Report {
    /// Looks at one file, and lets it share if it may.
    fn take(&mut self, file: &File, seen: &Seen, objects: &Objects, dry_run: bool) {
        let Some(of_size) = objects.get(&seen.size) else { return };
        let Ok(content) = hash(file, seen.size) else {
            self.passed_over += 1;
            return;
        };
        let Some(path) = of_size.get(&content) else { return };
        self.equal_files += 1;
        self.equal_bytes += seen.size;
        if dry_run || self.cannot.is_some() {
            return;
        }
        let joined = File::open(path).and_then(|object| {
            let meta = object.metadata()?;
            if (meta.dev(), meta.ino()) == seen.id {
                return Ok(None);
            }
            join(&object, file, seen.size).map(Some)
        });
        match joined {
            Ok(None) => self.same_files += 1,
            Ok(Some(Shared::Bytes(n))) => {
                self.shared_files += 1;
                self.shared_bytes += n;
            }
            Ok(Some(Shared::Differ)) => self.changed_files += 1,
            Err(e) => match cannot(&e) {
                Some(why) => self.cannot = Some(why),
                // Swept meanwhile, or not to be read: the next run may have more luck.
                None => self.passed_over += 1,
            },
        }
    }

    fn json(&self, root: &Path, dry_run: bool) -> Value {
        json!({
            "schema": "stork.vm-share/v1", "root": root, "dry_run": dry_run,
            "files": self.files, "bytes": self.bytes,
            "equal_files": self.equal_files, "equal_bytes": self.equal_bytes,
            "shared_files": self.shared_files, "shared_bytes": self.shared_bytes,
            "same_files": self.same_files, "changed_files": self.changed_files,
            "passed_over": self.passed_over, "freed_bytes": self.freed_bytes,
            "cannot": self.cannot,
        })
    }

    fn text(&self, dry_run: bool) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let found = format!(
            "{} of {} files are equal to files of the store: {} of {} MiB",
            self.equal_files,
            self.files,
            mib(self.equal_bytes),
            mib(self.bytes)
        );
        let done = match &self.cannot {
            Some(why) => format!("nothing can be shared: {why}"),
            None if dry_run => "nothing was changed: --dry-run".to_owned(),
            None => format!(
                "{} files share the disk with the store now, {} MiB; {} MiB are free again",
                self.shared_files,
                mib(self.shared_bytes),
                mib(self.freed_bytes)
            ),
        };
        let left = self.changed_files + self.passed_over;
        let left =
            if left > 0 { format!("\n{left} files were passed over") } else { String::new() };
        format!("{found}\n{done}{left}")
    }
}

fn free(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |v| v.f_bavail.saturating_mul(v.f_frsize))
}

async fn share(client: &Client, args: &ShareArgs, bar: &Progress) -> Result<Report, Failed> {
    let top = walk::open_top(&args.root).map_err(Failed::Root)?;
    let walked = Walked::of(&top).map_err(Failed::Root)?;
    let objects = find(client, &walked.files).await.map_err(Failed::Client)?;
    let before = free(&args.root);
    let mut report = Report { passed_over: walked.passed_over, ..Report::default() };
    bar.phase("comparing", walked.files.iter().map(|f| f.size).sum());
    for seen in &walked.files {
        report.files += 1;
        report.bytes += seen.size;
        if objects.contains_key(&seen.size) {
            match walk::open_seen(&top, seen) {
                Ok(file) => report.take(&file, seen, &objects, args.dry_run),
                Err(_) => report.passed_over += 1,
            }
        }
        bar.advance(seen.size);
    }
    let now = if report.shared_files > 0 { free(&args.root) } else { before };
    report.freed_bytes = now.saturating_sub(before);
    Ok(report)
}

enum Failed {
    Root(io::Error),
    Client(ClientError),
}

/// Runs the command.
pub(super) async fn run(client: &Client, args: &ShareArgs, json: bool) -> ExitCode {
    let shown = !json && io::stderr().is_terminal();
    let bar = if shown { Progress::for_stderr() } else { Progress::Silent };
    let outcome = share(client, args, &bar).await;
    bar.done();
    match outcome {
        Ok(report) => {
            let text = report.text(args.dry_run);
            result(&if json { report.json(&args.root, args.dry_run).to_string() } else { text });
            // Something could be shared, and was not.
            ExitCode::from(if report.cannot.is_some() { 3 } else { 0 })
        }
        Err(Failed::Client(e)) => failure(&e.to_string(), &causes(&e), &e.help(), e.exit_code()),
        Err(Failed::Root(e)) => {
            let what = format!("could not walk `{}`: {e}", args.root.display());
            failure(&what, &[], "name the folder that holds the VM's `/`, and run this as root", 1)
        }
    }
}
