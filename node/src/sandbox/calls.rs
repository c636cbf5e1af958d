//! System calls that the daemon never makes, refused by a seccomp filter.
//!
//! A list of what is refused, not of what is allowed: a C library of next year may use a call of
//! next year. The unit file has systemd's list of what services use in addition. The other way
//! round is a door in each: 32-bit numbers of x86 ("x32") are refused as a whole.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::SandboxError;

/// Other programs and other processes; the kernel itself; clocks, names and users of the host;
/// keys; namespaces and mounts; and calls whose faults have given root away before.
const REFUSED: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_vmsplice,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_vhangup,
    libc::SYS_personality,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_fspick,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
];

/// What the switch of a mounted view is made of.
const MOUNTS: &[i64] = &[
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
];

/// What a network is used by.
const SOCKETS: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
];

/// More that only one kind of machine has.
#[cfg(target_arch = "x86_64")]
const OF_THIS_MACHINE: &[i64] =
    &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const OF_THIS_MACHINE: &[i64] = &[];

/// Families of sockets that are left: QUIC, the control socket and the log, names.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// New namespaces by way of a new process.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

fn failed(e: impl std::error::Error + Send + Sync + 'static) -> SandboxError {
    SandboxError::new("seccomp refused the filter", e)
}

fn value(n: libc::c_int) -> u64 {
    u64::from(n.unsigned_abs())
}

/// A condition on the first argument of a call.
fn first(how: SeccompCmpOp, n: u64) -> Result<SeccompCondition, SandboxError> {
    SeccompCondition::new(0, SeccompCmpArgLen::Dword, how, n).map_err(failed)
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: libc::c_int,
) -> Result<BpfProgram, SandboxError> {
    let arch = std::env::consts::ARCH.try_into().map_err(failed)?;
    let refused = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).map_err(failed)?;
    filter.try_into().map_err(failed)
}

/// Whose calls are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The daemon: it mounts nothing.
    Daemon,
    /// The view helper: it has no socket but the one that it was started with.
    Mounter,
}

fn refused(who: Who) -> Result<BTreeMap<i64, Vec<SeccompRule>>, SandboxError> {
    let more = match who {
        Who::Daemon => MOUNTS,
        Who::Mounter => SOCKETS,
    };
    let whole = REFUSED.iter().chain(OF_THIS_MACHINE).chain(more);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = whole.map(|n| (*n, Vec::new())).collect();
    if who == Who::Daemon {
        let strange: Result<Vec<_>, _> =
            FAMILIES.iter().map(|f| first(SeccompCmpOp::Ne, value(*f))).collect();
        rules.insert(libc::SYS_socket, vec![SeccompRule::new(strange?).map_err(failed)?]);
    }
    let mut clones = Vec::new();
    for flag in NAMESPACES {
        let has = first(SeccompCmpOp::MaskedEq(value(*flag)), value(*flag))?;
        clones.push(SeccompRule::new(vec![has]).map_err(failed)?);
    }
    rules.insert(libc::SYS_clone, clones);
    Ok(rules)
}

/// Numbers from here on are of "x32", with which every call would have a second number.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Puts the rule against x32 before a program.
#[cfg(target_arch = "x86_64")]
fn without_x32(program: BpfProgram) -> BpfProgram {
    use seccompiler::sock_filter;
    let step = |code: u32, jt, jf, k| {
        let code = u16::try_from(code).unwrap_or_default();
        sock_filter { code, jt, jf, k }
    };
    let refuse = u32::from(SeccompAction::Errno(libc::ENOSYS.unsigned_abs()));
    let mut all = vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
    ];
    all.extend(program);
    all
}

#[cfg(not(target_arch = "x86_64"))]
fn without_x32(program: BpfProgram) -> BpfProgram {
    program
}

/// Refuses them from now on, with `EPERM`. `clone3` says that there is no such call, so that the C
/// library takes `clone`, whose flags a filter can see.
pub(super) fn refuse(who: Who) -> Result<(), SandboxError> {
    let clone3 = program(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?;
    let others = program(refused(who)?, libc::EPERM)?;
    seccompiler::apply_filter(&without_x32(clone3)).map_err(failed)?;
    seccompiler::apply_filter(&others).map_err(failed)
}
