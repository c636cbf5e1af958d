//! Capabilities, `no_new_privs` and core dumps.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use super::SandboxError;

/// What root needs to give files of packages their owners, modes and attributes.
pub(super) const OWNERS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// What it takes to make devices, which are the way to every disk for whoever may open them.
pub(super) const DEVICES: CapabilitySet = CapabilitySet::MKNOD;

/// What mounts need, and to see which processes still look at an old one.
pub(super) const MOUNTS: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_PTRACE);

/// The capabilities of this process; none where that cannot be found out.
pub(super) fn effective() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// Their names, as capabilities(7) has them.
pub(super) fn names(set: CapabilitySet) -> Vec<&'static str> {
    set.iter_names().map(|(name, _)| name).collect()
}

/// No memory of this process ends up in a file, and nobody but root looks into it: it has keys.
pub(super) fn no_dumps() -> Result<(), SandboxError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)
        .map_err(|e| SandboxError::new("core dumps cannot be switched off", e))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| SandboxError::new("its memory cannot be closed", e))
}

/// Keeps what the work needs of what there is, for ever; no program can bring more.
pub(super) fn keep(needed: CapabilitySet) -> Result<Vec<&'static str>, SandboxError> {
    let fail = |e| SandboxError::new("capabilities cannot be dropped", e);
    let now = capabilities(None).map_err(fail)?;
    let kept = now.permitted & needed;
    for other in CapabilitySet::all().difference(kept).iter() {
        // Taking from the bounding set is a right of its own, which the unit does not give: without
        // it the set stays, and gives nothing to a process that runs no other program.
        if remove_capability_from_bounding_set(other).is_err() {
            break;
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: none };
    // The unit may refuse the call itself to a process that has nothing to drop.
    if now != sets {
        set_capabilities(None, sets).map_err(fail)?;
    }
    set_no_new_privs(true).map_err(|e| SandboxError::new("no_new_privs cannot be set", e))?;
    Ok(names(kept))
}
