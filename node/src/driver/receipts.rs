//! Receipts: what a VM was switched to, when, why, and how its hook ended. The newest stand in
//! `vms/<vm>/receipts.json` of the store, for people and for what collects them.

use serde::{Deserialize, Serialize};
use stork_wire::text::Label;

use crate::catalog::Backend;
use crate::store::{SetId, Store, StoreError};

/// Receipts of one VM that are kept, the newest.
const KEPT: usize = 50;
const FILE: &str = "receipts.json";

/// Why a VM was switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum By {
    /// Something newer was there, and nothing said when.
    Release,
    /// The same, in a window or after the time that the VM's file names.
    Window,
    /// `stork vm switch --now`.
    Now,
    /// Something that it showed was withdrawn.
    Withdrawal,
    /// `stork rollback`.
    Rollback,
    /// The hook of the generation before failed.
    FailedHook,
}

/// One switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub(super) generation: u64,
    /// The generation that it went on from.
    pub(super) from: Option<u64>,
    pub(super) set: SetId,
    pub(super) backend: Backend,
    /// Seconds since 1970.
    pub(super) at: u64,
    pub(super) by: By,
    pub(super) releases: Vec<String>,
    /// What the check said; none where there is none.
    pub(super) check: Option<String>,
    /// What the hook said; none where there is none.
    pub(super) hook: Option<String>,
    pub(super) switch_ms: u64,
    /// Private changes that were set aside.
    pub(super) shadowed: u64,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Receipts {
    schema: String,
    vm: Label,
    receipts: Vec<Receipt>,
}

/// The receipts of a VM, the oldest first. A file that can't be read is none.
pub(super) fn all(store: &Store, vm: &Label) -> Vec<Receipt> {
    let Ok(dir) = store.vm_dir(vm) else { return Vec::new() };
    let bytes = std::fs::read(dir.join(FILE)).unwrap_or_default();
    serde_json::from_slice::<Receipts>(&bytes).map(|r| r.receipts).unwrap_or_default()
}

/// Adds one, durably.
pub(super) fn add(store: &Store, vm: &Label, receipt: &Receipt) -> Result<(), StoreError> {
    let mut receipts = all(store, vm);
    receipts.push(receipt.clone());
    let spare = receipts.len().saturating_sub(KEPT);
    drop(receipts.drain(..spare));
    let file = Receipts { schema: "stork.receipts/v1".to_owned(), vm: vm.clone(), receipts };
    let bytes = serde_json::to_vec_pretty(&file).unwrap_or_default();
    store.write_file(&store.vm_dir(vm)?, FILE, &bytes)
}
