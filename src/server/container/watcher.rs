//! The watcher of limits. Inotify tells it when a limit of a container, or of an ancestor of it, is written.
//!
//! The next read of any view then sees the change, whatever the freshness: the versions of the container are marked stale,
//! and the kernel is told to believe its attributes no more. That is a notification, but none in the request path: it is
//! sent from this thread, and concerns attributes only, so that it waits for no page.
//!
//! CPU hotplug, and an effective cpuset that follows a sibling's exclusive one, send no event; the freshness bound
//! covers them, and for static views, which are believed for longer, [`super::STATIC_BOUND`].

use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader};
use rustix::io::Errno;

use super::Attached;
use crate::server::broker::BrokerClient;
use crate::server::clock;

/// The time that a new container waits for its watches.
const PATIENCE: Duration = Duration::from_secs(2);

/// The least time between two moments at which the kernel is told of changes of one container. A container that may write its
/// own limits can do so a million times a second.
const APART: Duration = Duration::from_millis(10);

/// The longest time that a change waits because its container has used up its share.
const LATEST: Duration = Duration::from_secs(1);

/// The time for which no events are waited for while containers are to be told later. So a container that writes without rest
/// wakes the watcher a thousand times a second at most.
const REST: Duration = Duration::from_millis(1);

/// The bytes of events that are read at once, and those of one event. A file that is watched has no name in its events.
const BUFFER: usize = 4096;
const EVENT: usize = 16;

/// Watches the limits of containers.
#[derive(Debug)]
pub struct Watcher {
    inotify: OwnedFd,
    /// Written to when another thread than that of the watcher has taken events.
    woken: OwnedFd,
    watched: Mutex<Watched>,
    /// Set while events have been taken, and the containers that they concern may not know yet.
    taking: AtomicBool,
}

/// The containers by watch descriptor. Containers share their ancestors, and inotify gives an inode one descriptor.
#[derive(Debug, Default)]
struct Watched {
    slots: HashMap<i32, BTreeSet<u64>>,
    containers: HashMap<u64, Watch>,
    /// The containers whose limits have changed, and of which the kernel has not been told that.
    news: BTreeSet<u64>,
}

/// A container that is watched.
#[derive(Debug)]
struct Watch {
    container: Weak<Attached>,
    /// The time from which on the kernel may be told of it again; none for at once.
    next: Option<Instant>,
}

impl Watcher {
    /// Makes a watcher that watches nobody yet.
    ///
    /// # Errors
    /// When the user has too many inotify instances (/proc/sys/fs/inotify/max_user_instances).
    pub fn new() -> std::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        let woken = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            inotify,
            woken,
            watched: Mutex::default(),
            taking: AtomicBool::new(false),
        })
    }

    /// Watches the limits of a container: the daemon adds the watches, which `broker` asks for. Where no more watches can be had
    /// the freshness bound has to do.
    pub fn add(&self, slot: u64, container: &Arc<Attached>, broker: &BrokerClient) {
        let (dirs, files) = container.limit_files();
        let until = Instant::now() + PATIENCE;
        let watches = match broker.watch(self.inotify.as_fd(), &dirs, files, until) {
            Ok(watches) => watches,
            Err(error) => {
                tracing::warn!(%error, slot, "limits cannot be watched; they show within the freshness, ignoring");
                return;
            }
        };
        // Not every kernel has every file.
        self.enter(slot, container, watches.into_iter().flatten());
        // A change until now may have been nobody's.
        container.expire();
        container.set_watched();
    }

    /// Notes whose these watches are.
    fn enter(&self, slot: u64, container: &Arc<Attached>, watches: impl Iterator<Item = i32>) {
        let mut watched = self.watched.lock();
        let watch = Watch {
            container: Arc::downgrade(container),
            next: None,
        };
        watched.containers.insert(slot, watch);
        for descriptor in watches {
            watched.slots.entry(descriptor).or_default().insert(slot);
        }
    }

    /// Watches a container no more.
    pub fn remove(&self, slot: u64) {
        let mut watched = self.watched.lock();
        watched.containers.remove(&slot);
        watched.news.remove(&slot);
        watched.slots.retain(|descriptor, slots| {
            slots.remove(&slot);
            if slots.is_empty() {
                // A cgroup that was removed has taken its watches with it.
                let _ = inotify::remove_watch(&self.inotify, *descriptor);
            }
            !slots.is_empty()
        });
    }

    /// Has each container whose limits have been written until now believe its cached limits no more. The kernel queues the event
    /// before the write returns to its caller.
    pub fn catch_up(&self) {
        // In this order: an event that is no longer queued has been taken, and before that the flag was set.
        if self.has_event() || self.taking.load(Ordering::SeqCst) {
            let noted = self.take(&mut self.watched.lock());
            if noted.is_ok_and(|slots| !slots.is_empty()) {
                // The counter is at its end only if the watcher is awake.
                let _ = rustix::io::write(&self.woken, &1u64.to_ne_bytes());
            }
        }
    }

    /// Returns whether an event is queued. An error counts as one.
    fn has_event(&self) -> bool {
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())) != Ok(0)
    }

    /// Waits for an event, or for another thread that has taken one.
    fn wait(&self) {
        let mut fds = [&self.inotify, &self.woken].map(|fd| PollFd::new(fd, PollFlags::IN));
        let _ = poll(&mut fds, None);
        let _ = rustix::io::read(&self.woken, &mut [0; 8]);
    }

    /// Takes the events that are queued, and returns the slots of the containers that they concern. These believe their cached
    /// limits no more.
    fn take(&self, watched: &mut Watched) -> rustix::io::Result<BTreeSet<u64>> {
        let mut hit = BTreeSet::new();
        self.taking.store(true, Ordering::SeqCst);
        // A read that leaves room has taken all. So a container that goes on writing keeps nobody here.
        let mut is_full = true;
        while is_full && self.has_event() {
            let events = match read_events(&self.inotify) {
                Err(Errno::INTR) => continue,
                events => events?,
            };
            is_full = events.len() >= BUFFER / EVENT;
            for (descriptor, flags) in events {
                watched.sort(descriptor, flags, &mut hit);
            }
        }
        for slot in &hit {
            let watch = watched.containers.get(slot);
            if let Some(container) = watch.and_then(|watch| watch.container.upgrade()) {
                container.forget_limits();
            }
        }
        watched.news.extend(&hit);
        self.taking.store(false, Ordering::SeqCst);
        Ok(hit)
    }

    /// Takes events for ever, and calls `changed` with the slot of each container whose limits have changed. That is charged to
    /// the container.
    pub fn run(&self, changed: impl Fn(u64)) {
        loop {
            match self.tell(&changed) {
                None => self.wait(),
                Some(at) => {
                    // The filter of system calls has no nanosleep(2).
                    let left = at.saturating_duration_since(Instant::now()).min(REST);
                    let left = Timespec::try_from(left).unwrap_or_default();
                    let _ = poll(&mut [], Some(&left));
                }
            }
            let before = clock::of_this_thread();
            let mut watched = self.watched.lock();
            let noted = match self.take(&mut watched) {
                Ok(noted) => noted,
                Err(error) => return tracing::error!(%error, "limits are not watched any more"),
            };
            let used = clock::of_this_thread().saturating_sub(before);
            let each = used / u32::try_from(noted.len()).unwrap_or(u32::MAX).max(1);
            for slot in noted {
                let watch = watched.containers.get(&slot);
                if let Some(container) = watch.and_then(|watch| watch.container.upgrade()) {
                    container.account.spend(each);
                }
            }
        }
    }

    /// Tells the kernel of the containers whose limits have changed, as far as their time has come. Returns the time of the first
    /// one whose time has not.
    fn tell(&self, changed: &impl Fn(u64)) -> Option<Instant> {
        let due = self.watched.lock().take_due(Instant::now());
        for (slot, container) in due {
            let before = clock::of_this_thread();
            container.expire();
            changed(slot);
            let account = &container.account;
            account.spend(clock::of_this_thread().saturating_sub(before));
            let now = Instant::now();
            let ready = account.ready_at(now).min(now + LATEST);
            if let Some(watch) = self.watched.lock().containers.get_mut(&slot) {
                watch.next = Some(ready.max(now + APART));
            }
        }
        let watched = self.watched.lock();
        let next = |slot: &u64| {
            let watch = watched.containers.get(slot)?;
            Some(watch.next.unwrap_or_else(Instant::now))
        };
        watched.news.iter().filter_map(next).min()
    }
}

impl Watched {
    /// Adds the slots to `hit` that an event concerns.
    fn sort(&mut self, descriptor: i32, flags: ReadFlags, hit: &mut BTreeSet<u64>) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            hit.extend(self.containers.keys());
        } else if flags.contains(ReadFlags::IGNORED) {
            self.slots.remove(&descriptor);
        } else if let Some(slots) = self.slots.get(&descriptor) {
            hit.extend(slots);
        }
    }

    /// Takes the containers of which the kernel may be told now.
    fn take_due(&mut self, now: Instant) -> Vec<(u64, Arc<Attached>)> {
        let mut due = Vec::new();
        let containers = &self.containers;
        self.news.retain(|slot| {
            let Some(watch) = containers.get(slot) else {
                return false;
            };
            let is_due = watch.next.is_none_or(|next| next <= now);
            if is_due && let Some(container) = watch.container.upgrade() {
                due.push((*slot, container));
            }
            !is_due
        });
        due
    }
}

/// Returns the events of one read, each with its watch descriptor. Waits for the first.
fn read_events(inotify: &OwnedFd) -> rustix::io::Result<Vec<(i32, ReadFlags)>> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut reader = Reader::new(inotify, &mut buffer);
    let mut events = Vec::new();
    loop {
        let event = reader.next()?;
        events.push((event.wd(), event.events()));
        if reader.is_buffer_empty() {
            return Ok(events);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::path::Path;

    use rustix::fs::inotify::WatchFlags;

    use super::*;

    /// Watches a file for a container in `slot`.
    fn watch(watcher: &Watcher, slot: u64, file: &Path) -> Arc<Attached> {
        fs::write(file, "1").unwrap();
        let container = Arc::new(Attached::unlimited());
        let descriptor = inotify::add_watch(&watcher.inotify, file, WatchFlags::MODIFY).unwrap();
        watcher.enter(slot, &container, [descriptor].into_iter());
        container
    }

    #[test]
    fn a_limit_that_is_written_concerns_its_container_alone() {
        let dir = tempfile::tempdir().unwrap();
        let watcher = Watcher::new().unwrap();
        let files = ["a", "b"].map(|name| dir.path().join(name));
        let _containers = [1, 2].map(|slot| watch(&watcher, slot, &files[slot as usize - 1]));
        watcher.catch_up();
        assert!(watcher.watched.lock().news.is_empty());
        fs::write(&files[1], "2").unwrap();
        watcher.catch_up();
        assert_eq!(watcher.watched.lock().news, BTreeSet::from([2]));
        assert!(!watcher.has_event());
        watcher.remove(2);
        assert!(watcher.watched.lock().news.is_empty());
    }

    #[test]
    fn the_kernel_is_told_seldom_of_a_container_that_writes_its_limits_without_rest() {
        let dir = tempfile::tempdir().unwrap();
        let watcher = Watcher::new().unwrap();
        let files = ["a", "b"].map(|name| dir.path().join(name));
        let _containers = [1, 2].map(|slot| watch(&watcher, slot, &files[slot as usize - 1]));
        let told = RefCell::new(Vec::new());
        let tell = || {
            watcher.catch_up();
            watcher.tell(&|slot| told.borrow_mut().push(slot))
        };
        let write = |file: usize| fs::write(&files[file], "2").unwrap();
        let begun = Instant::now();
        write(0);
        assert_eq!(tell(), None);
        assert_eq!(told.take(), [1]);
        let next = watcher.watched.lock().containers[&1].next.unwrap();
        assert!(next >= begun + APART);
        watcher.watched.lock().containers.get_mut(&1).unwrap().next =
            Some(Instant::now() + Duration::from_secs(3600));
        for _ in 0..100 {
            write(0);
            assert!(tell().is_some());
        }
        assert!(told.take().is_empty());
        // Another container is told at once.
        write(1);
        assert!(tell().is_some());
        assert_eq!(told.take(), [2]);
    }
}
