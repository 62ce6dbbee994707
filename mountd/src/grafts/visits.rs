//! Visits: work that touches what a container decides, each on a thread that can be given up.
//!
//! A container can have mounted a file system that never answers on its root directory, or hold a directory that a mount
//! needs. A thread that waits there cannot be ended. So each visit has a thread of its own, and these threads share
//! descriptors with one another only ([`own_descriptors`](super::own_descriptors)). They live in the namespace of the
//! source mounts, and work with source mounts that they have opened themselves.
//!
//! A clock runs while a visit touches what the container decides, and not while it waits for our own server. After
//! [`LIMIT`] the visit is given up: it fails, and when it ever goes on, it undoes what it has done. As long as it hangs, the
//! next visit to its container fails at once.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use parking_lot::Mutex;

use super::own_descriptors::keep_only;
use super::prepared_clones::PreparedClones;
use super::probe::gone;
use super::source_mounts::SourceMounts;
use crate::container::Subject;
use crate::container::procfs::Proc;
use crate::faults;
use crate::threads::{self, Mend};
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::link::Row;

/// The time that the container may keep a visit waiting, over all. The kernel alone takes less than a millisecond.
const LIMIT: Duration = Duration::from_secs(3);

/// The threads of one container that may hang. With as many, it gets no other.
const MOST_OF_ONE: usize = 1;

/// The threads that may hang over all. With as many, no container gets one.
const MOST: usize = 256;

/// The time that a file system has to say that it is dead. The kernel says so for one whose server is gone.
const DEAD_LIMIT: Duration = Duration::from_secs(1);

/// Starts the threads of visits. Clones are the same.
#[derive(Clone)]
pub(super) struct Visits {
    jobs: Arc<Channel>,
    waiting: Arc<Mutex<HashMap<u64, Job>>>,
    last: Arc<AtomicU64>,
    hanging: Arc<Hanging>,
}

/// The work of a thread. Its descriptors come by a socket: no closure may hold any, because their numbers mean others here.
/// It is told when they did not come.
type Job = Box<dyn FnOnce(Result<(&Arc<Inside>, Vec<OwnedFd>)>) + Send>;

/// The things that the threads work with, in their own table of descriptors.
#[derive(Debug)]
struct Inside {
    mounts: SourceMounts,
    /// Clones for the next containers.
    prepared: Mutex<Vec<PreparedClones>>,
}

/// Threads that hang, by the pid and the start of the process of their container.
#[derive(Debug, Default)]
struct Hanging(Mutex<BTreeMap<Key, usize>>);

type Key = (i32, u64);

/// A visit, as the work on its thread has it.
#[derive(Debug)]
pub(super) struct Visit {
    inside: Arc<Inside>,
    clock: Arc<Clock>,
}

/// The clock of a visit.
#[derive(Debug)]
struct Clock {
    key: Key,
    hanging: Arc<Hanging>,
    inner: Mutex<Time>,
}

#[derive(Debug, Default)]
struct Time {
    /// The time of all touches that have ended.
    spent: Duration,
    /// The beginning of the touch that has not.
    since: Option<Instant>,
    state: VisitState,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum VisitState {
    #[default]
    Running,
    /// It has done its work, and is not given up any more.
    Done,
    /// Nobody waits for it any more.
    GivenUp,
}

impl std::fmt::Debug for Visits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visits").finish_non_exhaustive()
    }
}

impl Visits {
    /// Starts the thread that starts those of visits. `namespace` is that of the source mounts.
    pub(super) fn start(proc: &Proc, namespace: &OwnedFd) -> Result<Self> {
        let (jobs, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        let waiting = Arc::new(Mutex::new(HashMap::new()));
        let (ready, is_ready) = mpsc::channel();
        let of_thread = Arc::clone(&waiting);
        // The number of the socket belongs to another file in the daemon's own table, so it is not closed there.
        let mut inside = None;
        threads::start("visitor", Mend::End, move || {
            if inside.is_none() {
                match enter(&theirs) {
                    Ok(entered) => inside = Some(entered),
                    Err(error) => return drop(ready.send(Err(error))),
                }
                let _ = ready.send(Ok(()));
            }
            if let Some(inside) = &inside {
                serve(&theirs, inside, &of_thread);
            }
        })?;
        let this = Self {
            jobs: Arc::new(jobs),
            waiting,
            last: Arc::default(),
            hanging: Arc::default(),
        };
        let fds = [proc.dir().as_fd(), namespace.as_fd()];
        this.jobs.send(&0u64, &fds).map_err(|_| gone())?;
        is_ready.recv().map_err(|_| gone())??;
        Ok(this)
    }

    /// Does `work` on a thread of its own, for the container of `subject`. Neither `work` nor its result may hold a
    /// descriptor: the thread has others.
    ///
    /// # Errors
    /// The error of `work`; [`Kind::Busy`] when the container keeps it waiting for too long, or keeps an earlier one
    /// waiting.
    pub(super) fn visit<T: Send + 'static>(
        &self,
        subject: &Subject,
        work: impl FnOnce(&Visit, &Subject) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let key = (subject.pid, subject.start_ticks);
        self.hanging.admit(key)?;
        let clock = Arc::new(Clock {
            key,
            hanging: Arc::clone(&self.hanging),
            inner: Mutex::default(),
        });
        let (done, result) = mpsc::channel();
        let description = subject.description();
        let of_thread = Arc::clone(&clock);
        let job: Job = Box::new(move |given| {
            let (inside, fds) = match given {
                Ok(given) => given,
                Err(error) => return drop(done.send(Err(error))),
            };
            let visit = Visit {
                inside: Arc::clone(inside),
                clock: Arc::clone(&of_thread),
            };
            let result = threads::guard("visit", || {
                faults::at("visit");
                let pidfd = fds.into_iter().next().ok_or_else(gone)?;
                work(&visit, &description.with(pidfd))
            });
            of_thread.end();
            // Nobody waits for a visit that was given up.
            let _ = done.send(result.and_then(|result| result));
        });
        self.run(job, &[subject.pidfd.as_fd()])?;
        loop {
            match result.recv_timeout(clock.left()) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) if clock.give_up() => {
                    let pid = subject.pid;
                    tracing::warn!(pid, "a file system of the container does not answer");
                    return Err(hangs(pid));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Makes those clones that are not there for the container that is going to be in `slot`, with this generation. They
    /// stay with the threads of visits. When `waiting` is not zero any more, the rest is left out. Returns false then.
    ///
    /// # Errors
    /// When there are no more threads.
    pub(super) fn prepare(
        &self,
        slot: u64,
        generation: u32,
        rows: Vec<Row>,
        waiting: Arc<AtomicUsize>,
    ) -> Result<bool> {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move |given| {
            let made = given.map(|(inside, _)| {
                let stops = || waiting.load(Ordering::Relaxed) > 0;
                let before = inside.take_prepared(slot);
                let mut clones = before.unwrap_or_else(|| PreparedClones::none(slot, generation));
                let is_whole = clones.make(&inside.mounts, &rows, stops);
                inside.prepared.lock().push(clones);
                is_whole
            });
            let _ = done.send(made);
        });
        self.run(job, &[])?;
        result.recv().map_err(|_| gone())?
    }

    /// Returns the pids of the containers of which threads hang.
    pub(super) fn hanging(&self) -> Vec<i32> {
        let all = self.hanging.0.lock();
        all.keys().map(|(pid, _)| *pid).collect()
    }

    fn run(&self, job: Job, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.waiting.lock().insert(number, job);
        self.jobs
            .send(&number, fds)
            .inspect_err(|_| drop(self.waiting.lock().remove(&number)))
            .map_err(|e| Error::io("start", "a visit", e))
    }
}

/// Leaves the descriptors of the daemon, and enters the namespace of the source mounts.
fn enter(jobs: &Channel) -> Result<Arc<Inside>> {
    keep_only(jobs)?;
    let first = jobs.recv::<u64>().ok().flatten().ok_or_else(gone)?;
    let [proc, namespace] = <[OwnedFd; 2]>::try_from(first.1).map_err(|_| gone())?;
    let mounts = SourceMounts::join(Arc::new(Proc::of(proc)), namespace)?;
    Ok(Arc::new(Inside {
        mounts,
        prepared: Mutex::default(),
    }))
}

fn serve(jobs: &Channel, inside: &Arc<Inside>, waiting: &Arc<Mutex<HashMap<u64, Job>>>) {
    loop {
        let (number, fds) = match jobs.recv::<u64>() {
            Ok(Some(packet)) => packet,
            Ok(None) => return,
            // There is no room for the descriptors. Nobody knows whose they were, so all that wait are told.
            Err(error) => {
                let jobs = std::mem::take(&mut *waiting.lock());
                let words = error.to_string();
                for job in jobs.into_values() {
                    let error = std::io::Error::other(words.clone());
                    job(Err(Error::io("start", "a visit to a container", error)));
                }
                continue;
            }
        };
        faults::at("visitor");
        let Some(job) = waiting.lock().remove(&number) else {
            continue;
        };
        let inside = Arc::clone(inside);
        let run = move || {
            // Only a thread that shares its root and directory with no other can enter a mount namespace.
            if let Err(error) = unshare(CloneFlags::CLONE_FS) {
                return tracing::warn!(%error, "a thread cannot leave the root of the others");
            }
            job(Ok((&inside, fds)));
        };
        // If it is not started, nobody answers, and that is noticed.
        if let Err(error) = std::thread::Builder::new()
            .name("visit".to_owned())
            .spawn(run)
        {
            tracing::warn!(%error, "a visit cannot be started");
        }
    }
}

impl Inside {
    /// Returns the clones that are prepared for the container in `slot`, if there are any.
    fn take_prepared(&self, slot: u64) -> Option<PreparedClones> {
        let mut prepared = self.prepared.lock();
        let at = prepared.iter().position(|made| made.slot == slot)?;
        Some(prepared.swap_remove(at))
    }
}

impl Visit {
    /// Returns the source mounts.
    pub(super) fn mounts(&self) -> &SourceMounts {
        &self.inside.mounts
    }

    /// Returns the clones that are prepared for the container in `slot`, if there are any.
    pub(super) fn take_prepared(&self, slot: u64) -> Option<PreparedClones> {
        self.inside.take_prepared(slot)
    }

    /// Does something that the container can keep waiting. The clock runs meanwhile.
    ///
    /// # Errors
    /// When the visit was given up before.
    pub(super) fn touch<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        self.check()?;
        self.clock.inner.lock().since = Some(Instant::now());
        let result = work();
        let mut time = self.clock.inner.lock();
        let since = time.since.take();
        time.spent += since.map_or(Duration::ZERO, |since| since.elapsed());
        Ok(result)
    }

    /// Returns an error if the visit was given up.
    ///
    /// # Errors
    /// If it was.
    pub(super) fn check(&self) -> Result<()> {
        match self.clock.inner.lock().state {
            VisitState::GivenUp => Err(hangs(self.clock.key.0)),
            _ => Ok(()),
        }
    }

    /// Says that the work is done: it is not given up any more.
    ///
    /// # Errors
    /// When it was given up before. It must be undone then.
    pub(super) fn finish(&self) -> Result<()> {
        self.check()?;
        let mut time = self.clock.inner.lock();
        if time.state == VisitState::Running {
            time.state = VisitState::Done;
        }
        drop(time);
        self.check()
    }

    /// Returns true if an entry that carries our name is a graft of a daemon that was killed: its file system says
    /// ENOTCONN then. It may be a file system of the container's own, which need not answer: the question is given up
    /// after a second.
    pub(super) fn is_dead(&self, entry: &OwnedFd) -> Result<bool> {
        use rustix::io::Errno;
        let entry = super::probe::duplicate(entry)?;
        let (answer, answered) = mpsc::channel();
        let (left, has_left) = mpsc::channel();
        let asked = std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || {
                // This visit could enter no namespace while the thread hangs with the same root.
                let _ = left.send(unshare(CloneFlags::CLONE_FS));
                let _ = answer.send(rustix::fs::fstatfs(&entry).err());
            });
        asked.map_err(|e| Error::io("start", "a thread", e))?;
        has_left
            .recv()
            .map_err(|_| gone())?
            .map_err(|e| Error::io("leave", "the root of the other threads", e))?;
        let error = self.touch(|| answered.recv_timeout(DEAD_LIMIT))?;
        Ok(matches!(
            error,
            Ok(Some(Errno::NOTCONN | Errno::CONNABORTED))
        ))
    }
}

impl Clock {
    /// Returns the time after which the visit may have to be given up.
    fn left(&self) -> Duration {
        let time = self.inner.lock();
        // While it touches nothing, no time passes, and it is looked at again later.
        LIMIT
            .saturating_sub(time.total())
            .max(Duration::from_millis(10))
    }

    /// Gives the visit up if its time is over. Returns whether it was.
    fn give_up(&self) -> bool {
        let mut time = self.inner.lock();
        let late = time.state == VisitState::Running && time.total() >= LIMIT;
        if late {
            time.state = VisitState::GivenUp;
            *self.hanging.0.lock().entry(self.key).or_default() += 1;
        }
        late
    }

    /// Says that the thread ends.
    fn end(&self) {
        let mut time = self.inner.lock();
        let was = std::mem::replace(&mut time.state, VisitState::Done);
        if was == VisitState::GivenUp {
            self.hanging.ended(self.key);
        }
    }
}

impl Time {
    fn total(&self) -> Duration {
        self.spent + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Hanging {
    fn admit(&self, key: Key) -> Result<()> {
        let all = self.0.lock();
        if all.get(&key).is_some_and(|count| *count >= MOST_OF_ONE) {
            return Err(hangs(key.0));
        }
        if all.values().sum::<usize>() >= MOST {
            return Err(Error::new(
                Kind::Busy,
                format!("{MOST} threads wait for file systems of containers that do not answer"),
            )
            .remedy("`eci-fs doctor` names the containers: end them"));
        }
        Ok(())
    }

    fn ended(&self, key: Key) {
        let mut all = self.0.lock();
        if let Some(count) = all.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                all.remove(&key);
            }
        }
    }
}

fn hangs(pid: i32) -> Error {
    Error::new(
        Kind::Busy,
        format!(
            "the container of process {pid} does not let itself be looked into: a file system in it does not answer"
        ),
    )
    .remedy("end the container, or the program in it that serves the file system")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_hangs_is_refused_at_once_until_its_thread_ends() {
        let hanging = Arc::new(Hanging::default());
        let clock = |pid| Clock {
            key: (pid, 1),
            hanging: Arc::clone(&hanging),
            inner: Mutex::default(),
        };
        let one = clock(7);
        assert!(!one.give_up(), "no time has passed");
        one.inner.lock().spent = LIMIT;
        assert!(one.give_up());
        assert!(!one.give_up());
        assert!(hanging.admit((7, 1)).is_err());
        hanging.admit((7, 2)).unwrap();
        hanging.admit((8, 1)).unwrap();
        let others: Vec<Clock> = (0..MOST as i32 - 1).map(|pid| clock(100 + pid)).collect();
        for other in &others {
            other.inner.lock().spent = LIMIT;
            assert!(other.give_up());
        }
        let error = hanging.admit((8, 1)).unwrap_err();
        assert!(error.to_string().contains("256 threads"), "{error}");
        one.end();
        hanging.admit((7, 1)).unwrap();
        others.iter().for_each(Clock::end);
        assert!(hanging.0.lock().is_empty());
    }

    #[test]
    fn a_visit_that_is_done_is_not_given_up() {
        let clock = Clock {
            key: (7, 1),
            hanging: Arc::default(),
            inner: Mutex::default(),
        };
        clock.inner.lock().spent = LIMIT;
        clock.inner.lock().state = VisitState::Done;
        assert!(!clock.give_up());
    }
}
