//! Faults on purpose, for tests: only in a build with debug assertions, and only when `ECI_FS_DAEMON_FAULT` says so.
//!
//! The variable names a thread of [`crate::threads`] and the how manieth piece of its work panics: `watchdog:1`. In a
//! release build there is no such code.
//!
//! Places where a daemon or `eci-runc` is killed have names too: `isolate-claimed:1`. There the process ends at once.

/// Panics if the fault is one of the thread `name`, and its time has come.
#[cfg(debug_assertions)]
pub(crate) fn at(name: &str) {
    assert!(!has_come(name), "a fault on purpose");
}

/// Kills this process if the fault is one of the place `name`, and its time has come.
#[cfg(debug_assertions)]
pub fn kill_at(name: &str) {
    if has_come(name) {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
}

#[cfg(debug_assertions)]
fn has_come(name: &str) -> bool {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static FAULT: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static TIMES: AtomicU64 = AtomicU64::new(0);
    let fault = FAULT.get_or_init(|| {
        let text = std::env::var("ECI_FS_DAEMON_FAULT").ok()?;
        let (name, time) = text.split_once(':')?;
        Some((name.to_owned(), time.parse().ok()?))
    });
    match fault {
        Some((fault, time)) if fault == name => TIMES.fetch_add(1, Ordering::Relaxed) + 1 == *time,
        _ => false,
    }
}

/// Does nothing: there are no faults in this build.
#[cfg(not(debug_assertions))]
pub(crate) fn at(_: &str) {}

/// Does nothing: there are no faults in this build.
#[cfg(not(debug_assertions))]
pub fn kill_at(_: &str) {}
