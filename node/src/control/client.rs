//! The client of the control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
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

/// A word of the command line as a part of a path: all but letters, digits and a few signs is
/// escaped, so that no word can be another path.
#[must_use]
pub fn path_segment(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~@=+:".contains(&b);
    let one = |b: u8| {
        if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }
    };
    word.bytes().map(one).collect()
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

    /// Orders something that takes long: `progress` is told each step, and the answer is the last
    /// line. The time-out is for the next line, not for all of them.
    pub async fn post_lines(
        &self,
        path: &str,
        progress: &mut dyn FnMut(&Value),
    ) -> Result<Value, ClientError> {
        let late = |_elapsed| ClientError::Late(self.timeout);
        let started = timeout(self.timeout, self.send("POST", path, Some(&Value::Null)));
        let (response, _driving) = started.await.map_err(late)??;
        if !response.status().is_success() {
            return timeout(self.timeout, answer(response)).await.map_err(late)?;
        }
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(frame) = timeout(self.timeout, body.frame()).await.map_err(late)? {
            text.extend(frame.map_err(|e| malformed(&e))?.into_data().unwrap_or_default());
            if text.len() > ANSWER_MAX {
                return Err(malformed(&"a line that does not end"));
            }
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let mut line: Value = serde_json::from_slice(&line).map_err(|e| malformed(&e))?;
                if let Some(step) = line.get("progress") {
                    progress(step);
                } else if let Some(failed) = line.get("failed") {
                    let status = failed.get("status").and_then(Value::as_u64);
                    return Err(refused(status.and_then(|s| s.try_into().ok()), failed));
                } else if let Some(done) = line.get_mut("done") {
                    return Ok(done.take());
                }
            }
        }
        Err(malformed(&"it ends too early: did the daemon stop?"))
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let all = timeout(self.timeout, async {
            let (response, _driving) = self.send(method, path, body).await?;
            answer(response).await
        });
        all.await.map_err(|_late| ClientError::Late(self.timeout))?
    }

    /// Sends a request; the connection lives as long as the second value.
    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Response<Incoming>, Driving), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::NotRunning { path: self.socket.clone(), source })?;
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(|e| malformed(&e))?;
        let driving = Driving(tokio::spawn(async move { drop(connection.await) }));
        let bytes = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "stork")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|e| malformed(&e))?;
        let response = sender.send_request(request).await.map_err(|e| malformed(&e))?;
        Ok((response, driving))
    }
}

/// The task that moves a connection's bytes; it ends with this.
struct Driving(tokio::task::JoinHandle<()>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn malformed(e: &dyn std::fmt::Display) -> ClientError {
    ClientError::Malformed(e.to_string())
}

fn refused(status: Option<u16>, value: &Value) -> ClientError {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let status = status.unwrap_or(500);
    ClientError::Refused { status, message: text("message"), help: text("help") }
}

/// A whole answer: one JSON value.
async fn answer(response: Response<Incoming>) -> Result<Value, ClientError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|e| malformed(&e))?.to_bytes();
    let value: Value = serde_json::from_slice(&body).map_err(|e| malformed(&e))?;
    if status.is_success() { Ok(value) } else { Err(refused(Some(status.as_u16()), &value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an operator types stays one part of the path.
    #[test]
    fn words_are_escaped() {
        assert_eq!(path_segment("lib++=1:2.0~rc1"), "lib++=1:2.0~rc1");
        assert_eq!(path_segment("@a/b ?x#%"), "@a%2Fb%20%3Fx%23%25");
    }

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
