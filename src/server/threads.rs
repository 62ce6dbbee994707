//! The threads of the server, as the kernel shows them.

use eci_fs_emulators::Host;

/// Returns whether a thread of this process, other than the one that asks, runs or wants to. A thread that cannot be looked at
/// has ended.
pub(super) fn wants_cpu(host: &Host) -> bool {
    let tasks = format!("/proc/{}/task", std::process::id());
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    let threads = host.names(&tasks).unwrap_or_default();
    threads.iter().any(|thread| {
        let is_runnable = || {
            let stat = host.read_once(&format!("{tasks}/{thread}/stat")).ok()?;
            Some(state(&stat)? == b'R')
        };
        *thread != own && is_runnable().unwrap_or(false)
    })
}

/// Returns the state in the text of a `stat` file: "12 (a name) S 1 ...". A name may have parentheses itself.
fn state(stat: &[u8]) -> Option<u8> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).copied()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn the_state_is_found_whatever_the_name_is() {
        assert_eq!(state(b"12 (odd) R (name) S 1 12"), Some(b'S'));
        assert_eq!(state(b"12 (fuser-0) R 1 12"), Some(b'R'));
        assert_eq!(state(b"12 (cut)"), None);
        assert_eq!(state(b""), None);
    }

    #[test]
    fn a_thread_that_computes_wants_a_cpu() {
        let host = Host::open().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            // It may not have begun.
            while !wants_cpu(&host) {
                std::thread::yield_now();
            }
            over.store(true, Ordering::Relaxed);
        });
    }
}
