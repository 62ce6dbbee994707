//! The threads that answer. Each of them waits for all listeners, and answers the call that it hears of. While it does so,
//! another one waits: what holds an answer up, memory on a slow file system for instance, holds up the calls of that listener
//! and no others.
//!
//! The number of the threads that wait is counted under a lock, together with the decision that depends on it: the last one that
//! stops waiting starts another one, and one that has answered ends when enough others wait. So at least one thread waits at
//! each moment. When none can be started the process ends, and the daemon starts the next one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use eci_fs_protocol::vet::{self, FromVet};
use libc::seccomp_notif;
use nix::errno::Errno;
use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

use super::container::{Container, Settings};
use super::figures::Layout;
use super::host::Host;
use super::journal::{Answers, Journal, Slot};
use super::turns::Turns;

/// The most threads that wait while nothing is to be done.
const IDLE: usize = 2;

/// The time after which something is tried again that failed for no fault of the container.
const RETRY: Duration = Duration::from_millis(100);

/// Bytes of the stack of a thread.
const STACK: usize = 128 << 10;

/// The number of the timer, which no listener has.
const TIMER: u64 = 0;

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

/// A descriptor at which the kernel reports trapped calls. It is heard of once, and again after [`Pool::listen`]: so one
/// thread has it in hand, or none.
#[derive(Debug)]
struct Listener {
    name: vet::Listener,
    /// A number that no other listener of this process has or had.
    number: u64,
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
    /// By [`Listener::number`].
    listeners: Mutex<BTreeMap<u64, Arc<Listener>>>,
    containers: Mutex<BTreeMap<vet::Container, Weak<Container>>>,
    turns: Turns<Listener>,
    /// The last number that was given to a listener.
    last: AtomicU64,
    /// The number of threads that wait, or are about to.
    waiting: Mutex<usize>,
}

impl Pool {
    /// Starts the first thread. It is to wait by `epoll`, and for `timer` (timerfd, monotonic), which nothing uses yet.
    ///
    /// # Errors
    /// When there are no more threads.
    pub(super) fn start(
        host: Arc<Host>,
        journal: Journal,
        settings: Settings,
        epoll: OwnedFd,
        timer: OwnedFd,
    ) -> io::Result<Arc<Self>> {
        let pool = Arc::new(Self {
            host,
            journal,
            settings,
            epoll,
            listeners: Mutex::default(),
            containers: Mutex::default(),
            turns: Turns::new(timer),
            last: AtomicU64::new(TIMER),
            waiting: Mutex::new(0),
        });
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        let data = EventData::new_u64(TIMER);
        epoll::add(&pool.epoll, pool.turns.timer(), data, flags)?;
        pool.start_thread(&mut pool.waiting.lock())?;
        Ok(pool)
    }

    /// Answers the calls of a listener from now on, and first the one that the supervisor before took.
    ///
    /// # Errors
    /// When its slot is none, or there are no more descriptors.
    pub(super) fn add(&self, name: vet::Listener, fd: OwnedFd) -> io::Result<()> {
        let slot = self.journal.slot(name.slot);
        let slot = slot.ok_or_else(|| io::Error::other("there is no such slot"))?;
        let container = self.container(&name.container);
        Answers(fd.as_fd()).wake_in_place();
        // The kernel tells of a request that was taken and not answered as of one that can be written to.
        let owed = match slot.taken() {
            Some(_) => EventFlags::OUT,
            None => EventFlags::empty(),
        };
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let listener = Arc::new(Listener {
            name,
            number,
            fd,
            container,
            slot: Mutex::new(slot),
        });
        // It is heard of at once, if a call waits.
        self.listeners.lock().insert(number, Arc::clone(&listener));
        let flags = EventFlags::IN | EventFlags::ONESHOT | owed;
        let data = EventData::new_u64(number);
        epoll::add(&self.epoll, &listener.fd, data, flags).map_err(|error| {
            self.listeners.lock().remove(&number);
            error.into()
        })
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

    /// Starts a thread, which is counted as one that waits from now on.
    fn start_thread(self: &Arc<Self>, waiting: &mut usize) -> io::Result<()> {
        let pool = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name("calls".to_owned())
            .stack_size(STACK);
        thread.spawn(move || pool.serve())?;
        *waiting += 1;
        Ok(())
    }

    /// Waits and answers, until enough others wait.
    fn serve(self: &Arc<Self>) {
        loop {
            let event = self.wait();
            let mut waiting = self.waiting.lock();
            *waiting -= 1;
            if *waiting == 0
                && let Err(error) = self.start_thread(&mut waiting)
            {
                give_up("no thread can be started that waits for calls", &error);
            }
            drop(waiting);
            self.hear(event);
            let mut waiting = self.waiting.lock();
            if *waiting >= IDLE {
                return;
            }
            *waiting += 1;
        }
    }

    /// Waits for the next event.
    fn wait(&self) -> Event {
        let mut events = Vec::with_capacity(1);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => give_up("the listeners cannot be waited for", &error.into()),
            }
            if let Some(event) = events.pop() {
                return event;
            }
        }
    }

    fn hear(&self, event: Event) {
        let number = event.data.u64();
        if number == TIMER {
            return self.take_turns();
        }
        let listener = self.listeners.lock().get(&number).map(Arc::clone);
        let Some(listener) = listener else {
            return;
        };
        let flags = event.flags;
        if flags.contains(EventFlags::HUP) {
            return self.end(&listener);
        }
        let Some(in_hand) = listener.container.take_in_hand() else {
            // What holds up so many threads is the container's own.
            return self.delay(&listener, RETRY);
        };
        let begun = Instant::now();
        let done = self.answer_next(&listener);
        drop(in_hand);
        match done {
            // The process was woken by a signal first, or has ended.
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INTR) => {
                match listener.container.charge(begun.elapsed()) {
                    None => self.listen(&listener),
                    Some(delay) => self.delay(&listener, delay),
                }
            }
            Err(error) => {
                tracing::warn!(%error, id = %listener.name.container.id, "a request cannot be taken, trying again");
                self.delay(&listener, RETRY);
            }
        }
    }

    /// Answers the request that the supervisor before took and did not answer; if there is none, the next one.
    fn answer_next(&self, listener: &Listener) -> Result<(), rustix::io::Errno> {
        let mut slot = listener.slot.lock();
        let request = match slot.taken() {
            Some(request) => request,
            None => slot.receive(listener.fd.as_fd())?,
        };
        self.answer(listener, &request);
        slot.clear();
        Ok(())
    }

    /// Has one thread hear of the next call of a listener.
    fn listen(&self, listener: &Listener) {
        let data = EventData::new_u64(listener.number);
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        if let Err(error) = epoll::modify(&self.epoll, &listener.fd, data, flags) {
            give_up("a listener cannot be waited for", &error.into());
        }
    }

    /// Has a listener be heard of after some time, and not before.
    fn delay(&self, listener: &Arc<Listener>, time: Duration) {
        if let Err(error) = self.turns.delay(listener, time) {
            give_up("no timer can be set", &error.into());
        }
    }

    /// Lets listeners go on whose turn has come.
    fn take_turns(&self) {
        match self.turns.take() {
            Ok(due) => due.iter().for_each(|listener| self.listen(listener)),
            Err(error) => give_up("no timer can be set", &error.into()),
        }
        let data = EventData::new_u64(TIMER);
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        if let Err(error) = epoll::modify(&self.epoll, self.turns.timer(), data, flags) {
            give_up("the timer cannot be waited for", &error.into());
        }
    }

    /// Forgets a listener whose last process has ended.
    fn end(&self, listener: &Arc<Listener>) {
        let slot = listener.name.slot;
        let has_daemon = self.host.has_daemon();
        if has_daemon && self.host.tell(&FromVet::Ended { slot }).is_none() {
            // It reads nothing now, and must hear that this slot is free.
            return self.delay(listener, RETRY);
        }
        // The daemon has this file open, too, so closing it here does not remove it.
        let _ = epoll::delete(&self.epoll, &listener.fd);
        self.listeners.lock().remove(&listener.number);
        if !has_daemon && self.is_empty() {
            // There is nothing left to answer.
            std::process::exit(0);
        }
    }

    /// Answers a request. Whatever fails: the call of the container is never carried out by the kernel.
    fn answer(&self, listener: &Listener, request: &seccomp_notif) {
        let answers = Answers(listener.fd.as_fd());
        let error = self.write_figures(listener, request, answers).err();
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

/// Ends the process: the daemon starts another one, which answers what this one leaves.
pub(super) fn give_up(what: &str, error: &io::Error) -> ! {
    tracing::error!(%error, "{what}; the next supervisor is to answer");
    std::process::exit(1)
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
