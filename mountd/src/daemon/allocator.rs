//! A bound on the arenas of glibc's allocator.

#![allow(
    unsafe_code,
    reason = "glibc is told so by a call that libc declares only"
)]

/// The most arenas of the daemon: one of the process, and one that all threads share.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Bounds the number of arenas. Must be called before any thread is started.
///
/// glibc gives threads an arena each, up to eight for each CPU. An arena reserves 64 MiB of addresses, and keeps what was
/// freed in it. Each command and each look into a container has a thread of its own, so on a host with 64 CPUs hundreds
/// of arenas would be touched, and the memory of the daemon would grow for thousands of attaches. The threads of the
/// daemon allocate little, and rarely at the same moment.
pub(super) fn bound_arenas() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the call takes two numbers, and changes nothing but a number of the allocator. No other thread runs.
        let done = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
        if done == 0 {
            tracing::debug!("the arenas of the allocator cannot be bounded, ignoring");
        }
    }
}
