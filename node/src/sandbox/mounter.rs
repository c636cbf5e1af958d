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

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, socketpair,
};
use serde::{Deserialize, Serialize};
use stork_wire::codec::{decode, encode};
use stork_wire::text::Label;

use super::{SandboxError, calls, rights};
use crate::catalog::VmFile;
use crate::config::{LogFormat, NodeConfig, VmFolder};
use crate::failpoint;
use crate::view::order::{ANSWER_LEN_MAX, Answer, ORDER_LEN_MAX, Order};
use crate::view::{no_network, obey, prepare_maps};

/// The hidden command of `stork-node` that the helper runs.
pub const COMMAND: &str = "view-helper";

/// What comes with an order or an answer beside itself.
const FRAME: usize = 64;
/// How long the helper waits before it is started again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often it looks whether the helper of another daemon has ended.
const LOCK_EVERY: Duration = Duration::from_millis(50);
/// The exit code by which the working process asks to be started again at once.
const START_AGAIN: u8 = 75;

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

/// The process that starts the working one, and starts it again. It ends with the daemon.
///
/// # Errors
/// The working process cannot be started at all.
pub fn watch(words: &[std::ffi::OsString]) -> io::Result<()> {
    loop {
        // Not by its path: there another version may be by now.
        let mut command = Command::new("/proc/self/exe");
        command.args(words).arg("--alone").stdin(Stdio::inherit());
        let status = clean(&mut command).spawn()?.wait()?;
        if status.success() {
            return Ok(());
        }
        if status.code() == Some(START_AGAIN.into()) {
            continue;
        }
        if failpoint::is_armed()
            && let Some(daemon) = rustix::process::getppid()
        {
            // A failpoint stands for a power cut, which ends all.
            return Ok(rustix::process::kill_process(daemon, rustix::process::Signal::KILL)?);
        }
        tracing::error!(%status, "the view helper ended; it is started again");
        let said = encode(&Said::Ended(status.to_string()));
        match send(io::stdin(), &said, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::AGAIN) => std::thread::sleep(AGAIN_AFTER),
            // The daemon has gone.
            Err(_) => return Ok(()),
        }
    }
}

/// How the working process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The daemon has gone.
    Over,
    /// It wants to be started again at once.
    Again,
}

impl End {
    /// Its exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Over => 0,
            Self::Again => START_AGAIN,
        }
    }
}

/// The working process: shuts itself in, and obeys until the daemon has gone.
///
/// # Errors
/// It cannot shut itself in, or what came was no order: whoever sends that is not the daemon.
pub fn work(state: &Path, vms: PathBuf) -> io::Result<End> {
    let mut folder = VmFolder::new(vms);
    match begin(state, &mut folder) {
        Ok(Some((state, _lock))) => serve(&state, &mut folder, io::stdin()),
        Ok(None) => Ok(End::Over),
        // Where the folder is none of ours, the daemon says so, and ends.
        Err(_) if is_over(io::stdin(), RecvFlags::empty())? => Ok(End::Over),
        Err(e) => Err(e),
    }
}

/// Waits for an order, and takes none. True where there comes none, since the daemon has gone.
fn is_over(socket: impl AsFd, wait: RecvFlags) -> io::Result<bool> {
    loop {
        match recv(&socket, &mut [0; 1][..], RecvFlags::PEEK | wait) {
            Ok((_, n)) => return Ok(n == 0),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Shuts this process in; the real path of the store's folder, and what no other helper has. None
/// where the daemon has gone before: another one may have the store, for as long as it runs.
fn begin(state: &Path, folder: &mut VmFolder) -> io::Result<Option<(PathBuf, OwnedFd)>> {
    let state = state.canonicalize()?;
    folder.reread();
    lock_up(&state, folder).map_err(io::Error::other)?;
    // One that a daemon before this one has left may still be at its last order.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let vms = openat(CWD, state.join("vms"), flags, Mode::empty())?;
    while let Err(e) = flock(&vms, FlockOperation::NonBlockingLockExclusive) {
        if e != Errno::AGAIN && e != Errno::INTR {
            return Err(e.into());
        }
        if is_over(io::stdin(), RecvFlags::DONTWAIT)? {
            return Ok(None);
        }
        std::thread::sleep(LOCK_EVERY);
    }
    tracing::debug!("the view helper is ready");
    Ok(Some((state, vms)))
}

/// Takes away from this process what it does not need to mount, above all the network.
fn lock_up(state: &Path, folder: &VmFolder) -> Result<(), SandboxError> {
    rights::no_dumps()?;
    no_network().map_err(|e| SandboxError::new("the network cannot be given up", e))?;
    prepare_maps(state, folder.vms().values());
    rights::keep(rights::OWNERS | rights::DEVICES | rights::MOUNTS)?;
    calls::refuse(calls::Who::Mounter)
}

fn serve(state: &Path, folder: &mut VmFolder, socket: impl AsFd) -> io::Result<End> {
    let mut room = vec![0; ORDER_LEN_MAX + FRAME];
    loop {
        let n = match receive(&socket, &mut room, RecvFlags::empty()) {
            Ok(0) => return Ok(End::Over),
            Ok(n) => n,
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        };
        let bytes = room.get(..n).unwrap_or_default();
        let sent: Sent = decode(bytes, ORDER_LEN_MAX + FRAME).map_err(io::Error::other)?;
        folder.reread();
        let answer = match whose(folder, &sent.order.vm) {
            Ok(file) => obey(state, &file, &sent.order),
            Err((why, help)) => Answer::Failed(why, help.to_owned()),
        };
        let again = answer == Answer::Again;
        let said = encode(&Said::Answer(sent.number, answer));
        match send(&socket, &said, SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(End::Over),
            Err(e) => return Err(e.into()),
        }
        if again {
            return Ok(End::Again);
        }
    }
}

/// The file of a VM, if nobody but root, or the user of this process, can have written it.
fn whose(folder: &VmFolder, vm: &Label) -> Result<VmFile, (String, &'static str)> {
    let found = folder.find(vm);
    let Some((path, file)) = found else {
        let why = format!("the view helper finds no good file of {vm}");
        return Err((why, "`stork-node check-config` says what is wrong with it"));
    };
    let own = rustix::process::geteuid().as_raw();
    for path in path.parent().into_iter().chain([path]) {
        let help = "`chown root` and `chmod go-w` it: who can write it decides what is mounted";
        let meta = path.metadata();
        let meta = meta.map_err(|e| (format!("cannot look at `{}`: {e}", path.display()), help))?;
        if (meta.uid() != 0 && meta.uid() != own) || meta.mode() & 0o022 != 0 {
            let why = format!("others than root may change `{}`", path.display());
            return Err((why, help));
        }
    }
    Ok(file.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        socketpair(family, kind, SocketFlags::CLOEXEC, None).unwrap()
    }

    /// Whoever sends something else than orders is not the daemon; when it goes, the helper ends.
    #[test]
    fn orders_that_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = VmFolder::new(dir.path().to_owned());
        for bad in [&b"garbage"[..], &[0; 9], &[0xff; 400]] {
            let (daemon, helper) = pair();
            send(&daemon, bad, SendFlags::empty()).unwrap();
            assert!(serve(dir.path(), &mut folder, &helper).is_err());
            drop(daemon);
            assert_eq!(serve(dir.path(), &mut folder, &helper).unwrap(), End::Over);
            assert!(is_over(&helper, RecvFlags::empty()).unwrap());
        }
        let (daemon, helper) = pair();
        let mut room = [0; 100];
        send(&daemon, &[1; 101], SendFlags::empty()).unwrap();
        assert_eq!(receive(&helper, &mut room, RecvFlags::empty()), Err(Errno::MSGSIZE));
    }
}
