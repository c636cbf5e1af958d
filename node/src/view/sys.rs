//! The one system call that a view needs and that no crate wraps: `mount_setattr`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `MOUNT_ATTR_RDONLY`: nothing is written through this mount, whoever asks.
pub(super) const RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`: setuid bits and file capabilities do not count.
pub(super) const NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`: device nodes can't be opened.
pub(super) const NODEV: u64 = 0x4;

/// Sets attributes of the mount that `mount` is the top of, and makes it private, so that nothing
/// that is mounted in the store shows up in the view.
pub(super) fn mount_setattr(mount: BorrowedFd<'_>, set: u64) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
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

/// Gives this thread a mount namespace of its own, for a probe that leaves nothing behind.
pub(super) fn private_namespace() -> io::Result<()> {
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    #[expect(unsafe_code, reason = "rustix marks unshare as unsafe for its FILES flag")]
    // SAFETY: only the mount namespace of this thread is new; the descriptor table stays shared.
    let done = unsafe { unshare_unsafe(UnshareFlags::NEWNS) };
    Ok(done?)
}

/// The same for tests.
#[cfg(test)]
pub(super) fn own_namespace() {
    private_namespace().unwrap();
}
