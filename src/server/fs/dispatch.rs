//! The choice of the thread that answers a request.

use std::sync::Arc;

use super::file_system::FileSystem;
use super::request::{FsRequest, Replies};
use crate::server::faults::{self, Point};
use crate::server::in_flight::InFlight;
use crate::server::progress::Progress;
use crate::server::workers::Workers;

/// Takes requests from the adapter.
#[derive(Debug)]
pub struct Dispatcher {
    fs: Arc<FileSystem>,
    workers: Arc<Workers>,
    in_flight: InFlight,
    progress: Progress,
}

impl Dispatcher {
    /// Hands requests to `fs`; those that can sleep by `workers`, counted by `in_flight`. All that are answered are counted
    /// by `progress`.
    pub fn new(
        fs: Arc<FileSystem>,
        workers: Arc<Workers>,
        in_flight: InFlight,
        progress: Progress,
    ) -> Self {
        Self {
            fs,
            workers,
            in_flight,
            progress,
        }
    }

    /// Has a request answered: by this thread, or by a worker where that can sleep. A request that finds its container's
    /// queue full is dropped, which answers EIO.
    pub fn submit<R: Replies>(&self, request: FsRequest<'_, R>) {
        faults::at(Point::Request);
        if !request.can_sleep {
            let connection = request.connection;
            self.fs.perform(request);
            return self.progress.answered(connection);
        }
        let (slot, request) = (request.slot, request.into_owned());
        let fs = Arc::clone(&self.fs);
        let guard = self.in_flight.enter();
        let progress = self.progress.clone();
        let job = Box::new(move || {
            let connection = request.connection;
            fs.perform(request);
            progress.answered(connection);
            drop(guard);
        });
        if self.workers.run(slot, job).is_err() {
            tracing::warn!(slot, "too many of its requests wait; one is refused");
        }
    }
}
