//! The view helper: the one process of this host's stork that may mount.
//!
//! The daemon starts it before it touches the network, and then gives the right to mount up. The
//! helper has no network: it is in a network namespace of its own, where there is nothing, and
//! makes no socket of any kind. It is given no key. It takes orders from the daemon by one pair of
//! sockets, one after the other, each of bounded length ([`Order`]), reads the VM's file itself,
//! and does for that VM what the file says. It ends with the daemon, whose end closes the pair;
//! mounts stay.
//!
//! Where systemd starts it (`[sandbox] helpers`), the daemon never had the right to mount, and
//! calls it by a socket. Otherwise it is two children of the daemon: one that starts the other
//! anew when it has ended, at most once a second, and tells the daemon so; and the one that works.
//! Nothing here needs more than one thread.

mod working;

pub use working::{End, watch, work};

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, socketpair,
};
use serde::{Deserialize, Serialize};
use stork_wire::codec::{decode, encode};

use super::SandboxError;
use crate::config::{LogFormat, NodeConfig};
use crate::failpoint;
use crate::view::order::{ANSWER_LEN_MAX, Answer, ORDER_LEN_MAX, Order};

/// The hidden command of `stork-node` that the helper runs.
pub const COMMAND: &str = "view-helper";

/// What comes with an order or an answer beside itself.
const FRAME: usize = 64;

/// An order, numbered.
#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    number: u64,
    order: Order,
}

/// What the daemon hears.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// The answer to the order of that number.
    Answer(u64, Answer),
    /// The working process has ended in this way, and whatever was ordered has no answer.
    Ended(String),
}

/// Why there is no answer. What was ordered may have been done all the same.
#[derive(Debug, thiserror::Error)]
pub enum MounterError {
    /// Ours or the system's: the helper ended.
    #[error("the view helper ended ({0}) before it answered")]
    Ended(String),
    /// The system's: something hangs, a disk perhaps.
    #[error("the view helper did not answer for {0} s")]
    Silent(u64),
    /// Ours: the order is longer than one may be.
    #[error("an order of {0} bytes is too long for the view helper")]
    TooLong(usize),
    /// The host's: maps of ids cannot be made.
    #[error("the view helper cannot make the map of ids that the VM's file asks for")]
    NoMap,
    /// The system's: nothing comes through.
    #[error("the view helper cannot be reached")]
    Lost(#[source] io::Error),
}

impl MounterError {
    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Ended(_) => {
                "it is started again by itself, and the view is tried again; its last words are in \
                 the log of stork-node"
            }
            Self::Silent(_) => "look at `dmesg`, and at what the target's disk does",
            Self::TooLong(_) => "keep fewer generations, or use the backend \"composefs\"",
            Self::NoMap => {
                "it needs CAP_SETUID and CAP_SETGID at its start, Linux 5.12, and user namespaces \
                 (`stork doctor`)"
            }
            Self::Lost(_) => {
                "`systemctl status stork-views.socket` where systemd starts it, or restart \
                 stork-node"
            }
        }
    }
}

/// The daemon's end.
#[derive(Debug)]
struct Client {
    /// None where a helper that systemd starts must be called first.
    socket: Option<OwnedFd>,
    /// Where systemd listens for it; none for a child of the daemon.
    at: Option<SocketAddrUnix>,
    number: u64,
}

static CLIENT: OnceLock<Mutex<Client>> = OnceLock::new();

/// Sees to it that there is a helper for this process: the one of the unit, which systemd starts
/// when it is called, or a child of its own. To be called once.
pub(super) fn start(config: &NodeConfig) -> Result<(), SandboxError> {
    let client = match &config.sandbox.helpers {
        Some(folder) => {
            let failed = |e: Errno| SandboxError::new("the name of the view helper's socket", e);
            let at = SocketAddrUnix::new(folder.join("views")).map_err(failed)?;
            Client { socket: None, at: Some(at), number: 0 }
        }
        None => Client { socket: Some(start_child(config)?), at: None, number: 0 },
    };
    CLIENT.get_or_init(|| Mutex::new(client));
    Ok(())
}

fn start_child(config: &NodeConfig) -> Result<OwnedFd, SandboxError> {
    let failed = |e: io::Error| SandboxError::new("the view helper cannot be started", e);
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(|e| failed(e.into()))?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    // The demonstration's nodes are `stork __node …`.
    if let Some(role) = std::env::args_os().nth(1).filter(|a| a == "__node") {
        command.arg(role);
    }
    let absolute = |path: &Path| std::path::absolute(path).map_err(failed);
    command.arg("--state").arg(absolute(&config.state)?);
    command.arg("--vms").arg(absolute(&config.vms)?).arg(COMMAND);
    if config.log == LogFormat::Json {
        command.arg("--json-log");
    }
    clean(&mut command).stdin(theirs).stdout(Stdio::null());
    // A group of its own: Ctrl-C reaches the daemon, with which it ends.
    command.process_group(0).spawn().map_err(failed)?;
    Ok(ours)
}

/// Nothing of the environment but what concerns all processes of stork.
fn clean(command: &mut Command) -> &mut Command {
    let kept = ["STORK_LOG", failpoint::VARIABLE].map(|k| (k, std::env::var_os(k)));
    let kept = kept.into_iter().filter_map(|(k, v)| Some((k, v?)));
    command.env_clear().envs(kept).current_dir("/")
}

/// Is there a helper?
#[must_use]
pub fn is_there() -> bool {
    CLIENT.get().is_some()
}

/// Orders something of the helper and waits for the answer, `patience_s` seconds at the most. One
/// order is given at a time.
///
/// # Errors
/// There is no answer; what was ordered may have been done.
pub fn ask(order: &Order, patience_s: u64) -> Result<Answer, MounterError> {
    let gone = || MounterError::Lost(io::ErrorKind::NotFound.into());
    let client = CLIENT.get().ok_or_else(gone)?;
    let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
    // A helper that has to start anew for a map of ids has made it then.
    for _ in 0..2 {
        match client.ask(order, patience_s)? {
            Answer::Again => {}
            answer => return Ok(answer),
        }
    }
    Err(MounterError::NoMap)
}

fn lost(e: Errno) -> MounterError {
    MounterError::Lost(e.into())
}

impl Client {
    fn call(at: &SocketAddrUnix) -> Result<OwnedFd, MounterError> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).map_err(lost)?;
        connect(&socket, at).map_err(lost)?;
        Ok(socket)
    }

    /// A helper that systemd starts is called anew where the last one has ended.
    fn ask(&mut self, order: &Order, patience_s: u64) -> Result<Answer, MounterError> {
        let socket = match (self.socket.take(), &self.at) {
            (Some(socket), _) => socket,
            (None, Some(at)) => Self::call(at)?,
            (None, None) => return Err(lost(Errno::NOTCONN)),
        };
        self.number += 1;
        let answer = ask_by(&socket, self.number, order, patience_s).map_err(|e| match e {
            MounterError::Lost(_) if self.at.is_some() => {
                MounterError::Ended("it closed the connection".to_owned())
            }
            e => e,
        });
        if self.at.is_none() || answer.as_ref().is_ok_and(|a| *a != Answer::Again) {
            self.socket = Some(socket);
        }
        answer
    }
}

/// Gives an order by a socket, and waits for its answer.
fn ask_by(
    socket: &OwnedFd,
    number: u64,
    order: &Order,
    patience_s: u64,
) -> Result<Answer, MounterError> {
    let mut buffer = vec![0; ANSWER_LEN_MAX + FRAME];
    // What nobody waited for any more: late answers, and ends that hurt nobody.
    while receive(socket, &mut buffer, RecvFlags::DONTWAIT).is_ok_and(|n| n > 0) {}
    let bytes = encode(&Sent { number, order: order.clone() });
    if bytes.len() > ORDER_LEN_MAX + FRAME {
        return Err(MounterError::TooLong(bytes.len()));
    }
    let wait = Some(Duration::from_secs(patience_s));
    set_socket_timeout(socket, Timeout::Recv, wait).map_err(lost)?;
    match send(socket, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(_) => {}
        // Orders that nobody has taken yet fill the room.
        Err(Errno::AGAIN) => return Err(MounterError::Silent(0)),
        Err(e) => return Err(lost(e)),
    }
    loop {
        let n = match receive(socket, &mut buffer, RecvFlags::empty()) {
            Ok(0) => return Err(lost(Errno::PIPE)),
            Ok(n) => n,
            Err(Errno::AGAIN) => return Err(MounterError::Silent(patience_s)),
            Err(Errno::INTR) => continue,
            Err(e) => return Err(lost(e)),
        };
        let said = buffer.get(..n).and_then(|b| decode(b, ANSWER_LEN_MAX + FRAME).ok());
        match said {
            Some(Said::Answer(to, answer)) if to == number => return Ok(answer),
            Some(Said::Answer(..)) => {}
            Some(Said::Ended(how)) => return Err(MounterError::Ended(how)),
            None => return Err(lost(Errno::BADMSG)),
        }
    }
}

/// One message; one that is longer than the room is an error, and gone.
fn receive(socket: impl AsFd, room: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    let size = room.len();
    let (_, n) = recv(socket, room, flags | RecvFlags::TRUNC)?;
    if n > size { Err(Errno::MSGSIZE) } else { Ok(n) }
}
