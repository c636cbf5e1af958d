//! The client of the control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Bytes of an answer: a host with 1 000 VMs fits many times.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("no stork-node answers on {path}")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The daemon did not answer in time.
    #[error("stork-node did not answer in {0:?}")]
    Late(Duration),
    /// The daemon answered with an error.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What failed.
        message: String,
        /// What to do.
        help: String,
    },
    /// The answer cannot be read.
    #[error("the answer of stork-node cannot be read: {0}")]
    Malformed(String),
}

impl ClientError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NotRunning { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                "run it as root or as a member of the group `stork`".into()
            }
            Self::NotRunning { .. } => {
                "start it with `stork-node run`, or give its socket with --socket".into()
            }
            Self::Late(_) => "see its log; raise --timeout for long work".into(),
            Self::Refused { help, .. } => help.clone(),
            Self::Malformed(_) => "are `stork` and `stork-node` of the same version?".into(),
        }
    }

    /// The exit code (design §11).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotRunning { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                77
            }
            Self::NotRunning { .. } => 75,
            Self::Late(_) => 6,
            Self::Refused { status: 404, .. } => 5,
            Self::Refused { status: 409, .. } => 7,
            Self::Refused { status: 503, .. } => 75,
            Self::Refused { .. } | Self::Malformed(_) => 1,
        }
    }
}

/// Asks a daemon.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// Of the daemon at this socket.
    #[must_use]
    pub fn new(socket: &Path, timeout: Duration) -> Self {
        Self { socket: socket.to_owned(), timeout }
    }

    /// Reads something.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.call("GET", path, None).await
    }

    /// Orders something.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.call("POST", path, Some(body)).await
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let all = timeout(self.timeout, self.exchange(method, path, body));
        all.await.map_err(|_late| ClientError::Late(self.timeout))?
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let bad = |e: &dyn std::fmt::Display| ClientError::Malformed(e.to_string());
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::NotRunning { path: self.socket.clone(), source })?;
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(|e| bad(&e))?;
        let driving = tokio::spawn(connection);
        let bytes = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "stork")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|e| bad(&e))?;
        let response = sender.send_request(request).await.map_err(|e| bad(&e))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|e| bad(&e))?.to_bytes();
        driving.abort();
        let value: Value = serde_json::from_slice(&body).map_err(|e| bad(&e))?;
        if status < 300 {
            return Ok(value);
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        Err(ClientError::Refused { status, message: text("message"), help: text("help") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody on the socket: the chain that `stork` prints names the system's reason once.
    #[tokio::test]
    async fn a_missing_daemon_is_explained_once() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(&dir.path().join("sock"), Duration::from_secs(5));
        let e = client.get("/v1/status").await.unwrap_err();
        assert_eq!(e.exit_code(), 75);
        let chain = [vec![e.to_string()], crate::cli::out::causes(&e)].concat().join("\n");
        assert_eq!(chain.matches("No such file").count(), 1, "{chain}");
    }
}
