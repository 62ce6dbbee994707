//! The choice of the thread that answers a request.

use std::sync::Arc;

use super::file_system::FileSystem;
use super::request::{FsRequest, Replies};
use crate::server::faults::{self, Point};
use crate::server::in_flight::InFlight;
use crate::server::workers::Workers;

/// Takes requests from the adapter.
#[derive(Debug)]
pub struct Dispatcher {
    fs: Arc<FileSystem>,
    workers: Arc<Workers>,
    in_flight: InFlight,
}

impl Dispatcher {
    /// Hands requests to `fs`; those that can sleep by `workers`, counted by `in_flight`.
    pub fn new(fs: Arc<FileSystem>, workers: Arc<Workers>, in_flight: InFlight) -> Self {
        Self {
            fs,
            workers,
            in_flight,
        }
    }

    /// Has a request answered: by this thread, or by a worker where that can sleep. A request that finds its container's
    /// queue full is dropped, which answers EIO.
    pub fn submit<R: Replies>(&self, request: FsRequest<'_, R>) {
        faults::at(Point::Request);
        if !request.can_sleep {
            return self.fs.perform(request);
        }
        let (slot, request) = (request.slot, request.into_owned());
        let fs = Arc::clone(&self.fs);
        let guard = self.in_flight.enter();
        let job = Box::new(move || {
            fs.perform(request);
            drop(guard);
        });
        if self.workers.run(slot, job).is_err() {
            tracing::warn!(slot, "too many of its requests wait; one is refused");
        }
    }
}
