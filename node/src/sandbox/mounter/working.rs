//! The helper's own side: the process that starts the working one again, and the working one, which
//! shuts itself in and obeys.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use stork_wire::codec::{decode, encode};
use stork_wire::text::Label;

use super::super::{SandboxError, calls, rights};
use super::{FRAME, Said, Sent, clean, receive};
use crate::catalog::VmFile;
use crate::config::VmFolder;
use crate::failpoint;
use crate::view::order::{Answer, ORDER_LEN_MAX};
use crate::view::{no_network, obey, prepare_maps};

/// How long the helper waits before it is started again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often it looks whether the helper of another daemon has ended.
const LOCK_EVERY: Duration = Duration::from_millis(50);
/// The exit code by which the working process asks to be started again at once.
const START_AGAIN: u8 = 75;

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
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

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
