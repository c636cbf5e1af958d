//! The programs under test, from the target folder in which the test itself was built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Builds the programs where cargo runs the test, so that no old ones are tested. Without cargo,
/// what is there is used.
fn build(folder: &Path) {
    let Some(cargo) = std::env::var_os("CARGO") else { return };
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--offline", "-p", "stork-node", "-p", "stork-publisher"]);
    if folder.file_name().is_some_and(|n| n == "release") {
        command.arg("--release");
    }
    // What cargo tells a test about its package is no setting: build scripts that watch it would
    // run again here, and once more in the next test, with all that depends on them.
    let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    for (name, _) in std::env::vars_os() {
        if of_package.iter().any(|p| name.as_encoded_bytes().starts_with(p.as_bytes())) {
            command.env_remove(name);
        }
    }
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let status = command.status().unwrap();
    assert!(status.success(), "the programs under test cannot be built: {status}");
}

/// The path of one of `stork-node`, `stork` and `stork-publish`.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        // A test lies in a folder of its own there, a benchmark does not.
        let beside = test.parent().unwrap();
        let of_test = beside.file_name().is_some_and(|n| n == "deps");
        let folder = if of_test { beside.parent().unwrap() } else { beside }.to_owned();
        build(&folder);
        folder
    });
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built: cargo build -p stork-node", path.display());
    path
}
