//! Examples in `deploy/`: read by the same code that reads them on a host.

use stork_node::catalog::VmFile;
use stork_node::config::NodeConfig;

use super::documents::blocks;
use super::source::{Repository, root};

const NODE: &str = "deploy/examples/node.toml";
const VMS: &str = "deploy/examples/vms.d/";

pub(crate) fn check(repository: &Repository) -> Vec<String> {
    let mut faults = Vec::new();
    if let Err(e) = NodeConfig::read(&root().join(NODE), true) {
        faults.push(format!("  {e}\n  help: {}", e.help));
    }
    let files: Vec<_> = repository.all().filter(|f| f.path.starts_with(VMS)).collect();
    if files.is_empty() {
        faults.push(format!("  {VMS}: there is no example of a VM file."));
    }
    for file in files {
        let stem = file.path.rsplit('/').next().unwrap_or("").trim_end_matches(".toml");
        if let Err(e) = VmFile::parse(stem, &file.text) {
            faults.push(format!("  {}: {e}\n  help: {}", file.path, e.help));
        }
    }
    for page in repository.all().filter(|f| f.path.ends_with(".md")) {
        for (word, block) in blocks(&page.text) {
            if word == "toml" && block.contains("[view]") {
                check_block(&page.path, &block, &mut faults);
            }
        }
    }
    faults
}

/// A whole VM file inside of a page.
fn check_block(page: &str, block: &str, faults: &mut Vec<String>) {
    if let Err(e) = VmFile::parse("example", block) {
        faults.push(format!("  {page}: a VM file in it is refused: {e}\n  help: {}", e.help));
    }
}

/// A key that is spelt wrongly is found.
#[test]
fn wrong_examples_are_found() {
    let mut faults = Vec::new();
    let good = "[vm]\ngroups = [\"web\"]\n[view]\nbackend = \"tree\"\ntarget = \"/srv/x\"\n";
    check_block("a.md", good, &mut faults);
    assert!(faults.is_empty());
    check_block("a.md", &good.replace("target", "traget"), &mut faults);
    assert_eq!(faults.len(), 1);
}
