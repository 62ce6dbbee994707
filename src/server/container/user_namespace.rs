//! The user namespaces of those who write, and a cache of the last answer.

use std::time::{Duration, Instant};

use eci_fs_protocol::link::UserNamespace;
use parking_lot::Mutex;
use rustix::thread::CapabilitySets;

/// A thread keeps its cached user namespace for this long, if its capabilities stay as they are: to look takes a third of
/// the time of a write. A thread that had not all capabilities gets them by entering another namespace, and is then
/// looked at again.
const CACHED_FOR: Duration = Duration::from_millis(1);

/// The user namespace of the thread that wrote last to a tunable that takes a capability.
#[derive(Debug, Default)]
pub struct UserNamespaceCache(Mutex<Option<Entry>>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    pid: u32,
    sets: CapabilitySets,
    namespace: UserNamespace,
    since: Instant,
}

impl UserNamespaceCache {
    /// Returns the namespace of the thread `pid` if it was found a moment before `now`, and the thread had the
    /// capabilities `sets` then too.
    pub fn get(&self, pid: u32, sets: CapabilitySets, now: Instant) -> Option<UserNamespace> {
        let is_same = |entry: &Entry| {
            (entry.pid, entry.sets) == (pid, sets)
                && now.saturating_duration_since(entry.since) < CACHED_FOR
        };
        self.0.lock().filter(is_same).map(|entry| entry.namespace)
    }

    /// Keeps the namespace of the thread `pid`, which was looked at from `now` on.
    pub fn put(&self, pid: u32, sets: CapabilitySets, namespace: UserNamespace, now: Instant) {
        *self.0.lock() = Some(Entry {
            pid,
            sets,
            namespace,
            since: now,
        });
    }
}
