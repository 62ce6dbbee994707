//! Faults on purpose, for tests: only in a build with debug assertions, and only when `ECI_FS_DAEMON_FAULT` says so.
//!
//! The variable names a thread of [`crate::threads`] and the how manieth piece of its work panics: `watchdog:1`. In a
//! release build there is no such code.
//!
//! Places where a daemon or `eci-runc` is killed have names too: `isolate-claimed:1`. There the process ends at once. At
//! others it waits for half a second: `attach-begun:2`. A comma separates two faults.

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

/// Waits for half a second if the fault is one of the place `name`, and its time has come: other threads then surely do
/// what they otherwise seldom do at this place.
#[cfg(debug_assertions)]
#[expect(
    clippy::disallowed_methods,
    reason = "there is no event: nothing happens here"
)]
pub(crate) fn wait_at(name: &str) {
    if has_come(name) {
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

#[cfg(debug_assertions)]
fn has_come(name: &str) -> bool {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    /// The name of a fault, its time, and how often the place was reached.
    type Fault = (String, u64, AtomicU64);
    static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();
    let faults = FAULTS.get_or_init(|| {
        let text = std::env::var("ECI_FS_DAEMON_FAULT").unwrap_or_default();
        let fault = |text: &str| {
            let (name, time) = text.split_once(':')?;
            Some((name.to_owned(), time.parse().ok()?, AtomicU64::new(0)))
        };
        text.split(',').filter_map(fault).collect()
    });
    let mut faults = faults.iter().filter(|(fault, ..)| fault == name);
    faults.any(|(_, time, times)| times.fetch_add(1, Ordering::Relaxed) + 1 == *time)
}

/// Does nothing: there are no faults in this build.
#[cfg(not(debug_assertions))]
pub(crate) fn at(_: &str) {}

/// Does nothing: there are no faults in this build.
#[cfg(not(debug_assertions))]
pub fn kill_at(_: &str) {}

/// Does nothing: there are no faults in this build.
#[cfg(not(debug_assertions))]
pub(crate) fn wait_at(_: &str) {}
