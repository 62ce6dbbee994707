//! The number of requests that were answered, by which the daemon tells a server that is busy from one that hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eci_fs_protocol::link::Connection;

/// The requests that were answered on each connection. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<[AtomicU64; 2]>);

impl Progress {
    /// Counts a request that was answered.
    pub fn answered(&self, connection: Connection) {
        let number = usize::from(connection == Connection::Live);
        self.0[number].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the numbers, in the order of [`Connection::ALL`].
    pub fn counts(&self) -> Vec<u64> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.0.iter().map(load).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_is_counted_by_itself() {
        let progress = Progress::default();
        progress.answered(Connection::Live);
        progress.clone().answered(Connection::Live);
        progress.answered(Connection::Cached);
        assert_eq!(progress.counts(), [1, 2]);
        assert_eq!(Connection::ALL, [Connection::Cached, Connection::Live]);
    }
}
