//! For a program that holds nodes inside of itself, as benchmarks do: it hears of what the rules
//! accepted, and brings entries as a publisher that was let in. A daemon has no tap.

use std::sync::{Arc, OnceLock};

use stork_wire::item::Item;
use tokio::sync::mpsc;

use super::PushCall;

type Heard = Arc<dyn Fn(&Item) + Send + Sync>;

/// What goes out of and into one node beside its sockets.
#[derive(Clone, Default)]
pub struct Tap {
    heard: Option<Heard>,
    calls: Arc<OnceLock<mpsc::Sender<PushCall>>>,
}

impl core::fmt::Debug for Tap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tap").field("heard", &self.heard.is_some()).finish_non_exhaustive()
    }
}

impl Tap {
    /// A tap that calls this for each accepted item, in the driver: it must not wait.
    #[must_use]
    pub fn new(heard: impl Fn(&Item) + Send + Sync + 'static) -> Self {
        Self { heard: Some(Arc::new(heard)), calls: Arc::default() }
    }

    /// The way for publishers' calls, once the node runs.
    #[must_use]
    pub fn calls(&self) -> Option<&mpsc::Sender<PushCall>> {
        self.calls.get()
    }

    /// The node runs, and takes calls here.
    pub(crate) fn open(&self, calls: &mpsc::Sender<PushCall>) {
        // A node that is started again with the same tap keeps the way that is known.
        self.calls.set(calls.clone()).unwrap_or_default();
    }

    /// The rules accepted an item.
    pub(super) fn accepted(&self, item: &Item) {
        if let Some(heard) = &self.heard {
            heard(item);
        }
    }
}
