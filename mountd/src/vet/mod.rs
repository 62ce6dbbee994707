//! The daemon's end of the supervisor of system calls (`eci-vet`): it takes listeners from runtimes, keeps them, and has a
//! process that answers their calls.
//!
//! | file | what it does |
//! |---|---|
//! | this | the thread that does all of it |
//! | `runtimes` | takes the descriptor of a filter from a runtime |
//! | `process` | starts the supervisor, and takes over what the one of another daemon has |
//! | `known` | what `eci-fs list` and `doctor` are told |
//! | `journal` | the file of the requests that were taken |

mod journal;
mod known;
mod process;
mod runtimes;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::Settings;
use eci_fs_protocol::vet::{Container, FromVet, LISTENERS, Listener, ToVet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::runtime_dir::{RuntimeDir, SYSTEM_CALLS};
use crate::service_manager::{self, StoredCalls};
use crate::threads::{self, Mend};
pub use known::Known;
use process::Process;

/// The socket in the runtime directory at which a supervisor without a daemon waits for the next one.
const RENDEZVOUS: &str = "vet.sock";

/// The time after which the start of a supervisor is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Supervisors that died within this time are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Deaths within [`WINDOW`] after which the next supervisor is started at once.
const AT_ONCE: usize = 100;

/// The files of a container that have the figures of sysinfo(2), in the order of [`ToVet::Views`].
pub const VIEWS: [&str; 3] = ["/proc/meminfo", "/proc/uptime", "/proc/loadavg"];

/// Returns [`VIEWS`] of a container as places; none if there is no such container, or one of them is not there for it.
pub type FindViews = dyn Fn(&Container) -> Result<Option<[OwnedFd; 3]>> + Send;

/// The program of the supervisor, and what it is told.
#[derive(Debug)]
pub struct Program {
    /// The executable: `eci-fs`.
    pub path: PathBuf,
    /// The settings of the views.
    pub settings: Settings,
}

/// The sockets in the runtime directory.
#[derive(Debug)]
pub struct Sockets {
    runtimes: PathBuf,
    rendezvous: PathBuf,
    known: Arc<Known>,
}

impl Sockets {
    /// Removes the sockets that mean nothing once the daemon has ended. A supervisor that has listeners waits for the next daemon.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.runtimes);
        if self.known.is_empty() {
            let _ = std::fs::remove_file(&self.rendezvous);
            service_manager::forget_journal();
        }
    }
}

/// The keeper of all listeners.
struct Keeper {
    program: Program,
    find_views: Box<FindViews>,
    /// The socket of the runtimes.
    runtimes: OwnedFd,
    rendezvous: OwnedFd,
    journal: OwnedFd,
    listeners: BTreeMap<u32, (Container, OwnedFd)>,
    known: Arc<Known>,
    /// None while there is no listener, and between two supervisors.
    process: Option<Process>,
    /// The ends of supervisors lately.
    deaths: Vec<Instant>,
    /// The last of them, or the last start that failed.
    ended: Option<Instant>,
    /// True if the last start failed.
    failed: bool,
}

/// Takes over what the daemon before had, and starts the thread that keeps listeners. `stored` is what the service manager has
/// kept. `known` is told of what happens.
///
/// # Errors
/// When a socket cannot be made, or there are no more descriptors or threads.
pub fn start(
    runtime: &RuntimeDir,
    stored: Option<StoredCalls>,
    program: Program,
    find_views: Box<FindViews>,
    known: Arc<Known>,
) -> Result<Sockets> {
    let rendezvous_path = runtime.path().join(RENDEZVOUS);
    let kept = match process::take_over(&rendezvous_path) {
        Ok(Some(kept)) => Some(kept),
        Ok(None) => stored.map(|stored| (stored.journal, stored.listeners)),
        Err(error) => {
            tracing::warn!(%error, "the supervisor of the daemon before cannot be gone on with");
            stored.map(|stored| (stored.journal, stored.listeners))
        }
    };
    let (journal, listeners) = match kept {
        Some((journal, listeners)) => (journal::or_new(journal)?, listeners),
        None => (journal::create()?, Vec::new()),
    };
    if !listeners.is_empty() {
        tracing::info!(
            number = listeners.len(),
            "going on with listeners of system calls"
        );
    }
    let listeners = listeners
        .into_iter()
        .filter(|(listener, _)| listener.slot < LISTENERS)
        .map(|(listener, fd)| (listener.slot, (listener.container, fd)))
        .collect();
    let sockets = Sockets {
        runtimes: runtime.path().join(SYSTEM_CALLS),
        rendezvous: rendezvous_path.clone(),
        known: Arc::clone(&known),
    };
    let mut keeper = Keeper {
        program,
        find_views,
        runtimes: runtimes::listen(&sockets.runtimes)?,
        rendezvous: process::listen(&rendezvous_path)?,
        journal,
        listeners,
        known,
        process: None,
        deaths: Vec::new(),
        ended: None,
        failed: false,
    };
    service_manager::store_journal(keeper.journal.as_fd());
    for (slot, (container, fd)) in &keeper.listeners {
        service_manager::store_listener(*slot, container, fd.as_fd());
    }
    threads::start("calls", Mend::Again, move || {
        loop {
            if let Err(error) = keeper.step() {
                tracing::error!(%error, "system calls of containers cannot be taken; trying again");
                // The host has no memory for a wait with descriptors. One without them needs none.
                let _ = poll(&mut [], Timespec::try_from(RETRY).ok().as_ref());
            }
        }
    })?;
    Ok(sockets)
}

impl Keeper {
    /// Waits for the next thing, and does it.
    fn step(&mut self) -> Result<()> {
        let pids = self.listeners.values().map(|(container, _)| container.pid);
        self.known.set_containers(pids.collect());
        let limit = self.ensure_process();
        let mut fds = vec![PollFd::new(&self.runtimes, PollFlags::IN)];
        if let Some(process) = &self.process {
            fds.push(PollFd::new(process.channel(), PollFlags::IN));
        }
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref()))
            .map_err(|e| Error::io("wait for", "system calls", e))?;
        let [runtime, process] =
            [0, 1].map(|at| fds.get(at).is_some_and(|fd| !fd.revents().is_empty()));
        if process {
            self.hear();
        }
        if runtime {
            self.accept();
        }
        Ok(())
    }

    /// Starts a supervisor if there is none and one is needed. Returns the time after which that is tried again.
    fn ensure_process(&mut self) -> Option<Duration> {
        if self.process.is_some() || self.listeners.is_empty() {
            self.known.set_trouble(None);
            return None;
        }
        self.deaths.retain(|at| at.elapsed() < WINDOW);
        let pause = match self.failed || self.deaths.len() > AT_ONCE {
            true => RETRY,
            false => Duration::ZERO,
        };
        if let Some(left) = self.ended.and_then(|at| pause.checked_sub(at.elapsed())) {
            return Some(left);
        }
        let started = Process::start(&self.program, self.journal.as_fd(), self.rendezvous.as_fd());
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                tracing::error!(%error, "no supervisor of system calls can be started; trying again");
                self.known.set_trouble(Some(error.to_string()));
                (self.failed, self.ended) = (true, Some(Instant::now()));
                return Some(RETRY);
            }
        };
        self.failed = false;
        self.known.set_trouble(None);
        for (slot, (container, fd)) in &self.listeners {
            process.listen(*slot, container, fd.as_fd());
        }
        self.process = Some(process);
        None
    }

    /// Hears the supervisor, or its end.
    fn hear(&mut self) {
        let Some(process) = &self.process else {
            return;
        };
        match process.receive() {
            Some(FromVet::Ended { slot }) => {
                self.listeners.remove(&slot);
                // The next one in this slot begins with no request.
                journal::clear(self.journal.as_fd(), slot);
            }
            Some(FromVet::FindViews(container)) => {
                let views = (self.find_views)(&container).unwrap_or_else(|error| {
                    tracing::warn!(%error, id = %container.id, "the views of a container cannot be found");
                    None
                });
                let fds: Vec<_> = views.iter().flatten().map(AsFd::as_fd).collect();
                process.send(&ToVet::Views(container), &fds);
            }
            Some(other) => tracing::warn!(?other, "the supervisor says what nobody asked"),
            None => {
                tracing::error!("the supervisor of system calls died; starting another one");
                self.ended = Some(Instant::now());
                self.deaths.extend(self.ended);
                self.process = None;
            }
        }
    }

    /// Takes a listener from a runtime.
    fn accept(&mut self) {
        let (container, fd) = match runtimes::accept(&self.runtimes) {
            Ok(Some(taken)) => taken,
            Ok(None) => return,
            Err(error) => {
                return tracing::warn!(%error, "a filter of system calls is not taken, ignoring");
            }
        };
        let Some(slot) = (0..LISTENERS).find(|slot| !self.listeners.contains_key(slot)) else {
            // Its calls fail from now on.
            return tracing::error!(id = %container.id, LISTENERS, "too many filters of system calls");
        };
        tracing::debug!(id = %container.id, pid = container.pid, slot, "a filter of system calls");
        service_manager::store_listener(slot, &container, fd.as_fd());
        // Where there is no supervisor yet, it gets this one with all others.
        if let Some(process) = &self.process {
            process.listen(slot, &container, fd.as_fd());
        }
        self.listeners.insert(slot, (container, fd));
    }
}

/// Returns the words in which a listener is told.
fn name(slot: u32, container: &Container) -> Listener {
    Listener {
        slot,
        container: container.clone(),
    }
}
