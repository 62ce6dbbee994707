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
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader};
use rustix::io::Errno;

use super::Attached;
use crate::server::broker::BrokerClient;

/// The time that a new container waits for its watches.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches the limits of containers.
#[derive(Debug)]
pub struct Watcher {
    inotify: OwnedFd,
    watched: Mutex<Watched>,
    /// Set while events have been taken, and the containers that they concern may not know yet.
    telling: AtomicBool,
}

/// The containers by watch descriptor. Containers share their ancestors, and inotify gives an inode one descriptor.
#[derive(Debug, Default)]
struct Watched {
    slots: HashMap<i32, BTreeSet<u64>>,
    containers: HashMap<u64, Weak<Attached>>,
}

impl Watcher {
    /// Makes a watcher that watches nobody yet.
    ///
    /// # Errors
    /// When the user has too many inotify instances (/proc/sys/fs/inotify/max_user_instances).
    pub fn new() -> std::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        Ok(Self {
            inotify,
            watched: Mutex::default(),
            telling: AtomicBool::new(false),
        })
    }

    /// Watches the limits of a container: the daemon adds the watches, which `broker` asks for. Where no more watches can be had
    /// the freshness bound has to do.
    pub fn add(&self, slot: u64, container: &Arc<Attached>, broker: &BrokerClient) {
        let (dirs, files) = container.limit_files();
        let until = Instant::now() + PATIENCE;
        // Until the watches are known their events are not taken: they would be those of nobody.
        let mut watched = self.watched.lock();
        let watches = match broker.watch(self.inotify.as_fd(), &dirs, files, until) {
            Ok(watches) => watches,
            Err(error) => {
                tracing::warn!(%error, slot, "limits cannot be watched; they show within the freshness, ignoring");
                return;
            }
        };
        watched.containers.insert(slot, Arc::downgrade(container));
        // Not every kernel has every file.
        for descriptor in watches.into_iter().flatten() {
            watched.slots.entry(descriptor).or_default().insert(slot);
        }
        container.set_watched();
    }

    /// Watches a container no more.
    pub fn remove(&self, slot: u64) {
        let mut watched = self.watched.lock();
        watched.containers.remove(&slot);
        watched.slots.retain(|descriptor, slots| {
            slots.remove(&slot);
            if slots.is_empty() {
                // A cgroup that was removed has taken its watches with it.
                let _ = inotify::remove_watch(&self.inotify, *descriptor);
            }
            !slots.is_empty()
        });
    }

    /// Returns whether a limit has been written and not every container that it concerns knows it. Then cached limits must
    /// not be believed. The kernel queues the event before the write returns to its caller.
    pub fn is_behind(&self) -> bool {
        // In this order: an event that is no longer queued has been taken, and before that the flag was set.
        self.has_event(Some(&Timespec::default())) || self.telling.load(Ordering::SeqCst)
    }

    /// Returns whether an event is queued, or comes within `timeout`. An error counts as one.
    fn has_event(&self, timeout: Option<&Timespec>) -> bool {
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
        poll(&mut fds, timeout) != Ok(0)
    }

    /// Takes events for ever, and calls `changed` with the slot of each container whose limits have changed.
    pub fn run(&self, changed: impl Fn(u64)) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            self.telling.store(false, Ordering::SeqCst);
            self.has_event(None);
            self.telling.store(true, Ordering::SeqCst);
            let events = match take_events(&mut reader) {
                Ok(events) => events,
                Err(Errno::INTR) => continue,
                Err(error) => return tracing::error!(%error, "limits are not watched any more"),
            };
            let hit: Vec<(u64, Arc<Attached>)> = {
                let mut watched = self.watched.lock();
                let mut hit = BTreeSet::new();
                for (descriptor, flags) in &events {
                    if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                        hit.extend(watched.containers.keys().copied());
                    } else if flags.contains(ReadFlags::IGNORED) {
                        watched.slots.remove(descriptor);
                    } else if let Some(slots) = watched.slots.get(descriptor) {
                        hit.extend(slots.iter().copied());
                    }
                }
                hit.into_iter()
                    .filter_map(|slot| Some((slot, watched.containers.get(&slot)?.upgrade()?)))
                    .collect()
            };
            for (slot, container) in hit {
                container.expire();
                changed(slot);
            }
        }
    }
}

/// Returns the events of one read, each with its watch descriptor. Waits for the first.
fn take_events(reader: &mut Reader<'_, &OwnedFd>) -> rustix::io::Result<Vec<(i32, ReadFlags)>> {
    let mut events = Vec::new();
    loop {
        let event = reader.next()?;
        events.push((event.wd(), event.events()));
        if reader.is_buffer_empty() {
            return Ok(events);
        }
    }
}
