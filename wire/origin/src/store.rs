//! An origin, opened: what it holds of an object, and bounded parts of it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, RetryConfig,
};

use crate::address::{Address, Place};
use crate::credentials::Credentials;
use crate::error::{OriginError, Why};
use crate::key::Key;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one request may take: a part of 8 MiB at half a megabit a second.
const REQUEST: Duration = Duration::from_secs(120);
/// How long one read may take with all its tries: a piece of 4 MiB at a megabit a second.
const READ: Duration = Duration::from_secs(40);
/// Between two tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What an origin is opened for: how often one request is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// By a host, which has a patience of its own.
    Read,
    /// By a publisher, for whom somebody waits.
    Write,
}

/// An origin.
#[derive(Debug, Clone)]
pub struct Origin {
    address: Address,
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same, where it takes objects in parts that a later try may go on with.
    pub(crate) bucket: Option<Arc<AmazonS3>>,
    /// What stands before every key.
    base: StorePath,
    credentials: Credentials,
}

fn says(e: &object_store::Error, code: &str) -> bool {
    e.to_string().contains(code)
}

fn client(allow_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_connect_timeout(CONNECT)
        .with_timeout(REQUEST)
}

impl Origin {
    /// Opens an origin. Nothing is asked of it yet.
    pub fn open(
        address: &Address,
        credentials: Option<&Path>,
        purpose: Purpose,
    ) -> Result<Self, OriginError> {
        // One provider in the whole program; it may be in place already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let credentials = credentials.map(Credentials::read).transpose()?.unwrap_or_default();
        let credentials = credentials.with_environment();
        let setup = |e: &dyn std::fmt::Display| OriginError::Setup {
            origin: address.to_string(),
            text: credentials.clean(&e.to_string()),
        };
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: BACKOFF.0, max_backoff: BACKOFF.1, base: 2.0 },
            max_retries: if purpose == Purpose::Read { 2 } else { 5 },
            retry_timeout: REQUEST,
        };
        let mut bucket = None;
        let mut base = StorePath::default();
        let store: Arc<dyn ObjectStore> = match &address.place {
            Place::Folder(dir) => {
                // A host starts without it, as without a bucket that does not answer. A publisher
                // must not fill the folder over which something should have been mounted.
                if purpose == Purpose::Write && !dir.is_dir() {
                    return Err(setup(&"there is no such folder"));
                }
                base = StorePath::from_absolute_path(dir).map_err(|e| setup(&e))?;
                Arc::new(LocalFileSystem::new().with_fsync(true))
            }
            Place::Web => {
                let allow_http = address.text().starts_with("http:");
                let builder = HttpBuilder::new().with_url(address.text()).with_retry(retry);
                let builder = builder.with_client_options(client(allow_http));
                Arc::new(builder.build().map_err(|e| setup(&e))?)
            }
            Place::Bucket { bucket: name, prefix: below } => {
                base = StorePath::parse(below).map_err(|e| setup(&e))?;
                let mut builder = AmazonS3Builder::new().with_client_options(client(false));
                for (name, value) in std::env::vars() {
                    let key = name.starts_with("AWS_").then(|| name.to_ascii_lowercase().parse());
                    if let Some(Ok(key)) = key {
                        builder = builder.with_config(key, value);
                    }
                }
                for (key, value) in &credentials.pairs {
                    builder = builder.with_config(*key, value);
                }
                let builder = builder.with_bucket_name(name).with_retry(retry);
                let store = Arc::new(builder.build().map_err(|e| setup(&e))?);
                bucket = Some(Arc::clone(&store));
                store
            }
        };
        Ok(Self { address: address.clone(), store, bucket, base, credentials })
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn path(&self, key: &Key) -> StorePath {
        key.as_str().split('/').fold(self.base.clone(), StorePath::join)
    }

    /// An error about an object.
    #[must_use]
    pub fn fault(&self, key: &Key, why: Why, text: &str) -> OriginError {
        let origin = self.address.to_string();
        OriginError::Object { origin, key: key.clone(), why, text: self.credentials.clean(text) }
    }

    pub(crate) fn failed(&self, key: &Key, e: &object_store::Error) -> OriginError {
        use object_store::Error as E;
        match e {
            E::NotFound { .. } => self.fault(key, Why::Missing, "there is no such object"),
            E::PermissionDenied { .. } => self.fault(key, Why::Denied, "it refuses us (403)"),
            E::Unauthenticated { .. } => self.fault(key, Why::Denied, "it does not know us (401)"),
            // Parts of an upload that the bucket does not have, or not any more.
            other if ["NoSuchUpload", "InvalidPart"].iter().any(|c| says(other, c)) => {
                self.fault(key, Why::Missing, "the upload in parts is not there any more")
            }
            other => self.fault(key, Why::Down, &other.to_string()),
        }
    }

    /// How long an object is; `None` where there is none, or none that we may know of.
    pub(crate) async fn len_of(&self, key: &Key) -> Result<Option<u64>, OriginError> {
        match self.store.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            // Without the right to list, S3 says 403 for what is not there.
            Err(
                object_store::Error::NotFound { .. } | object_store::Error::PermissionDenied { .. },
            ) => Ok(None),
            Err(e) => Err(self.failed(key, &e)),
        }
    }

    /// Reads a part of an object that must be `size` bytes long. What comes back is as long as the
    /// part and otherwise unchecked: whether it is right, the caller's hash says.
    pub async fn read(
        &self,
        key: &Key,
        size: u64,
        part: Range<u64>,
    ) -> Result<Vec<u8>, OriginError> {
        let reading = tokio::time::timeout(READ, self.read_once(key, size, part));
        reading.await.unwrap_or_else(|_late| {
            let text = format!("it takes longer than {} s", READ.as_secs());
            Err(self.fault(key, Why::Down, &text))
        })
    }

    async fn read_once(
        &self,
        key: &Key,
        size: u64,
        part: Range<u64>,
    ) -> Result<Vec<u8>, OriginError> {
        let wrong = |text: &str| self.fault(key, Why::Wrong, text);
        let options = GetOptions::new().with_range(Some(GetRange::Bounded(part.clone())));
        let found = self.store.get_opts(&self.path(key), options).await;
        let found = found.map_err(|e| self.failed(key, &e))?;
        if found.meta.size != size {
            let is = found.meta.size;
            return Err(wrong(&format!("it is {is} bytes long, and {size} were announced")));
        }
        if found.range != part {
            return Err(wrong("another part of it was sent than was asked for"));
        }
        let len = usize::try_from(part.end.saturating_sub(part.start)).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(len.min(1 << 22));
        let mut stream = found.into_stream();
        while let Some(chunk) = stream.try_next().await.map_err(|e| self.failed(key, &e))? {
            if bytes.len() + chunk.len() > len {
                return Err(wrong("more bytes were sent than were asked for"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if bytes.len() != len {
            let (got, from) = (bytes.len(), part.start);
            return Err(wrong(&format!("it breaks off: {got} of {len} bytes from {from} on")));
        }
        Ok(bytes)
    }
}
