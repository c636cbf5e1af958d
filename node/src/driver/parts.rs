//! What the driver is made of, and what comes in.

use std::sync::Arc;

use stork_origin::Origin;
use stork_wire::sign::{Envelope, SecretKey};
use tokio::sync::{mpsc, watch};

use super::{Clock, ControlCall, PushCall, Tap};
use crate::catalog::Catalog;
use crate::config::NodeConfig;
use crate::net::{BulkIn, Net, NetEvent};
use crate::store::Store;
use crate::trust::{Floor, Trust};
use crate::view::Views;

/// What the driver is made of; `run.rs` puts it together.
#[derive(Debug)]
pub struct Parts {
    /// The settings.
    pub config: NodeConfig,
    /// The node's key.
    pub key: Arc<SecretKey>,
    /// Its certificate.
    pub cert: Envelope,
    /// The admission key, on nodes that admit others.
    pub admission: Option<SecretKey>,
    /// The beacon key, on nodes that make beacons.
    pub beacon_key: Option<SecretKey>,
    /// The time that is known to be past.
    pub floor: Floor,
    /// The store.
    pub store: Arc<Store>,
    /// The views.
    pub views: Arc<Views>,
    /// The trust rules, with everything that is committed.
    pub trust: Trust,
    /// The catalog, likewise.
    pub catalog: Catalog,
    /// The network.
    pub net: Arc<Net>,
    /// The clock.
    pub clock: Clock,
    /// For the machines' randomness.
    pub seed: u64,
    /// Rises with each start.
    pub incarnation: u64,
    /// The same of the run before, as far as the state knows; 0: it knows of none.
    pub incarnation_before: u64,
    /// Who else hears what is accepted.
    pub tap: Tap,
    /// Where content is looked for last.
    pub origin: Option<Arc<Origin>>,
}

/// Everything that comes in.
#[derive(Debug)]
pub struct Inbox {
    /// From the network.
    pub net: mpsc::Receiver<NetEvent>,
    /// Content.
    pub bulk: mpsc::Receiver<BulkIn>,
    /// From the control socket.
    pub control: mpsc::Receiver<ControlCall>,
    /// From publishers.
    pub push: mpsc::Receiver<PushCall>,
    /// True when it is time to stop.
    pub stop: watch::Receiver<bool>,
}
