//! Start-up in the order in which data flows, and shutdown in reverse: the table of contents.
//!
//! Channels (all bounded): net → driver 1 024 events; bulk → driver 64 pieces; workers → driver 1
//! 024 outcomes; control → driver 64 calls; publishers → driver 64 calls; net → push 16
//! connections. The driver sends only into outboxes, the journal's queue and the workers, none of
//! which it waits for, so the channels form no cycle.

use std::path::Path;
use std::sync::Arc;

use stork_origin::{Origin, OriginError, Purpose};
use stork_wire::codec::decode;
use stork_wire::ids::FleetId;
use stork_wire::limits::{CLOCK_SKEW_S, RECORD_LEN_MAX};
use stork_wire::sign::{Envelope, SecretKey};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::config::NodeConfig;
use crate::control::{self, SocketError};
use crate::driver::{
    Clock, ControlCall, Driver, FLOOR_ROW, Inbox, Parts, RESTART_STEP, Tap, load_rules,
};
use crate::identity::{self, IdentityError};
use crate::net::{BindError, Net};
use crate::store::{Store, StoreError, StoreOptions};
use crate::trust::{AdmissionError, Floor, Trust};
use crate::view::Views;
use crate::{join, late, push};

/// Why the node does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No fleet.
    #[error("{0}: this host has not joined a fleet")]
    NotJoined(std::path::PathBuf),
    /// The address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The certificate has run out, or is not good for another reason.
    #[error("this host's certificate does not admit it")]
    Certificate {
        /// Why.
        #[source]
        source: AdmissionError,
        /// This host admits others.
        admits: bool,
    },
    /// The origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Something else that start-up needs.
    #[error("{0}")]
    Other(String),
}

impl RunError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Store(e) => e.help().to_owned(),
            Self::Identity(e) => e.help().to_owned(),
            Self::NotJoined(_) => {
                "`stork-node join TOKEN`, with a token from `stork token create` on a host of the \
                 fleet; or `stork-node init` on its first host"
                    .to_owned()
            }
            Self::Bind(_) => {
                "another process may have the port: `ss -ulpn`; choose another with --listen".into()
            }
            Self::Socket(e) => e.help().to_owned(),
            Self::Certificate { source: AdmissionError::OtherKey(_), .. } => {
                "`stork-node rekey` with a new token from `stork token create`".to_owned()
            }
            Self::Certificate { admits: true, .. } => {
                "check the clock; otherwise the same `stork-node init` as at first, then start it: \
                 key, content and views stay"
                    .to_owned()
            }
            Self::Certificate { .. } => {
                "check the clock, and start a host that admits: it renews this one. Otherwise \
                 `stork-node join` with a new token from `stork token create`, then start it: key, \
                 content and views stay"
                    .to_owned()
            }
            Self::Origin(e) => e.help(),
            Self::Other(_) => "join again with a new token, or restore the state folder".to_owned(),
        }
    }

    /// The exit code (design §11).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotJoined(_) | Self::Bind(_) => 78,
            Self::Socket(SocketError::Io { .. }) => 77,
            Self::Socket(SocketError::InUse(_)) => 75,
            Self::Store(e) => e.exit_code(),
            Self::Identity(e) => e.exit_code(),
            Self::Certificate { .. } => 78,
            Self::Origin(e) => e.exit(),
            Self::Other(_) => 1,
        }
    }
}

/// What a state folder says about its host.
struct Membership {
    fleet: FleetId,
    cert: Envelope,
    key: Arc<SecretKey>,
    admission: Option<SecretKey>,
    incarnation: u64,
    incarnation_before: u64,
}

/// Opens the store with the settings.
pub fn open_store(config: &NodeConfig) -> Result<Arc<Store>, StoreError> {
    let options = StoreOptions {
        min_free_bytes: config.min_free_bytes,
        seed_budget_bytes: config.seed_bytes,
        ..StoreOptions::default()
    };
    let (store, recovery) = Store::open(&config.state, options)?;
    tracing::info!(path = %config.state.display(), ?recovery, "store open");
    Ok(store)
}

/// Opens the origin that the settings name. Whether it answers shows when it is needed.
pub fn open_origin(config: &NodeConfig) -> Result<Option<Arc<Origin>>, OriginError> {
    let Some(address) = &config.origin else { return Ok(None) };
    let origin = Origin::open(address, config.origin_credentials.as_deref(), Purpose::Read)?;
    tracing::info!(origin = %address, "origin set");
    Ok(Some(Arc::new(origin)))
}

fn membership(store: &Store, state: &Path, clock: &Clock) -> Result<Membership, RunError> {
    let fleet = join::fleet_of(store)?.ok_or_else(|| RunError::NotJoined(state.to_owned()))?;
    let cert = store.get_state("cert")?.unwrap_or_default();
    let cert = decode(&cert, RECORD_LEN_MAX).map_err(|e| RunError::Other(format!("cert: {e}")))?;
    let key = Arc::new(identity::open_or_create(state)?);
    let admission = identity::admission_key(state)?;
    // A restart must beat the record of the run before, whatever the clock says.
    let before = store.get_state("incarnation")?.and_then(|b| <[u8; 8]>::try_from(b).ok());
    let before = before.map_or(0, u64::from_le_bytes);
    let incarnation = clock.unix_ms().max(before.saturating_add(RESTART_STEP));
    store.put_state("incarnation", &incarnation.to_le_bytes())?;
    Ok(Membership { fleet, cert, key, admission, incarnation, incarnation_before: before })
}

/// The time floor of the last run, and what the charter proves.
fn load_floor(store: &Store, trust: &Trust, clock: &Clock) -> Result<Floor, StoreError> {
    let kept = store.get_state(FLOOR_ROW)?.and_then(|b| <[u8; 8]>::try_from(b).ok());
    let mut floor = Floor(kept.map_or(0, u64::from_le_bytes));
    trust.raise_floor(&mut floor, 0);
    clock.hold(floor.0);
    if clock.unix() > clock.system().saturating_add(CLOCK_SKEW_S) {
        let behind_s = clock.unix() - clock.system();
        tracing::warn!(behind_s, "the clock shows a time that is known to be past");
    }
    Ok(floor)
}

fn check_own_cert(trust: &Trust, member: &Membership, clock: &Clock) -> Result<(), RunError> {
    let admits = member.admission.is_some();
    let checked = trust.check_cert(&member.cert, clock.unix()).and_then(|cert| {
        let own = cert.node == identity::node_id(&member.key);
        if own { Ok(()) } else { Err(AdmissionError::OtherKey("the certificate")) }
    });
    checked.map_err(|source| RunError::Certificate { source, admits })
}

/// The control socket, and the port for metrics where one is wanted.
type Listeners = (UnixListener, Option<TcpListener>);

async fn bind_control(config: &NodeConfig) -> Result<Listeners, RunError> {
    let socket = control::bind(&config.socket)?;
    let Some(addr) = config.metrics else { return Ok((socket, None)) };
    let port = TcpListener::bind(addr).await;
    let port = port.map_err(|source| BindError::Address { addr, source })?;
    Ok((socket, Some(port)))
}

fn serve_control(
    (socket, port): Listeners,
    calls: mpsc::Sender<ControlCall>,
    store: Arc<Store>,
) -> Vec<AbortHandle> {
    let app = control::router(calls.clone(), Arc::clone(&store));
    let control = tokio::spawn(async move { axum::serve(socket, app).await });
    let scraped = port.map(|port| {
        let app = control::metrics_router(calls, store);
        tokio::spawn(async move { axum::serve(port, app).await })
    });
    scraped.iter().chain([&control]).map(JoinHandle::abort_handle).collect()
}

/// Runs the node until `stop` says so, with the beacon key of its settings.
pub async fn run(
    config: NodeConfig,
    beacon_key: Option<SecretKey>,
    stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    run_by((config, beacon_key), (Clock::start(), Tap::default()), stop).await
}

/// The same by another clock, so that time can be passed in, and with a tap.
pub async fn run_by(
    (config, beacon_key): (NodeConfig, Option<SecretKey>),
    (clock, tap): (Clock, Tap),
    stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    // Disk: the store, who we are, what was accepted before.
    let store = open_store(&config)?;
    let mut member = membership(&store, &config.state, &clock)?;
    let (mut trust, catalog) = load_rules(&store, member.fleet)?;
    // A clock that was set back makes nothing valid again.
    let floor = load_floor(&store, &trust, &clock)?;
    let own = (&*member.key, member.admission.as_ref());
    if let Some(cert) = late::renew(&store, &mut trust, own, &member.cert, clock.unix()).await {
        member.cert = cert;
    }
    check_own_cert(&trust, &member, &clock)?;
    tracing::info!(fleet = %member.fleet.short(), releases = catalog.len(), "state loaded");
    let views = Arc::new(Views::new(Arc::clone(&store)));
    let origin = open_origin(&config)?;

    // Network: bound before anything is said to anybody.
    let (net_events, net_inbox) = mpsc::channel(1_024);
    let (bulk_events, bulk_inbox) = mpsc::channel(64);
    let (pushes, push_inbox) = mpsc::channel(push::CONNECTIONS_MAX);
    let key = Arc::clone(&member.key);
    let net = Net::bind(config.listen, key, net_events, pushes, bulk_events)?;
    let listeners = bind_control(&config).await?;
    let me = identity::node_id(&member.key);
    if let Ok(addr) = net.local_addr() {
        tracing::info!(node = %me, %addr, "listening");
    }

    // The driver and those that ask it.
    let (calls, control_inbox) = mpsc::channel(64);
    let (push_calls, push_calls_inbox) = mpsc::channel(64);
    tap.open(&push_calls);
    let socket = config.socket.clone();
    let parts = Parts {
        config,
        key: member.key,
        cert: member.cert,
        admission: member.admission,
        beacon_key,
        floor,
        store: Arc::clone(&store),
        views,
        trust,
        catalog,
        net: Arc::clone(&net),
        clock: clock.clone(),
        seed: u64::from_le_bytes(identity::random::<8>()?),
        incarnation: member.incarnation,
        incarnation_before: member.incarnation_before,
        tap,
        origin,
    };
    let driver = Driver::new(parts).map_err(|e| RunError::Other(e.to_string()))?;
    let inbox = Inbox {
        net: net_inbox,
        bulk: bulk_inbox,
        control: control_inbox,
        push: push_calls_inbox,
        stop,
    };
    let accepting = tokio::spawn(Arc::clone(&net).accept_loop());
    let pushing = tokio::spawn(push::serve(me, Arc::clone(&store), push_calls, clock, push_inbox));
    let controlling = serve_control(listeners, calls, store);
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    tracing::info!(socket = %socket.display(), "ready");
    driver.run(inbox).await;

    // In reverse: no new questions, peers are told, the store closes with its last handle.
    tracing::info!("stopping");
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    controlling.iter().for_each(AbortHandle::abort);
    pushing.abort();
    net.shut_down().await;
    accepting.abort();
    // A socket that is already gone is what was wanted.
    drop(std::fs::remove_file(&socket));
    Ok(())
}
