//! The threads that answer. One waits for all listeners. While it answers, another one waits: what holds an answer up, memory
//! on a slow file system for instance, holds up the calls of that listener and no others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use eci_fs_protocol::vet::{self, FromVet};
use libc::seccomp_notif;
use nix::errno::Errno;
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

use super::container::{Container, Settings};
use super::figures::Layout;
use super::host::Host;
use super::journal::{Answers, Journal, Slot};

/// The most threads that wait while nothing is to be done.
const IDLE: usize = 2;

/// The time after which the daemon is told again what it did not take.
const RETRY: Duration = Duration::from_millis(100);

/// Bytes of the stack of a thread.
const STACK: usize = 128 << 10;

/// The architecture of the 32-bit programs that run on this one (linux/audit.h), and the number of their sysinfo(2).
const SHORT: Option<(u32, i32)> = if cfg!(target_arch = "x86_64") {
    Some((0x4000_0003, 116))
} else if cfg!(target_arch = "aarch64") {
    Some((0x4000_0028, 116))
} else {
    None
};

/// The bit of the system calls of x32.
const X32: i64 = 0x4000_0000;

/// A descriptor at which the kernel reports trapped calls.
#[derive(Debug)]
struct Listener {
    name: vet::Listener,
    fd: OwnedFd,
    container: Arc<Container>,
    slot: Mutex<Slot>,
}

/// The threads, and what they answer.
#[derive(Debug)]
pub(super) struct Pool {
    host: Arc<Host>,
    journal: Journal,
    settings: Settings,
    epoll: OwnedFd,
    listeners: Mutex<BTreeMap<u32, Arc<Listener>>>,
    containers: Mutex<BTreeMap<vet::Container, Weak<Container>>>,
    /// Listeners that wait for their container's share, with the time of their turn.
    delayed: Mutex<BinaryHeap<Reverse<(Instant, u32)>>>,
    idle: AtomicUsize,
}

impl Pool {
    /// Starts the first thread. It is to wait by `epoll`, which nothing uses yet.
    ///
    /// # Errors
    /// When there are no more threads.
    pub(super) fn start(
        host: Arc<Host>,
        journal: Journal,
        settings: Settings,
        epoll: OwnedFd,
    ) -> io::Result<Arc<Self>> {
        let pool = Arc::new(Self {
            host,
            journal,
            settings,
            epoll,
            listeners: Mutex::default(),
            containers: Mutex::default(),
            delayed: Mutex::default(),
            idle: AtomicUsize::new(0),
        });
        pool.spawn(|pool| pool.serve())?;
        Ok(pool)
    }

    /// Answers the calls of a listener from now on, and first the one that the supervisor before took.
    ///
    /// # Errors
    /// When its slot is none, or there are no more descriptors or threads.
    pub(super) fn add(self: &Arc<Self>, name: vet::Listener, fd: OwnedFd) -> io::Result<()> {
        let slot = self.journal.slot(name.slot);
        let slot = slot.ok_or_else(|| io::Error::other("there is no such slot"))?;
        let number = name.slot;
        let container = self.container(&name.container);
        Answers(fd.as_fd()).wake_in_place();
        let is_owed = slot.taken().is_some();
        let listener = Arc::new(Listener {
            name,
            fd,
            container,
            slot: Mutex::new(slot),
        });
        let event = EventData::new_u64(u64::from(number));
        let flags = match is_owed {
            true => EventFlags::empty(),
            false => EventFlags::IN,
        };
        // It is heard of at once, if a call waits.
        self.listeners.lock().insert(number, Arc::clone(&listener));
        epoll::add(
            &self.epoll,
            &listener.fd,
            event,
            flags | EventFlags::ONESHOT,
        )?;
        if is_owed {
            self.spawn(move |pool| {
                let request = listener.slot.lock().taken();
                if let Some(request) = request {
                    pool.answer(&listener, &request);
                }
                listener.slot.lock().clear();
                pool.listen(&listener);
            })?;
        }
        Ok(())
    }

    /// Returns the listeners that have not ended.
    pub(super) fn held(&self) -> io::Result<Vec<(vet::Listener, OwnedFd)>> {
        let listeners = self.listeners.lock();
        let held = listeners
            .values()
            .map(|listener| Ok((listener.name.clone(), listener.fd.try_clone()?)));
        held.collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listeners.lock().is_empty()
    }

    /// Takes the daemon's answer about the views of a container.
    pub(super) fn name_views(&self, name: &vet::Container, views: Option<[OwnedFd; 3]>) {
        let container = self.containers.lock().get(name).and_then(Weak::upgrade);
        if let Some(container) = container {
            container.name_views(views);
        }
    }

    fn container(&self, name: &vet::Container) -> Arc<Container> {
        let mut containers = self.containers.lock();
        containers.retain(|_, container| container.strong_count() > 0);
        if let Some(container) = containers.get(name).and_then(Weak::upgrade) {
            return container;
        }
        let container = Arc::new(Container::new(name.clone(), self.settings));
        containers.insert(name.clone(), Arc::downgrade(&container));
        container
    }

    fn spawn(self: &Arc<Self>, work: impl FnOnce(&Arc<Self>) + Send + 'static) -> io::Result<()> {
        let pool = Arc::clone(self);
        std::thread::Builder::new()
            .name("calls".to_owned())
            .stack_size(STACK)
            .spawn(move || work(&pool))
            .map(drop)
    }

    /// Waits and answers, until enough others wait.
    fn serve(self: &Arc<Self>) {
        let mut events = Vec::with_capacity(1);
        loop {
            let enough = self.idle.fetch_add(1, Ordering::SeqCst) >= IDLE;
            // A thread that waits already does not know of the next turn.
            if enough && self.delayed.lock().is_empty() {
                self.idle.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            events.clear();
            let limit = self.next_turn();
            let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), limit.as_ref());
            // The last one that waits leaves another one behind.
            if self.idle.fetch_sub(1, Ordering::SeqCst) == 1
                && let Err(error) = self.spawn(|pool| pool.serve())
            {
                tracing::warn!(%error, "a thread cannot be started: calls wait for each other");
            }
            if let Err(error) = waited
                && error != rustix::io::Errno::INTR
            {
                // Nothing can be answered any more. Another supervisor can.
                tracing::error!(%error, "the listeners cannot be waited for");
                std::process::exit(1);
            }
            for event in &events {
                self.hear(*event);
            }
        }
    }

    fn hear(self: &Arc<Self>, event: Event) {
        let number = u32::try_from(event.data.u64()).unwrap_or(u32::MAX);
        let listener = self.listeners.lock().get(&number).map(Arc::clone);
        let Some(listener) = listener else {
            return;
        };
        let flags = event.flags;
        if !flags.contains(EventFlags::IN) && flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            return self.end(&listener);
        }
        let begun = Instant::now();
        let mut slot = listener.slot.lock();
        match slot.receive(listener.fd.as_fd()) {
            Ok(request) => self.answer(&listener, &request),
            // The process was woken by a signal first.
            Err(error) => tracing::debug!(%error, "a request is gone"),
        }
        slot.clear();
        drop(slot);
        match listener.container.charge(begun.elapsed()) {
            None => self.listen(&listener),
            Some(delay) => {
                let turn = Instant::now() + delay;
                self.delayed.lock().push(Reverse((turn, number)));
            }
        }
    }

    /// Has one thread hear of the next call of a listener.
    fn listen(&self, listener: &Listener) {
        let data = EventData::new_u64(u64::from(listener.name.slot));
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        if let Err(error) = epoll::modify(&self.epoll, &listener.fd, data, flags) {
            tracing::warn!(%error, slot = listener.name.slot, "a listener is lost");
        }
    }

    /// Lets listeners go on whose turn has come. Returns the time until the next turn.
    fn next_turn(&self) -> Option<Timespec> {
        let mut delayed = self.delayed.lock();
        while let Some(Reverse((turn, number))) = delayed.peek().copied() {
            let left = turn.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Timespec::try_from(left.max(Duration::from_millis(1))).ok();
            }
            delayed.pop();
            let listener = self.listeners.lock().get(&number).map(Arc::clone);
            if let Some(listener) = listener {
                self.listen(&listener);
            }
        }
        None
    }

    /// Forgets a listener whose last process has ended.
    fn end(&self, listener: &Listener) {
        let slot = listener.name.slot;
        let has_daemon = self.host.has_daemon();
        if has_daemon && self.host.tell(&FromVet::Ended { slot }).is_none() {
            // It reads nothing now, and must hear that this slot is free.
            let turn = Instant::now() + RETRY;
            return self.delayed.lock().push(Reverse((turn, slot)));
        }
        self.listeners.lock().remove(&slot);
        if !has_daemon && self.is_empty() {
            // There is nothing left to answer.
            std::process::exit(0);
        }
    }

    /// Answers a request. Whatever fails: the call of the container is never carried out by the kernel.
    fn answer(&self, listener: &Listener, request: &seccomp_notif) {
        let answers = Answers(listener.fd.as_fd());
        let error = match self.write_figures(listener, request, answers) {
            Ok(()) => None,
            Err(error) => Some(error),
        };
        answers.send(request.id, error);
    }

    fn write_figures(
        &self,
        listener: &Listener,
        request: &seccomp_notif,
        answers: Answers<'_>,
    ) -> Result<(), Errno> {
        let layout = layout_of(request).ok_or(Errno::ENOSYS)?;
        let figures = listener
            .container
            .figures(&self.host)
            .ok_or(Errno::ENOSYS)?;
        let bytes = figures.encode(layout);
        // First opened, then checked: the number of a thread that has ended may be that of another one.
        let memory = self
            .host
            .open_memory(request.pid)
            .map_err(|_| Errno::EFAULT)?;
        if !answers.is_valid(request.id) {
            return Err(Errno::EINTR);
        }
        let pointer = match layout {
            Layout::Long => request.data.args[0],
            Layout::Short => request.data.args[0] & u64::from(u32::MAX),
        };
        match rustix::io::pwrite(&memory, &bytes, pointer) {
            Ok(count) if count == bytes.len() => Ok(()),
            _ => Err(Errno::EFAULT),
        }
    }
}

/// Returns the layout that a request wants its figures in; none if it is not sysinfo(2).
fn layout_of(request: &seccomp_notif) -> Option<Layout> {
    let (arch, number) = (request.data.arch, request.data.nr);
    if SHORT == Some((arch, number)) {
        return Some(Layout::Short);
    }
    let is_short = SHORT.is_some_and(|(short, _)| short == arch);
    // x32 has the layout of 64-bit programs.
    let number = match cfg!(target_arch = "x86_64") {
        true => i64::from(number) & !X32,
        false => i64::from(number),
    };
    (!is_short && number == libc::SYS_sysinfo).then_some(Layout::Long)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(arch: u32, nr: i32) -> seccomp_notif {
        seccomp_notif {
            id: 1,
            pid: 1,
            flags: 0,
            data: libc::seccomp_data {
                nr,
                arch,
                instruction_pointer: 0,
                args: [0; 6],
            },
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn programs_of_all_three_kinds_get_the_layout_that_they_know() {
        const X86_64: u32 = 0xc000_003e;
        const I386: u32 = 0x4000_0003;
        for (arch, nr, layout) in [
            (X86_64, 99, Some(Layout::Long)),
            (X86_64, 0x4000_0000 | 99, Some(Layout::Long)),
            (I386, 116, Some(Layout::Short)),
            (I386, 99, None),
            (X86_64, 116, None),
        ] {
            assert_eq!(layout_of(&request(arch, nr)), layout, "{arch:x} {nr}");
        }
    }
}
