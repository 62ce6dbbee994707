//! What the supervisor gives up before it takes the first call.
//!
//! It keeps the two capabilities that writing to the memory of a thread takes. Whoever takes it over can do with them what root
//! can: Landlock would forbid that memory, too. So it reads nothing that a container writes but numbers in a struct of the
//! kernel, and its filter leaves it no call to start a program, make a socket or mount.

use std::collections::BTreeMap;
use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use eci_fs_protocol::link::SERVER_USERS;
use eci_fs_protocol::vet::USER;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::DumpableBehavior;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// The capabilities that stay: to open the memory of a process of another user, and to be let into it.
const KEPT: [Capability; 2] = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_SYS_PTRACE];

/// System calls that are allowed with any arguments, by what they are needed for.
const ALLOWED: &[libc::c_long] = &[
    // Calls, views, memory of threads, the daemon, the log.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_timerfd_settime,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads. Another filter answers ENOSYS to clone3, and the C library then uses clone.
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
];

/// Gives up all that answering does not take. The process must have one thread only.
///
/// # Errors
/// When the kernel refuses; then the supervisor must not start.
pub(super) fn confine() -> io::Result<()> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    // The bounding set comes first, because leaving it takes CAP_SETPCAP.
    for cap in caps::all() {
        if !kept.contains(&cap) && caps::has_cap(None, CapSet::Bounding, cap).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, cap).map_err(trouble)?;
        }
    }
    rustix::thread::set_keep_capabilities(true)?;
    become_user()?;
    rustix::thread::set_keep_capabilities(false)?;
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(trouble)?;
    }
    // The effective set must not be more than the permitted one.
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Effective] {
        caps::set(None, set, &kept).map_err(trouble)?;
    }
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    install()
}

fn trouble(error: caps::errors::CapsError) -> io::Error {
    io::Error::other(format!(
        "the supervisor of system calls needs CAP_DAC_OVERRIDE and CAP_SYS_PTRACE, and no other capability: {error}"
    ))
}

fn become_user() -> io::Result<()> {
    let done = match become_number(USER) {
        // The number is not in the map of the user namespace.
        Err(Errno::EINVAL) => become_number(SERVER_USERS[1]),
        other => other,
    };
    done.map_err(|error| {
        io::Error::other(format!(
            "the supervisor cannot become the user {USER}: {error}"
        ))
    })
}

fn become_number(number: u32) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(number), Gid::from_raw(number));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}

/// Forbids everything else, for this thread and those it starts.
fn install() -> io::Result<()> {
    let arch = || std::env::consts::ARCH.try_into().map_err(io::Error::other);
    let no_clone3 = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        arch()?,
    );
    let filter = SeccompFilter::new(
        rules()?,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        arch()?,
    );
    for filter in [no_clone3, filter] {
        let program: BpfProgram = filter
            .and_then(TryInto::try_into)
            .map_err(io::Error::other)?;
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Returns the rules of all calls. A call is allowed if one of its rules holds.
fn rules() -> io::Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // No file is created or cut.
    let changes = libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);
    rules.insert(libc::SYS_openat, vec![rule(masked(2, changes as u32, 0))?]);
    let requests = [
        libc::SECCOMP_IOCTL_NOTIF_RECV,
        libc::SECCOMP_IOCTL_NOTIF_SEND,
        libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
        libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
    ];
    let requests = requests.map(|request| rule(equals(1, request as u32)));
    rules.insert(
        libc::SYS_ioctl,
        requests.into_iter().collect::<Result<_, _>>()?,
    );
    // A build with debug assertions asks whether a descriptor is open before it closes that.
    let commands = [libc::F_DUPFD_CLOEXEC, libc::F_GETFD];
    let commands = commands.map(|command| rule(equals(1, command as u32)));
    rules.insert(
        libc::SYS_fcntl,
        commands.into_iter().collect::<Result<_, _>>()?,
    );
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![rule(masked(2, libc::PROT_EXEC as u32, 0))?]);
    }
    // Threads, and neither processes nor namespaces.
    let thread = (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_THREAD) as u32;
    rules.insert(libc::SYS_clone, vec![rule(masked(0, thread, thread))?]);
    rules.insert(
        libc::SYS_prctl,
        vec![rule(equals(0, libc::PR_SET_NAME as u32))?],
    );
    // A panic ends the process by a signal to itself.
    let own = equals(0, std::process::id());
    rules.insert(libc::SYS_tgkill, vec![rule(own)?]);
    Ok(rules)
}

type Condition = Result<SeccompCondition, BackendError>;

fn rule(condition: Condition) -> io::Result<SeccompRule> {
    condition
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

fn masked(argument: u8, mask: u32, value: u32) -> Condition {
    let operator = SeccompCmpOp::MaskedEq(u64::from(mask));
    SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        u64::from(value),
    )
}

fn equals(argument: u8, value: u32) -> Condition {
    let value = u64::from(value);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}
