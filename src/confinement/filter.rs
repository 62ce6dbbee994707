//! A filter of system calls (seccomp): the calls that a process is left with, and nothing else.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// System calls of each program of ours that has threads, which are allowed with any arguments.
const ALLOWED: &[libc::c_long] = &[
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

/// The rules of the calls that are allowed. A call is allowed if one of its rules holds, or if it has none; a rule holds if all
/// its conditions do.
#[derive(Debug)]
pub(crate) struct Filter(BTreeMap<i64, Vec<SeccompRule>>);

/// A condition that an argument of a call has to meet.
pub(crate) type Condition = Result<SeccompCondition, BackendError>;

impl Filter {
    /// Returns the rules of what each program takes: memory, threads, time and chance. The calls of `allowed` are allowed with
    /// any arguments.
    ///
    /// # Errors
    /// When a condition is none.
    pub(crate) fn new(allowed: &[libc::c_long]) -> io::Result<Self> {
        let all = ALLOWED.iter().chain(allowed);
        let mut this = Self(all.map(|call| (*call, Vec::new())).collect());
        // Nothing is executed that was not there when the program started.
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            this.allow(call, [clear(2, libc::PROT_EXEC)])?;
        }
        // Threads, and neither processes nor namespaces.
        let thread = [has(0, THREAD), clear(0, !(THREAD | THREAD_TOO))];
        this.allow(libc::SYS_clone, thread)?;
        this.allow(libc::SYS_prctl, [equals(0, libc::PR_SET_NAME)])?;
        // A panic ends the process by a signal to itself.
        let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let abort = [equals(0, pid), equals(2, libc::SIGABRT)];
        this.allow(libc::SYS_tgkill, abort)?;
        Ok(this)
    }

    /// Allows a call where all these conditions hold, beside where it is allowed already.
    ///
    /// # Errors
    /// When a condition is none.
    pub(crate) fn allow<const N: usize>(
        &mut self,
        call: libc::c_long,
        conditions: [Condition; N],
    ) -> io::Result<()> {
        let conditions = conditions.into_iter().collect::<Result<Vec<_>, _>>();
        let rule = conditions
            .and_then(SeccompRule::new)
            .map_err(io::Error::other)?;
        self.0.entry(call).or_default().push(rule);
        Ok(())
    }

    /// Forbids everything else, for this thread and those it starts. A forbidden call answers EPERM: a bug then shows as an
    /// error of one answer, in the log, and not as the death of the program.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn install(self) -> io::Result<()> {
        // The one that the next filter would not let be installed comes first. Of two answers the kernel takes the stricter.
        let no_clone3 = SeccompFilter::new(
            BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS as u32),
            target_arch()?,
        );
        let filter = SeccompFilter::new(
            self.0,
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
}

/// Holds where none of `bits` is set in the argument with this number.
pub(crate) fn clear(argument: u8, bits: libc::c_int) -> Condition {
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

/// Holds where the lower half of the argument has this value.
pub(crate) fn equals(argument: u8, value: libc::c_int) -> Condition {
    let value = u64::from(value as u32);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// Holds where the address is none.
pub(crate) fn is_null(argument: u8) -> Condition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}

fn target_arch() -> io::Result<TargetArch> {
    std::env::consts::ARCH.try_into().map_err(io::Error::other)
}
