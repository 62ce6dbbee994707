//! The state of the supervisor of system calls, for other threads of the daemon.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// The containers with listeners, and what is wrong with the supervisor.
#[derive(Debug, Default)]
pub struct Known(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The inits of the containers.
    pids: BTreeSet<i32>,
    /// Why there is no supervisor.
    trouble: Option<String>,
}

impl Known {
    /// Returns true if no container has a listener.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().pids.is_empty()
    }

    pub(super) fn set_containers(&self, pids: BTreeSet<i32>) {
        self.0.lock().pids = pids;
    }

    /// Notes why no supervisor can be started; none when one runs, or none is needed.
    pub(super) fn set_trouble(&self, why: Option<String>) {
        self.0.lock().trouble = why;
    }

    /// Returns true if the container with this init has a listener.
    pub fn has(&self, pid: i32) -> bool {
        self.0.lock().pids.contains(&pid)
    }

    /// Returns why the calls of containers wait, in words for `eci-fs doctor`; none if they are answered.
    pub fn trouble(&self) -> Option<String> {
        let why = self.0.lock().trouble.clone()?;
        Some(format!(
            "system calls of containers wait, because no supervisor of them can be started: {why}"
        ))
    }
}
