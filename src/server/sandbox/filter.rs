//! The filter of system calls (seccomp): those that serving takes, with the arguments that serving takes, and nothing else.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// System calls that are allowed with any arguments, by what they are needed for.
const ALLOWED: &[libc::c_long] = &[
    // Requests, kernel files, the link.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    // A message can name an address, which the kernel passes over on a connected socket of packets. There is no other.
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_lseek,
    libc::SYS_getdents64,
    libc::SYS_dup3,
    libc::SYS_shutdown,
    libc::SYS_accept4,
    libc::SYS_ppoll,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_inotify_rm_watch,
    // The permissions of a thread that writes to a tunable.
    libc::SYS_capget,
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
    libc::SYS_clock_getres,
    libc::SYS_getrandom,
];

/// The flags of a thread, as the C library has them: it shares everything with the others.
const THREAD: libc::c_int =
    libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;

/// The flags that a clone may have beside those of [`THREAD`].
const THREAD_TOO: libc::c_int = libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID
    | libc::CLONE_CHILD_SETTID
    // musl has it, and the kernel passes over it.
    | libc::CLONE_DETACHED;

/// Forbids everything else, for this thread and those it starts. A forbidden call answers EPERM: a bug in the server then
/// shows as an error of one view, in the log, and not as the server's death.
pub(super) fn install() -> io::Result<()> {
    // The one that the next filter would not let be installed comes first. Of two answers the kernel takes the stricter.
    let no_clone3 = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        target_arch()?,
    );
    let filter = SeccompFilter::new(
        rules()?,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        target_arch()?,
    );
    for filter in [no_clone3, filter] {
        let program: BpfProgram = filter
            .and_then(TryInto::try_into)
            .map_err(io::Error::other)?;
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Returns the rules of all calls. A call is allowed if one of its rules holds, and a rule if all its conditions do.
fn rules() -> io::Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // Files are opened for reading only: neither O_WRONLY nor O_RDWR, and nothing is created or cut.
    let write_bits =
        libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);
    rules.insert(libc::SYS_openat, vec![rule([clear(2, write_bits)])?]);
    // The only option of a socket that can be read is the peer.
    let peer = [equals(1, libc::SOL_SOCKET), equals(2, libc::SO_PEERCRED)];
    rules.insert(libc::SYS_getsockopt, vec![rule(peer)?]);
    // The only sockets are pairs of packets, which lead to nobody else. None is sent to an address.
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    let pair = [equals(0, libc::AF_UNIX), equals(1, kind), equals(2, 0)];
    rules.insert(libc::SYS_socketpair, vec![rule(pair)?]);
    rules.insert(libc::SYS_sendto, vec![rule([is_null(4)])?]);
    // Of a descriptor a copy can be made, and the state can be locked. None can be made to send signals. A build with debug
    // assertions asks whether a descriptor is open before it closes that.
    let commands = [libc::F_DUPFD_CLOEXEC, libc::F_SETLK, libc::F_GETFD];
    let commands = commands.map(|command| rule([equals(1, command)]));
    rules.insert(
        libc::SYS_fcntl,
        commands.into_iter().collect::<Result<_, _>>()?,
    );
    // Nothing is executed that was not there when the server started.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![rule([clear(2, libc::PROT_EXEC)])?]);
    }
    // Threads, and neither processes nor namespaces.
    let thread = [has(0, THREAD), clear(0, !(THREAD | THREAD_TOO))];
    rules.insert(libc::SYS_clone, vec![rule(thread)?]);
    rules.insert(libc::SYS_prctl, vec![rule([equals(0, libc::PR_SET_NAME)])?]);
    // A thread may give way to others of the server. The priority of no other thread can be changed.
    let own = [equals(0, libc::PRIO_PROCESS as i32), equals(1, 0)];
    rules.insert(libc::SYS_setpriority, vec![rule(own)?]);
    // It may also have a shorter or longer time slice. Without capabilities it cannot come before others.
    let own = [equals(0, 0), equals(2, 0)];
    rules.insert(libc::SYS_sched_setattr, vec![rule(own)?]);
    // A panic ends the process by a signal to itself.
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let abort = [equals(0, pid), equals(2, libc::SIGABRT)];
    rules.insert(libc::SYS_tgkill, vec![rule(abort)?]);
    Ok(rules)
}

type Condition = Result<SeccompCondition, seccompiler::BackendError>;

fn rule<const N: usize>(conditions: [Condition; N]) -> io::Result<SeccompRule> {
    conditions
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .and_then(SeccompRule::new)
        .map_err(io::Error::other)
}

/// Holds where none of `bits` is set in the argument with this number.
fn clear(argument: u8, bits: libc::c_int) -> Condition {
    masked(argument, bits, 0)
}

/// Holds where all of `bits` are set.
fn has(argument: u8, bits: libc::c_int) -> Condition {
    masked(argument, bits, bits)
}

fn masked(argument: u8, mask: libc::c_int, value: libc::c_int) -> Condition {
    let (mask, value) = (mask as u32, value as u32);
    let operator = SeccompCmpOp::MaskedEq(u64::from(mask));
    SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        operator,
        u64::from(value),
    )
}

fn equals(argument: u8, value: libc::c_int) -> Condition {
    let value = u64::from(value as u32);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// Holds where the address is none.
fn is_null(argument: u8) -> Condition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}

fn target_arch() -> io::Result<TargetArch> {
    std::env::consts::ARCH.try_into().map_err(io::Error::other)
}
