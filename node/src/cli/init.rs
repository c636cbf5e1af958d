//! `stork-node init`: the first host of a fleet certifies itself with the admission key.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use stork_publisher::bundle::read_bundle;
use stork_publisher::out::file_exit;
use stork_wire::text::Label;

use super::admission::read_key;
use super::node::report;
use super::out::{causes, failure};
use crate::config::NodeConfig;
use crate::{join, run};

/// Charter, admission key, and the file with its passphrase.
pub(super) type Files = (PathBuf, PathBuf, Option<PathBuf>);

pub(super) fn init(config: &NodeConfig, files: &Files, name: Label, site: Label) -> ExitCode {
    let (charter, key_file, passphrase) = files;
    let charter = match read_charter(charter) {
        Ok(items) => items,
        Err(code) => return code,
    };
    let key = match read_key(key_file, passphrase.clone()) {
        Ok(key) => key,
        Err(code) => return code,
    };
    let store = match run::open_store(config) {
        Ok(store) => store,
        Err(e) => return failure(&e.to_string(), &causes(&e), e.help(), e.exit_code()),
    };
    report(join::found(&store, &config.state, &charter, &key, name, site))
}

fn read_charter(path: &Path) -> Result<Vec<stork_wire::item::Item>, ExitCode> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|e| {
        let help = "give the charter.bundle that `stork-publish charter init` made, where \
                    this user may read it";
        failure(&format!("{shown}: {e}"), &[], help, file_exit(&e))
    })?;
    read_bundle(&bytes).map_err(|e| {
        failure(&format!("{shown}: {e}"), &causes(&e), "is this a charter.bundle, and whole?", 78)
    })
}
