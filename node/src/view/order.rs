//! What the daemon may order of the view helper, and what it answers: small, typed and bounded.
//!
//! An order names a VM, and what is to be seen or done at its view. Where that is, how it is shown
//! and whose ids it has, the helper reads in the VM's file by itself. A set is named by its id, and
//! is looked for in the helper's own store.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stork_wire::codec::List;
use stork_wire::ids::ManifestId;
use stork_wire::text::Label;

use super::backend::Seen;
use super::ground::Secret;
use super::holders::{Asked, Holders};
use super::private::Carried;
use super::{Backend, Generation, GenerationLabel, GenerationState};
use crate::store::SetId;

/// Bytes of an order at the most.
pub const ORDER_LEN_MAX: usize = 160 * 1024;
/// Bytes of an answer at the most; lists are cut to fit.
pub const ANSWER_LEN_MAX: usize = 160 * 1024;
/// Packages of one generation and the one before it, for which a layer is carried along.
pub(super) const MANIFESTS_MAX: usize = 4_096;
/// Generations that a VM may keep where a helper is asked.
pub(super) const NUMBERS_MAX: usize = 8_192;

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Which VM.
    pub vm: Label,
    /// What the daemon read in its file. Where the file says something else by now, nothing is
    /// done.
    pub(super) backend: Backend,
    pub(super) target: PathBuf,
    /// What the names of our mounts are made from.
    pub(super) secret: Secret,
    /// What is ordered.
    pub(super) what: What,
}

/// A generation, as far as a backend looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shows {
    pub(super) number: u64,
    pub(super) set: SetId,
    pub(super) from: Option<u64>,
}

impl Shows {
    pub(super) fn of(generation: &Generation) -> Self {
        Self { number: generation.number, set: generation.set, from: generation.from }
    }

    pub(super) fn generation(self, vm: &Label) -> Generation {
        Generation {
            vm: vm.clone(),
            number: self.number,
            set: self.set,
            label: GenerationLabel::default(),
            created: 0,
            state: GenerationState::Pending,
            from: self.from,
        }
    }
}

/// What is ordered. The functions of [`super::backend::Show`] say what each means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    Check,
    Shown,
    Switch {
        next: Shows,
        from: Option<Shows>,
        /// The set holds setuid files, or devices; believed only where the VM's file grants them.
        needs: (bool, bool),
        manifests: List<ManifestId, MANIFESTS_MAX>,
    },
    Mend(Shows),
    Tidy(List<u64, NUMBERS_MAX>),
    Hide,
    InUse(Shows),
    Drop(u64),
    Carried(u64),
    /// Write the number beside the view.
    Number(u64),
    Holders(Asked),
}

impl What {
    /// Seconds after which the daemon waits no longer. A switch may copy what a VM changed.
    pub(super) const fn patience_s(&self) -> u64 {
        match self {
            Self::Switch { .. } => 900,
            _ => 120,
        }
    }
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It was done.
    Done,
    /// What the target shows.
    Shown(Option<Seen>),
    /// Yes or no.
    Is(bool),
    /// What became of the VM's private changes.
    Carried(Option<Carried>),
    /// Who uses what was shown before.
    Holders(Holders),
    /// It was not done: why, and what to do.
    Failed(String, String),
    /// The helper must start anew before it can: it makes maps of ids only then.
    Again,
}

impl Answer {
    /// Cuts lists, so that the answer fits whatever a guest called its files.
    pub(super) fn cut(&mut self, listed: usize, text: usize) {
        let short = |s: &mut String| {
            if s.len() > text {
                *s = s.chars().take(text / 4).collect::<String>() + "...";
            }
        };
        match self {
            Self::Carried(Some(carried)) => {
                carried.shadowed.truncate(listed);
                carried.conffiles.truncate(listed);
                carried.late.truncate(listed);
                let paths = carried.shadowed.iter_mut().map(|s| &mut s.path);
                paths.chain(&mut carried.conffiles).chain(&mut carried.late).for_each(short);
            }
            Self::Holders(holders) => {
                let over = holders.processes.len().saturating_sub(listed);
                holders.processes.truncate(listed);
                holders.more += over as u64;
                for holder in &mut holders.processes {
                    short(&mut holder.path);
                    short(&mut holder.program);
                }
            }
            Self::Failed(why, help) => [why, help].into_iter().for_each(short),
            _ => {}
        }
    }
}
