//! A client of ssh-agent: two requests, both bounded in bytes and time
//! (draft-ietf-sshm-ssh-agent, §3.5 and §3.6).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use stork_wire::ids::PublicKey;
use stork_wire::sign::{SignatureBytes, is_sound};

use super::fingerprint;

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Bytes of one answer.
const ANSWER_LEN_MAX: u32 = 256 * 1024;
/// Keys that are looked at.
const IDENTITIES_MAX: u32 = 1024;
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// The agent may ask its owner for each signature, who must find the key to touch.
const SIGN_TIMEOUT: Duration = Duration::from_secs(60);
const ED25519: &[u8] = b"ssh-ed25519";

/// An agent that does not help.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// `SSH_AUTH_SOCK` is not set.
    #[error("no ssh-agent: SSH_AUTH_SOCK is not set")]
    NoSocket,
    /// The agent does not answer, or not in time.
    #[error("the ssh-agent does not answer")]
    Io(#[from] io::Error),
    /// Its answer is not understood.
    #[error("the ssh-agent answers nonsense: {0}")]
    Malformed(&'static str),
    /// It holds no such key.
    #[error("the ssh-agent holds no Ed25519 key{}", named(.0))]
    NoKey(String),
    /// It holds several keys, and none was named.
    #[error("the ssh-agent holds several Ed25519 keys: {}", .0.join(", "))]
    Several(Vec<String>),
    /// It refuses to sign.
    #[error("the ssh-agent refuses to sign")]
    Refused,
}

/// The key that was asked for, if one was.
fn named(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!(" `{key}`") }
}

impl AgentError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NoSocket => "start one: eval $(ssh-agent), then ssh-add KEYFILE".into(),
            Self::NoKey(_) => "load it: ssh-add KEYFILE; list what is there: ssh-add -l".into(),
            Self::Several(_) => "name one: --key ssh-agent:SHA256:…".into(),
            Self::Refused => "unlock the agent (ssh-add -X), or confirm when it asks".into(),
            Self::Io(_) | Self::Malformed(_) => "restart the agent, or use --key FILE".into(),
        }
    }
    /// The exit code that stands for it.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::NoSocket | Self::Several(_) => 78,
            Self::NoKey(_) => 5,
            Self::Refused => 77,
            Self::Io(e) if matches!(e.kind(), io::ErrorKind::WouldBlock) => 6,
            Self::Io(_) | Self::Malformed(_) => 1,
        }
    }
}

/// One Ed25519 key that an agent holds.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
    key: PublicKey,
    blob: Vec<u8>,
}

/// Takes fields off the front of an answer.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Result<u32, AgentError> {
        let (head, rest) =
            self.0.split_first_chunk::<4>().ok_or(AgentError::Malformed("it is cut off"))?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*head))
    }
    fn string(&mut self) -> Result<&'a [u8], AgentError> {
        let len = self.number()? as usize;
        let (head, rest) =
            self.0.split_at_checked(len).ok_or(AgentError::Malformed("it is cut off"))?;
        self.0 = rest;
        Ok(head)
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), AgentError> {
    let len = u32::try_from(bytes.len()).map_err(|_e| AgentError::Malformed("too long"))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// One request and its answer: the first byte of each is its kind.
fn ask(socket: &PathBuf, request: &[u8], timeout: Duration) -> Result<Vec<u8>, AgentError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut framed = Vec::new();
    put(&mut framed, request)?;
    stream.write_all(&framed)?;
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len);
    if len == 0 || len > ANSWER_LEN_MAX {
        return Err(AgentError::Malformed("its length is out of range"));
    }
    let mut answer = vec![0; len as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// The key inside an SSH key blob; `None` for other kinds.
fn key_of(blob: &[u8]) -> Option<PublicKey> {
    let mut fields = Fields(blob);
    if fields.string().ok()? != ED25519 {
        return None;
    }
    let key = PublicKey(fields.string().ok()?.try_into().ok()?);
    (fields.0.is_empty() && is_sound(&key)).then_some(key)
}

impl Agent {
    /// Finds a key at the agent of `SSH_AUTH_SOCK`. An empty fingerprint takes the only key.
    pub fn open(fingerprint: &str) -> Result<Self, AgentError> {
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|s| !s.is_empty());
        Self::open_at(socket.ok_or(AgentError::NoSocket)?.into(), fingerprint)
    }

    /// Finds a key at the agent of a socket.
    pub fn open_at(socket: PathBuf, wanted: &str) -> Result<Self, AgentError> {
        let answer = ask(&socket, &[REQUEST_IDENTITIES], LIST_TIMEOUT)?;
        let Some((&IDENTITIES_ANSWER, rest)) = answer.split_first() else {
            return Err(AgentError::Malformed("no list of keys"));
        };
        let mut fields = Fields(rest);
        let count = fields.number()?;
        let mut found: Vec<(PublicKey, Vec<u8>)> = Vec::new();
        for _ in 0..count.min(IDENTITIES_MAX) {
            let blob = fields.string()?;
            let _comment = fields.string()?;
            if let Some(key) = key_of(blob)
                && (wanted.is_empty() || fingerprint(&key) == wanted)
            {
                found.push((key, blob.to_vec()));
            }
        }
        match found.as_slice() {
            [] => Err(AgentError::NoKey(wanted.to_owned())),
            [(key, blob)] => Ok(Self { socket, key: *key, blob: blob.clone() }),
            more => Err(AgentError::Several(more.iter().map(|(k, _)| fingerprint(k)).collect())),
        }
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.key
    }

    /// Asks the agent for a signature.
    pub fn sign(&self, message: &[u8]) -> Result<SignatureBytes, AgentError> {
        let mut request = vec![SIGN_REQUEST];
        put(&mut request, &self.blob)?;
        put(&mut request, message)?;
        request.extend_from_slice(&0u32.to_be_bytes());
        let answer = ask(&self.socket, &request, SIGN_TIMEOUT)?;
        let Some((&SIGN_RESPONSE, rest)) = answer.split_first() else {
            return Err(AgentError::Refused);
        };
        let mut signature = Fields(Fields(rest).string()?);
        if signature.string()? != ED25519 {
            return Err(AgentError::Malformed("a signature of another kind"));
        }
        let bytes = signature.string()?.try_into();
        bytes.map(SignatureBytes).map_err(|_e| AgentError::Malformed("no 64 bytes of signature"))
    }
}
