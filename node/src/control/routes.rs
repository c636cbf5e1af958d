//! Routes of the control socket: `/v1/…`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use stork_wire::seal::GroupKey;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::bodies::{
    GcBody, GroupKeyBody, HostGrantBody, PermitBody, RollbackBody, SwitchBody, TokenBody,
};
use super::verify::store_verify;
use crate::driver::{Answer, AskedGrant, AskedToken, CallError, ControlCall};
use crate::store::Store;

/// The text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

/// What the routes share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    driver: mpsc::Sender<ControlCall>,
    store: Arc<Store>,
}

pub(super) type Reply = (StatusCode, Json<Value>);

/// All routes.
pub fn router(driver: mpsc::Sender<ControlCall>, store: Arc<Store>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/vms", get(vms))
        .route("/v1/releases", get(releases))
        .route("/v1/peers", get(peers))
        .route("/v1/tree/{*what}", get(tree))
        .route("/v1/why/{vm}/{*package}", get(why))
        .route("/v1/trust", get(trust))
        .route("/v1/permits", get(permits).post(permit))
        .route("/v1/events", get(events))
        .route("/v1/vms/{vm}/rollback", post(rollback))
        .route("/v1/vms/{vm}/switch", post(switch))
        .route("/v1/vms/{vm}/holders", get(holders))
        .route("/v1/tokens", post(token))
        .route("/v1/group-keys", post(group_key))
        .route("/v1/hosts", get(hosts))
        .route("/v1/host-grants", post(host_grant))
        .route("/v1/reload", post(reload))
        .route("/v1/store", get(store_stat))
        .route("/v1/store/verify", post(store_verify))
        .route("/v1/store/gc", post(store_gc))
        .route("/v1/store/find", post(store_find))
        .with_state(Shared { driver, store })
}

/// Only `/metrics`, for a port of the loopback.
pub fn metrics_router(driver: mpsc::Sender<ControlCall>, store: Arc<Store>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(Shared { driver, store })
}

async fn metrics(State(s): State<Shared>) -> Response {
    let (status, Json(page)) = ask(&s, ControlCall::Metrics).await;
    match page {
        Value::String(page) => ([(CONTENT_TYPE, METRICS_TYPE)], page).into_response(),
        error => (status, Json(error)).into_response(),
    }
}

fn failed(status: StatusCode, code: &str, message: &str, help: &str) -> Reply {
    (status, Json(json!({ "error": code, "message": message, "help": help })))
}

/// Asks the driver.
pub(super) async fn ask(shared: &Shared, call: impl FnOnce(Answer) -> ControlCall) -> Reply {
    let (answer, outcome) = oneshot::channel();
    let gone = || {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        failed(status, "stopping", "the daemon is stopping", "try again once it has started")
    };
    if shared.driver.send(call(answer)).await.is_err() {
        return gone();
    }
    match outcome.await {
        Ok(Ok(value)) => (StatusCode::OK, Json(value)),
        Ok(Err(CallError::NotFound(what))) => {
            failed(StatusCode::NOT_FOUND, "not_found", &what, "`stork vm` lists the VMs")
        }
        Ok(Err(e @ CallError::NoRelease(_))) => {
            let (status, help) = (StatusCode::NOT_FOUND, "`stork release` lists them");
            failed(status, "not_found", &e.to_string(), help)
        }
        Ok(Err(CallError::Refused(why, help))) => {
            failed(StatusCode::CONFLICT, "refused", &why, &help)
        }
        Err(_) => gone(),
    }
}

async fn status(State(s): State<Shared>) -> Reply {
    ask(&s, ControlCall::Status).await
}
async fn vms(State(s): State<Shared>) -> Reply {
    ask(&s, ControlCall::Vms).await
}
async fn releases(State(s): State<Shared>) -> Reply {
    ask(&s, ControlCall::Releases).await
}
async fn peers(State(s): State<Shared>) -> Reply {
    ask(&s, ControlCall::Peers).await
}
async fn reload(State(s): State<Shared>) -> Reply {
    ask(&s, ControlCall::Reload).await
}
async fn tree(State(s): State<Shared>, Path(what): Path<String>) -> Reply {
    ask(&s, |answer| ControlCall::Tree { what, answer }).await
}
async fn why(State(s): State<Shared>, Path((vm, package)): Path<(String, String)>) -> Reply {
    ask(&s, |answer| ControlCall::Why { vm, package, answer }).await
}

#[derive(Deserialize)]
struct About {
    about: Option<String>,
    #[serde(default)]
    package: bool,
}

async fn trust(State(s): State<Shared>, Query(q): Query<About>) -> Reply {
    let About { about, package } = q;
    ask(&s, |answer| ControlCall::Trust { about, package, answer }).await
}

async fn permits(State(s): State<Shared>) -> Reply {
    ask(&s, ControlCall::Permits).await
}

async fn permit(State(s): State<Shared>, Json(body): Json<PermitBody>) -> Reply {
    ask(&s, |answer| ControlCall::Permit { text: body.permit, answer }).await
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn events(State(s): State<Shared>, Query(q): Query<After>) -> Reply {
    ask(&s, |answer| ControlCall::Events { after: q.after, answer }).await
}

async fn rollback(
    State(s): State<Shared>,
    Path(vm): Path<String>,
    Json(body): Json<RollbackBody>,
) -> Reply {
    let RollbackBody { to, undo } = body;
    ask(&s, |answer| ControlCall::Rollback { vm, to, undo, answer }).await
}

async fn switch(
    State(s): State<Shared>,
    Path(vm): Path<String>,
    Json(body): Json<SwitchBody>,
) -> Reply {
    ask(&s, |answer| ControlCall::Switch { vm, at_once: body.now, answer }).await
}

async fn holders(State(s): State<Shared>, Path(vm): Path<String>) -> Reply {
    ask(&s, |answer| ControlCall::Holders { vm, answer }).await
}

async fn token(State(s): State<Shared>, Json(body): Json<TokenBody>) -> Reply {
    let TokenBody { name, site, ttl_s, groups, labels } = body;
    let Some(site) = site.or_else(|| "default".parse().ok()) else {
        return failed(StatusCode::BAD_REQUEST, "bad_site", "no site", "give a --site");
    };
    let asked = AskedToken { name, site, ttl_s, groups, labels };
    ask(&s, |answer| ControlCall::Token { asked, answer }).await
}

async fn hosts(State(s): State<Shared>) -> Reply {
    ask(&s, ControlCall::Hosts).await
}

async fn host_grant(State(s): State<Shared>, Json(body): Json<HostGrantBody>) -> Reply {
    let HostGrantBody { host, from, groups, no_groups, labels, no_labels } = body;
    let asked = AskedGrant { host, from, groups, no_groups, labels, no_labels };
    ask(&s, |answer| ControlCall::HostGrant { asked, answer }).await
}

async fn group_key(State(s): State<Shared>, Json(body): Json<GroupKeyBody>) -> Reply {
    let text = Zeroizing::new(body.key);
    let Some(key) = GroupKey::from_text(&text) else {
        let help = "give the file that `stork-publish charter private` made";
        return failed(StatusCode::BAD_REQUEST, "bad_key", "this is no key of a group", help);
    };
    ask(&s, |answer| ControlCall::GroupKey { key, answer }).await
}

/// Runs work of the store off the async threads.
pub(super) async fn blocking(
    shared: Shared,
    work: impl FnOnce(&Store) -> Result<Value, crate::store::StoreError> + Send + 'static,
) -> Reply {
    let joined = tokio::task::spawn_blocking(move || work(&shared.store)).await;
    match joined {
        Ok(Ok(value)) => (StatusCode::OK, Json(value)),
        Ok(Err(e)) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            failed(status, "store", &e.to_string(), e.help())
        }
        Err(e) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            failed(status, "internal", &e.to_string(), "see the daemon's log")
        }
    }
}

async fn store_stat(State(s): State<Shared>) -> Reply {
    blocking(s, |store| Ok(stat_json(&store.stat()?))).await
}

fn stat_json(s: &crate::store::StoreStat) -> Value {
    json!({
        "schema": "stork.store/v1",
        "objects": s.objects, "object_bytes": s.object_bytes,
        "packs": s.packs, "pack_bytes": s.pack_bytes,
        "sets": s.sets, "copy_bytes": s.copy_bytes, "trees": s.trees, "free_bytes": s.free_bytes,
    })
}

#[derive(Deserialize)]
struct Sizes {
    sizes: stork_wire::codec::List<u64, 65_536>,
}

/// Which contents of these sizes are here, and in which files.
async fn store_find(State(s): State<Shared>, Json(body): Json<Sizes>) -> Reply {
    blocking(s, move |store| {
        let found = store.of_sizes(&body.sizes.iter().copied().collect())?;
        let found: Vec<Value> = found
            .into_iter()
            .map(|(size, content, path)| json!({ "size": size, "content": content, "path": path }))
            .collect();
        Ok(json!({ "schema": "stork.store-find/v1", "objects": found }))
    })
    .await
}

async fn store_gc(State(s): State<Shared>, Json(body): Json<GcBody>) -> Reply {
    ask(&s, |answer| ControlCall::Collect { dry_run: body.dry_run, answer }).await
}
