//! The system calls that views need and that no crate wraps: `mount_setattr`, a process in a user
//! namespace of its own, and `FIDEDUPERANGE` for `stork vm share`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// `MOUNT_ATTR_RDONLY`: nothing is written through this mount, whoever asks.
pub(super) const RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`: setuid bits and file capabilities do not count.
pub(super) const NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`: device nodes can't be opened.
pub(super) const NODEV: u64 = 0x4;

/// Sets attributes of the mount that `mount` is the top of, and makes it private, so that nothing
/// that is mounted in the store shows up in the view.
pub(super) fn mount_setattr(mount: BorrowedFd<'_>, set: u64) -> io::Result<()> {
    setattr(
        mount,
        libc::mount_attr {
            attr_set: set,
            attr_clr: 0,
            propagation: libc::MS_PRIVATE,
            userns_fd: 0,
        },
    )
}

/// Maps the ids of a mount that is attached nowhere yet as a user namespace maps them.
pub(super) fn mount_idmap(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let userns_fd = u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    setattr(
        mount,
        libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: 0,
            userns_fd,
        },
    )
}

fn setattr(mount: BorrowedFd<'_>, attr: libc::mount_attr) -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix 1.1 has no mount_setattr")]
    // SAFETY: the descriptor is open for the whole call, the path is an empty C string, which
    // with AT_EMPTY_PATH means the descriptor itself, and the kernel only reads `attr`, whose
    // exact size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A user namespace with these maps, in the words of user_namespaces(7). A process is made for it,
/// because the kernel makes none without, and ends before this returns.
pub(super) fn user_namespace(uids: &str, gids: &str) -> io::Result<OwnedFd> {
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    #[expect(unsafe_code, reason = "no crate makes a process in a new namespace")]
    // SAFETY: without CLONE_VM the child has a copy of the memory, as after fork. It makes only
    // one system call, again and again, which touches no memory, until it is killed: so locks that
    // other threads held don't matter.
    let pid = unsafe {
        let pid = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
        if pid == 0 {
            loop {
                libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0);
            }
        }
        pid
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid.filter(|pid| pid.as_raw_nonzero().get() > 0) else {
        return Err(io::Error::last_os_error());
    };
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let made = std::fs::write(format!("{folder}/uid_map"), uids)
        .and_then(|()| std::fs::write(format!("{folder}/gid_map"), gids))
        .and_then(|()| File::open(format!("{folder}/ns/user")));
    kill_process(pid, Signal::KILL)?;
    waitpid(Some(pid), WaitOptions::empty())?;
    made.map(OwnedFd::from)
}

/// Gives this thread a mount namespace of its own, for a probe that leaves nothing behind.
pub(super) fn private_namespace() -> io::Result<()> {
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    #[expect(unsafe_code, reason = "rustix marks unshare as unsafe for its FILES flag")]
    // SAFETY: only the mount namespace of this thread is new; the descriptor table stays shared.
    let done = unsafe { unshare_unsafe(UnshareFlags::NEWNS) };
    Ok(done?)
}

/// Puts this thread, the only one of its process, into a network namespace of its own, where there
/// is nothing.
pub(crate) fn no_network() -> io::Result<()> {
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    #[expect(unsafe_code, reason = "rustix marks unshare as unsafe for its FILES flag")]
    // SAFETY: only the network namespace is new; the descriptor table stays shared.
    let done = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    Ok(done?)
}

/// A mount namespace for tests.
#[cfg(test)]
pub(super) fn own_namespace() {
    private_namespace().unwrap();
}

/// What became of an order to share bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    /// So many bytes are shared now.
    Bytes(u64),
    /// The bytes differ: nothing was changed.
    Differ,
}

/// The kernel's `struct file_dedupe_range` with room for one target.
#[repr(C)]
struct DedupeRange {
    src_offset: u64,
    src_length: u64,
    dest_count: u16,
    reserved1: u16,
    reserved2: u32,
    dest_fd: i64,
    dest_offset: u64,
    bytes_deduped: u64,
    status: i32,
    reserved: u32,
}

/// `FIDEDUPERANGE`: `_IOWR(0x94, 54, struct file_dedupe_range)`.
const FIDEDUPERANGE: libc::Ioctl = 0xC018_9436;

/// Lets `to` share the bytes of `from` at a place, if they are equal: the kernel compares them
/// while nobody can write to either, so that no race can make them another's.
pub(crate) fn dedupe(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    offset: u64,
    len: u64,
) -> io::Result<Shared> {
    let mut range = DedupeRange {
        src_offset: offset,
        src_length: len,
        dest_count: 1,
        reserved1: 0,
        reserved2: 0,
        dest_fd: to.as_raw_fd().into(),
        dest_offset: offset,
        bytes_deduped: 0,
        status: 0,
        reserved: 0,
    };
    #[expect(unsafe_code, reason = "rustix 1.1 has no FIDEDUPERANGE")]
    // SAFETY: both descriptors are open for the whole call, and the kernel reads and writes one
    // `file_dedupe_range` with `dest_count` = 1 targets, which is what `range` is.
    let done = unsafe { libc::ioctl(from.as_raw_fd(), FIDEDUPERANGE, &raw mut range) };
    match (done, range.status) {
        (0, 0) => Ok(Shared::Bytes(range.bytes_deduped)),
        (0, 1) => Ok(Shared::Differ),
        (0, status) => Err(io::Error::from_raw_os_error(status.saturating_neg())),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs a shell as root of a guest: in a user and mount namespace with these maps, in a folder.
/// Returns what it wrote, up to its first failing command.
#[cfg(test)]
pub(super) fn as_guest_root(
    map: crate::catalog::IdMap,
    folder: &std::path::Path,
    script: &str,
) -> String {
    use std::os::unix::process::CommandExt;
    let uids = format!("0 {} {}\n", map.uid, map.count);
    let namespace = user_namespace(&uids, &format!("0 {} {}\n", map.gid, map.count)).unwrap();
    let fd = namespace.as_raw_fd();
    let mut command = std::process::Command::new("/bin/sh");
    command.arg("-ec").arg(script).current_dir(folder);
    #[expect(unsafe_code, reason = "a child must enter the namespaces between fork and exec")]
    // SAFETY: the closure makes system calls only, and allocates nothing.
    let output = unsafe {
        command
            .pre_exec(move || {
                let done = libc::setns(fd, libc::CLONE_NEWUSER) == 0
                    && libc::setgid(0) == 0
                    && libc::setuid(0) == 0
                    && libc::unshare(libc::CLONE_NEWNS) == 0;
                if done { Ok(()) } else { Err(io::Error::last_os_error()) }
            })
            .output()
    };
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// The same as root with the host's ids and without the capabilities that a container's root does
/// not have, in a mount and process namespace of its own.
#[cfg(test)]
pub(super) fn as_container_root(folder: &std::path::Path, script: &str) -> String {
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--propagation", "slave", "setpriv"]);
    command.args(["--bounding-set", "-sys_admin,-sys_ptrace,-sys_module,-sys_rawio"]);
    command.args(["/bin/sh", "-c", script]).current_dir(folder);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}
