//! `POST /v1/store/verify`: an answer that takes long, so it comes as lines of JSON.
//!
//! `{"progress": {"bytes", "total"}}` as often as there is something to say, and at the end
//! `{"done": REPORT}` or `{"failed": {"status", "error", "message", "help"}}`. A reader that is
//! slow misses steps, and one that goes away does not stop the work.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::routes::{Shared, ask, blocking};
use crate::driver::ControlCall;
use crate::store::{Damage, Store, StoreError, Verifying};

/// A step is told after so many bytes at the least, and after so many at the most, whatever part
/// of the store that is: a slow disk must not look like a dead one.
const STEP_BYTES: (u64, u64) = (1 << 20, 256 << 20);
/// Steps of a store of middling size.
const STEPS: u64 = 256;
/// Lines that wait for a slow reader.
const LINES: usize = 4;

/// What a verification found, for the driver.
type Found = Arc<Mutex<Vec<Damage>>>;

/// A body of lines as they come.
struct Lines(mpsc::Receiver<String>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.get_mut().0.poll_recv(cx);
        next.map(|line| line.map(|line| Ok(Frame::data(Bytes::from(line + "\n")))))
    }
}

fn verify(store: &Store, lines: &mpsc::Sender<String>, found: &Found) -> Result<Value, StoreError> {
    let next = Cell::new(0);
    let report = store.verify(&|Verifying { bytes, total }| {
        if bytes >= next.get() {
            next.set(bytes + (total / STEPS).clamp(STEP_BYTES.0, STEP_BYTES.1));
            let line = json!({ "progress": { "bytes": bytes, "total": total } });
            // Nobody reads, or not fast enough: the next step says the same.
            lines.try_send(line.to_string()).unwrap_or_default();
        }
    })?;
    let damaged: Vec<String> = report.damaged.iter().map(ToString::to_string).collect();
    *found.lock().unwrap_or_else(PoisonError::into_inner) = report.damaged;
    Ok(json!({
        "schema": "stork.store-verify/v1",
        "objects": report.objects, "packs": report.packs, "manifests": report.manifests,
        "bytes": report.bytes, "damaged": damaged, "quarantine": report.quarantine,
    }))
}

pub(super) async fn store_verify(State(s): State<Shared>) -> Response {
    let (lines, body) = mpsc::channel(LINES);
    tokio::spawn(async move {
        let teller = lines.clone();
        let found = Found::default();
        let finder = Arc::clone(&found);
        let (status, Json(mut value)) =
            blocking(s.clone(), move |store| verify(store, &teller, &finder)).await;
        // What was damaged is fetched again: the driver looks at every VM anew.
        let damaged = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        let _again = ask(&s, |answer| ControlCall::Damaged { damaged, answer }).await;
        let last = if status.is_success() {
            json!({ "done": value })
        } else {
            if let Some(failed) = value.as_object_mut() {
                failed.insert("status".into(), status.as_u16().into());
            }
            json!({ "failed": value })
        };
        // A reader that went away needs no answer.
        drop(lines.send(last.to_string()).await);
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::new(Lines(body))).into_response()
}
