//! The choice of the thread that answers a request.
//!
//! The threads that read from a connection sort requests. They answer one at once only where that delays nobody: the
//! request cannot sleep, its container has nothing waiting and has CPU time left, and, where a view has to be computed,
//! nobody else waits on the connection. All other requests go to the queue of their container.

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs_protocol::link::Connection;

use super::file_system::{Class, FileSystem};
use super::request::{FsRequest, Replies};
use crate::server::account::{Account, SORTING};
use crate::server::clock;
use crate::server::error::Errno;
use crate::server::faults::{self, Point};
use crate::server::in_flight::{InFlight, InFlightGuard};
use crate::server::progress::Progress;
use crate::server::workers::{Job, Lane, Workers};

/// A request that is answered at once takes less than this by the clock, unless others get the CPU meanwhile, or a view takes
/// long. Only then the CPU time is looked at.
const LONG: Duration = Duration::from_micros(100);

/// The CPU time of reading a request, sorting and queuing it, where it is not measured.
const QUEUING: Duration = Duration::from_micros(10);

thread_local! {
    /// The CPU time of this thread when it had queued the request before; none if it has answered that one.
    static SORTED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// The connections, as far as they tell whether requests wait in the kernel.
pub trait Backlog: Debug + Send + Sync {
    /// Returns whether a request waits on this connection that no thread has taken.
    fn is_waiting(&self, connection: Connection) -> bool;
}

/// Takes requests from the adapter.
#[derive(Debug)]
pub struct Dispatcher {
    fs: Arc<FileSystem>,
    workers: Arc<Workers>,
    backlog: Arc<dyn Backlog>,
    in_flight: InFlight,
    progress: Progress,
}

impl Dispatcher {
    /// Hands requests to `fs`: at once, or by `workers`, counted by `in_flight`. All that are answered are counted by
    /// `progress`.
    pub fn new(
        fs: Arc<FileSystem>,
        workers: Arc<Workers>,
        backlog: Arc<dyn Backlog>,
        in_flight: InFlight,
        progress: Progress,
    ) -> Self {
        Self {
            fs,
            workers,
            backlog,
            in_flight,
            progress,
        }
    }

    /// Has a request answered: by this thread, or by a worker.
    pub fn submit<R: Replies>(&self, request: FsRequest<'_, R>) {
        faults::at(Point::Request);
        let class = self.fs.class(&request);
        let connection = request.connection;
        let sorted = SORTED.take();
        if class == Class::Walk {
            self.fs.perform(request);
            return self.progress.answered(connection);
        }
        let account = self.fs.account(request.slot);
        account.count();
        let now = Instant::now();
        if self.is_at_once(class, &account, connection, now) {
            // A clock of the CPU takes a system call, so it is not looked at for what is in a table.
            let used = (class == Class::Computes).then(clock::of_this_thread);
            self.fs.perform(request);
            self.progress.answered(connection);
            let end = Instant::now();
            let cost = cost(end.saturating_duration_since(now), used);
            return account.charge(end, cost + SORTING);
        }
        self.queue(&account, class, request.into_owned(), now);
        let until = clock::of_this_thread();
        let took = sorted.map_or(QUEUING, |since| until.saturating_sub(since));
        // A thread also reads requests that no container is charged for, such as those by which the kernel forgets
        // nodes.
        account.spend(took.min(LONG));
        SORTED.set(Some(until));
    }

    /// Returns whether this thread answers the request.
    fn is_at_once(
        &self,
        class: Class,
        account: &Account,
        connection: Connection,
        now: Instant,
    ) -> bool {
        let is_free = || account.is_idle() && account.is_within(now);
        match class {
            Class::Walk | Class::Closes => true,
            Class::Cheap => is_free(),
            Class::Computes => {
                is_free() && !account.is_slow(now) && !self.backlog.is_waiting(connection)
            }
            Class::Sleeps => false,
        }
    }

    fn queue<R: Replies>(
        &self,
        account: &Arc<Account>,
        class: Class,
        request: FsRequest<'static, R>,
        now: Instant,
    ) {
        let lane = match class {
            Class::Sleeps => Lane::Sleeping,
            _ => Lane::Computing,
        };
        let waiting = Waiting {
            fs: Arc::clone(&self.fs),
            request,
            progress: self.progress.clone(),
            _guard: self.in_flight.enter(),
        };
        if let Err(job) = self.workers.run_later(account, lane, Box::new(waiting)) {
            if account.refuse(now) {
                let slot = account.slot();
                tracing::warn!(
                    slot,
                    "too many requests of the container wait: more get EAGAIN"
                );
            }
            job.refuse(Errno::AGAIN);
        }
    }
}

/// Returns the CPU time of a request that took `elapsed` by the clock. `used` is the CPU time of this thread before it; none
/// for a request that computes nothing. On a busy host the clock says little: a container whose requests were
/// interrupted would pay for others, and count as one whose requests take long.
fn cost(elapsed: Duration, used: Option<Duration>) -> Duration {
    match used {
        Some(used) if elapsed > LONG => clock::of_this_thread().saturating_sub(used),
        _ => elapsed.min(LONG),
    }
}

/// A request that waits for its turn.
#[derive(Debug)]
struct Waiting<R: Replies> {
    fs: Arc<FileSystem>,
    request: FsRequest<'static, R>,
    progress: Progress,
    _guard: InFlightGuard,
}

impl<R: Replies> Job for Waiting<R> {
    fn answer(self: Box<Self>) {
        let connection = self.request.connection;
        self.fs.perform(self.request);
        self.progress.answered(connection);
    }

    fn refuse(self: Box<Self>, errno: Errno) {
        let connection = self.request.connection;
        self.request.operation.refuse(errno);
        self.progress.answered(connection);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::thread::{self, ThreadId};

    use eci_fs_emulators::{EMULATORS, Host, Settings};

    use super::*;
    use crate::server::fs::request::{Operation, Reply};
    use crate::server::ids::NodeId;

    /// Tells which thread has answered.
    #[derive(Debug)]
    struct ByThread(Sender<ThreadId>);

    impl<T> Reply<T> for ByThread {
        fn send(self, _answer: Result<T, Errno>) {
            self.0.send(thread::current().id()).unwrap();
        }
    }

    #[derive(Debug)]
    struct ByThreads;

    impl Replies for ByThreads {
        type Entry = ByThread;
        type Attr = ByThread;
        type Open = ByThread;
        type Data = ByThread;
        type Entries = ByThread;
        type Written = ByThread;
        type Poll = ByThread;
        type Released = ByThread;
    }

    #[derive(Debug)]
    struct Nobody;

    impl Backlog for Nobody {
        fn is_waiting(&self, _connection: Connection) -> bool {
            false
        }
    }

    /// Its answer may take a walk through a directory graft, with questions to the daemon.
    #[test]
    fn the_thread_that_sorts_requests_reads_no_link() {
        let fs = FileSystem::new(
            Host::open().unwrap(),
            None,
            Settings::default(),
            Duration::from_millis(10),
        );
        let dispatcher = Dispatcher::new(
            fs,
            Workers::start(Box::new(|| false)).unwrap(),
            Arc::new(Nobody),
            InFlight::default(),
            Progress::default(),
        );
        let views = EMULATORS.iter().map(|emulator| emulator.facts().id.into());
        let below = [1 << 16, 1 << 38, 1 << 39];
        let entries: Vec<u64> = views.chain(below).collect();
        let of_container = entries.into_iter().map(|entry| 7 << 40 | entry);
        for id in of_container.chain([1]).map(NodeId::from_raw) {
            for connection in Connection::ALL {
                let (sender, receiver) = channel();
                let reply = ByThread(sender);
                let read: Operation<'_, ByThreads> = Operation::ReadLink { reply };
                dispatcher.submit(FsRequest::new(connection, id, read));
                assert_ne!(receiver.recv().unwrap(), thread::current().id(), "{id:?}");
            }
        }
    }
}
