//! A small S3 server in this process, with one bucket, for tests of origins: objects, ranges,
//! conditions, uploads in parts, and faults on request.
//!
//! It was written from the public description of the protocol and shares no code with the client.
//! Signatures are not checked, only that there is one of the right account.

mod answer;
mod faults;

pub use faults::{Fault, Faults};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;

/// The account that it knows.
pub const ACCESS_KEY: &str = "AKIASTORKTESTS";
/// Its secret, which the server never sees.
pub const SECRET_KEY: &str = "not-a-secret-of-anybody";
/// The bucket that it has.
pub const BUCKET: &str = "fleet";

/// An upload in parts that is not put together yet.
#[derive(Debug, Default)]
struct Upload {
    name: String,
    parts: BTreeMap<u32, Vec<u8>>,
}

/// What it holds and has seen.
#[derive(Debug, Default)]
struct Shelf {
    objects: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, Upload>,
    next: u64,
    /// Method and path with query of every request, in order.
    seen: Vec<String>,
    /// Bytes of objects that were sent.
    sent: u64,
    faults: Faults,
}

/// The server; it ends with this.
#[derive(Debug)]
pub struct S3 {
    addr: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    State(shelf): State<Arc<Mutex<Shelf>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = {
        let mut shelf = shelf.lock().unwrap();
        shelf.seen.push(format!("{method} {uri}"));
        shelf.faults.next(&method, &uri)
    };
    if let Some(Fault::Slow(time)) = fault {
        tokio::time::sleep(time).await;
    }
    let mut shelf = shelf.lock().unwrap();
    shelf.answer((&method, &uri, &headers), &body, fault)
}

impl S3 {
    /// Starts on a port of the loopback, on threads of its own.
    #[must_use]
    pub fn start() -> Self {
        let shelf = Arc::<Mutex<Shelf>>::default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let app = Router::new()
            .fallback(serve)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shelf));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
        Self { addr, shelf, runtime: Some(runtime) }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap()
    }

    /// What a client of it needs in its credentials file.
    #[must_use]
    pub fn settings(&self) -> String {
        format!(
            "AWS_ACCESS_KEY_ID={ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY={SECRET_KEY}\n\
             AWS_REGION=us-east-1\nAWS_ENDPOINT_URL=http://{}\nAWS_ALLOW_HTTP=true\n",
            self.addr
        )
    }

    /// The address of the bucket.
    #[must_use]
    pub fn address(&self) -> String {
        format!("s3://{BUCKET}/origin")
    }

    /// The same bucket for a client that only knows the web.
    #[must_use]
    pub fn web_address(&self) -> String {
        format!("http://{}/{BUCKET}/origin", self.addr)
    }

    /// From now on, requests that fit are answered with this, as often as it says.
    pub fn fail(&self, faults: Faults) {
        self.shelf().faults = faults;
    }

    /// The names and lengths of all objects.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, usize> {
        self.shelf().objects.iter().map(|(k, v)| (k.clone(), v.len())).collect()
    }

    /// An object's bytes.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<Vec<u8>> {
        self.shelf().objects.get(name).cloned()
    }

    /// Changes an object behind everybody's back.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.shelf().objects.get_mut(name).unwrap());
    }

    /// Uploads in parts that nobody has put together or given up.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.shelf().uploads.len()
    }

    /// Drops them, as a rule of the bucket does after some days.
    pub fn drop_uploads(&self) {
        self.shelf().uploads.clear();
    }

    /// Requests so far whose text holds this.
    #[must_use]
    pub fn seen(&self, text: &str) -> usize {
        self.shelf().seen.iter().filter(|s| s.contains(text)).count()
    }

    /// Bytes of objects that were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shelf().sent
    }
}
