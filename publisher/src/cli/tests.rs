//! The command line from arguments to exit codes and files.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use tempfile::TempDir;

use super::{Cli, run_cli};

fn run(dir: &Path, line: &str) -> ExitCode {
    let words = line.split_whitespace().map(|w| match w.strip_prefix('@') {
        Some(name) => dir.join(name).into_os_string(),
        None => OsString::from(w),
    });
    run_cli(std::iter::once(OsString::from("stork-publish")).chain(words))
}

/// Clap's own checks of the definitions.
#[test]
fn definitions_are_sound() {
    Cli::command().debug_assert();
}

/// A maintainer's first minutes: keys, charter, pack, verify, inspect; and each mistake has its
/// own exit code.
#[test]
fn first_minutes() {
    let dir = TempDir::new().unwrap();
    let ok = |line: &str| assert_eq!(run(dir.path(), line), ExitCode::SUCCESS, "{line}");
    let fails = |line: &str, code: u8| assert_eq!(run(dir.path(), line), code.into(), "{line}");
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(dir.path().join("tree/file"), vec![7; 100_000]).unwrap();

    ok("key generate --no-passphrase --out @k");
    fails("key generate --no-passphrase --out @k", 1);
    ok("key show @k.pub --json");
    fails("key show @tree/file", 78);
    let init = "charter init --dir @c --fleet acme --group web --publisher ops --no-passphrase";
    ok(&format!("{init} --release-key @k.pub --beacon-key @k.pub --packages a* b --json"));
    fails(init, 1);
    ok("charter show @c");
    ok("charter show @c/charter.bundle --json");
    fails("charter show @nowhere", 5);

    fails("pack @tree --out @p", 2);
    for line in [
        "pack @nothing --out @p --name t --version 1 --arch all",
        "pack @nothing.deb --out @p",
        "pack @tree --base @nothing --out @p --name t --version 1 --arch all",
        "inspect @nothing",
        "verify @nothing",
        "verify @tree/file",
        "key show @nothing",
        "key generate --out @k2 --passphrase-file @nothing",
    ] {
        fails(line, 5);
    }
    let to = format!("--charter @c --to {}@127.0.0.1:1", "07".repeat(32));
    fails(&format!("push @nothing {to} --key @k"), 5);
    fails(&format!("push @tree {to} --key @nothing"), 5);
    ok("pack @tree --out @p --name t --version 1 --arch all --json");
    ok("inspect @p --json");
    ok("inspect @tree");
    ok("inspect @p/manifest");
    ok("verify @p --json");
    fails("verify @tree", 5);
    let pack = fs::read_dir(dir.path().join("p/packs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[10] ^= 1;
    fs::write(&pack, bytes).unwrap();
    fails("verify @p", 4);
    fs::remove_file(&pack).unwrap();
    fails("verify @p", 5);

    fails("push @tree --charter @c --to nonsense", 2);
    let push = "push @tree --charter @c --name a --version 1 --arch all";
    fails(&format!("{push} --to 127.0.0.1:1"), 2);
    ok("completion bash");
    ok("man");
    ok("man --out @man");
    let page = fs::read_to_string(dir.path().join("man/stork-publish-push.1")).unwrap();
    assert!(page.contains("allow"), "{page}");
    ok("--help");
    fails("frobnicate", 2);
}
