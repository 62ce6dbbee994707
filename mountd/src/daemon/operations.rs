//! What can be done to containers. One operation runs at a time: they all end in the one grafter anyway, and
//! so each sees the list as the one before left it.
//!
//! The lock of the state is not held while the grafter works: it may wait for a server that has just died, and the
//! next one is started under that lock.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use crate::broker::Broker;
use crate::connections::Connections;
use crate::container::procfs::Proc;
use crate::container::{Described, describe, has_ended};
use crate::grafts;
use crate::grafts::place::Grafter;
use crate::grafts::{Clones, Prober, Progress, Ready};
use crate::registry::{self, Container, Registry};
use crate::runtime_dir::RuntimeDir;
use crate::supervisor::{Belongings, Program, Server};
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::{Attach, Attached, CgroupChoice, LIST_PAGE, Response, Selector};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};

/// What all operations share.
#[derive(Debug)]
pub struct Daemon {
    pub(super) proc: Arc<Proc>,
    pub(super) grafter: Grafter,
    pub(super) runtime: Option<RuntimeDir>,
    pub(super) program: Mutex<Program>,
    /// None for a daemon of a single command.
    pub(super) handles: Option<super::successor::Handles>,
    pub(super) broker: Broker,
    /// Held by the one operation that runs.
    pub(super) turn: Mutex<()>,
    pub(super) state: Mutex<State>,
    pub(super) prober: Prober,
    /// For the next container.
    pub(super) ready: super::ready::Next,
    /// Both connections, to hear of requests on them.
    pub(super) requests: [OwnedFd; 2],
    /// Told of each container whose end shall be noticed.
    pub(super) watch: super::watch::Watch,
    /// The server that is to answer at this moment.
    pub(super) answering: super::watchdog::Answering,
    /// Set when the command that a private daemon serves is gone.
    pub(super) over: std::sync::atomic::AtomicBool,
    /// Set when another daemon has taken the place of this one.
    pub(super) handed_over: std::sync::atomic::AtomicBool,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) registry: Registry,
    pub(super) connections: Connections,
    pub(super) belongings: Belongings,
    /// None between the death of one and the start of the next.
    pub(super) server: Option<Server>,
    /// Set once, when the daemon ends: nothing new is begun.
    pub(super) ending: bool,
}

impl State {
    /// The server, for work that needs one.
    ///
    /// # Errors
    /// [`Kind::Busy`] when it has died and the next one has not been started yet.
    pub(super) fn server(&mut self) -> Result<&mut Server> {
        self.server.as_mut().ok_or_else(|| {
            Error::new(Kind::Busy, "the server has died and is being started again")
                .remedy("try again; the log says why it died")
        })
    }
}

impl Daemon {
    /// Wait for the operation before, and keep the next one waiting.
    pub(super) fn begin(&self) -> Result<MutexGuard<'_, ()>> {
        let turn = self.turn.lock();
        if self.state.lock().ending {
            return Err(Error::ending());
        }
        Ok(turn)
    }

    /// Graft all views into the container of the process behind `pidfd`.
    ///
    /// # Errors
    /// As [`describe`] and [`grafts::attach`]; the container is as before then.
    pub fn attach(&self, pidfd: BorrowedFd<'_>, wanted: Attach) -> Result<Attached> {
        let received = Instant::now();
        let Attach {
            id,
            cgroup: choice,
            root,
            unmasked,
            choices,
        } = wanted;
        let progress = Progress { root, unmasked };
        if let Some(id) = &id {
            registry::check_id(id)?;
        }
        let described = describe(&self.proc, pidfd, id.clone(), choice)?;
        let _turn = self.begin()?;
        // The loop may not have heard yet that the last one of this name has ended.
        self.strike_if_ended(&described.facts.id)?;
        let mut state = self.state.lock();
        let known = state.registry.find_subject(&described.subject);
        if let Some(container) = known.and_then(|slot| state.registry.get(slot)) {
            if let Some(id) = id.filter(|id| *id != container.id) {
                return Err(Error::new(
                    Kind::Busy,
                    format!(
                        "the container of process {} is attached already, as {}",
                        container.subject.pid, container.id
                    ),
                )
                .remedy(format!("detach it before it is named {id}"))
                .because(Reason::OtherName));
            }
            if !container.grafted.is_empty() {
                return Ok(Attached {
                    id: container.id.clone(),
                    grafts: container.grafted.len(),
                    took_usec: 0,
                    already: true,
                });
            }
        }
        let ready = self.ready.take_if(known.is_none());
        let next = ready.as_ref().map(|ready| ready.slot);
        let slot = self.enter(&mut state, described, choice, choices, next)?;
        drop(state);
        let result = self.graft(slot, progress, ready);
        if result.is_err() {
            self.forget_if_unused(slot);
        }
        let (id, grafts) = result?;
        let took_usec = u64::try_from(received.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::info!(%id, slot, grafts, took_usec, "attached");
        Ok(Attached {
            id,
            grafts,
            took_usec,
            already: false,
        })
    }

    /// Make the container known to the server and enter it in the list, if it is not there: in the slot `next`, which
    /// nobody has had, or in another such.
    pub(super) fn enter(
        &self,
        state: &mut State,
        described: Described,
        choice: CgroupChoice,
        choices: Choices,
        next: Option<u64>,
    ) -> Result<u64> {
        if let Some(slot) = state.registry.find_subject(&described.subject) {
            return Ok(slot);
        }
        let id = &described.facts.id;
        if state.registry.iter().any(|(_, other)| other.id == *id) {
            return Err(
                Error::new(Kind::Busy, format!("another container is named {id}"))
                    .remedy("choose another name with --id")
                    .because(Reason::NameTaken),
            );
        }
        let secrets = state.registry.new_secrets()?;
        let slot = next.unwrap_or_else(|| state.registry.take_slot());
        self.broker.enter(slot, &self.proc, &described)?;
        let rows = state
            .server()
            .and_then(|server| server.add(slot, secrets, &described, &choices))
            .and_then(|rows| {
                self.watch
                    .container(slot, described.subject.pidfd.as_fd())
                    .map(|()| rows)
            })
            .inspect_err(|_| self.broker.leave(slot))?;
        let rows = choices.chosen(rows);
        let Described {
            subject,
            facts,
            cgroups,
            ..
        } = described;
        let container = Container {
            id: facts.id,
            subject,
            choice,
            cgroups,
            choices,
            root: None,
            secrets,
            rows,
            grafted: Vec::new(),
            mounts: Vec::new(),
        };
        state.registry.insert(slot, container);
        Ok(slot)
    }

    /// Graft the rows of a container.
    pub(super) fn graft(
        &self,
        slot: u64,
        progress: Progress,
        ready: Option<Ready>,
    ) -> Result<(String, usize)> {
        if let Some(container) = self.state.lock().registry.get_mut(slot) {
            container.root.clone_from(&progress.root);
        }
        self.intend(slot)?;
        let done = self.graft_and_save(slot, progress, ready);
        self.intended();
        done
    }

    /// Write down what is about to be done.
    fn intend(&self, slot: u64) -> Result<()> {
        let intent = self.state.lock().registry.intent(slot);
        let (Some(runtime), Some(intent)) = (&self.runtime, intent) else {
            return Ok(());
        };
        let text = serde_json::to_string(&intent)
            .map_err(|e| Error::io("encode", registry::INTENT, std::io::Error::from(e)))?;
        runtime.write(registry::INTENT, &text)
    }

    fn intended(&self) {
        if let Some(runtime) = &self.runtime
            && let Err(error) = runtime.remove(registry::INTENT)
        {
            // The next daemon finds the container on the list, or nothing to undo.
            tracing::debug!(%error, "ignoring");
        }
    }

    fn graft_and_save(
        &self,
        slot: u64,
        progress: Progress,
        ready: Option<Ready>,
    ) -> Result<(String, usize)> {
        let (rows, subject) = {
            let state = self.state.lock();
            let container = state.registry.get(slot).ok_or_else(vanished)?;
            (container.rows.clone(), container.subject.duplicate()?)
        };
        let mut clones = Clones::new(slot, ready);
        let outcome = self
            .grafter
            .run(move |place| grafts::attach(place, &subject, &progress, &mut clones, &rows))?;
        let (done, saved) = {
            let mut state = self.state.lock();
            let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
            container.grafted = outcome.grafted;
            let done = (container.id.clone(), container.grafted.len());
            (done, self.save(&mut state))
        };
        // Written before the answer: what the caller believes is attached is found again after a crash.
        if let Err(error) = saved {
            let ungrafted = self.ungraft(slot);
            tracing::warn!(
                ?ungrafted,
                "the list cannot be written: taking the grafts out again"
            );
            return Err(error);
        }
        Ok(done)
    }

    pub(super) fn ungraft(&self, slot: u64) -> Result<usize> {
        let (paths, subject, root) = {
            let mut state = self.state.lock();
            let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
            (
                std::mem::take(&mut container.grafted),
                container.subject.duplicate()?,
                container.root.clone(),
            )
        };
        if paths.is_empty() {
            return Ok(0);
        }
        self.grafter
            .run(move |place| grafts::detach(place, &subject, root.as_deref(), Some(slot), &paths))
    }

    /// Take all grafts out of a container again.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when no such container is attached.
    pub fn detach(&self, selector: &Selector) -> Result<Response> {
        let _turn = self.begin()?;
        let (slot, id) = {
            let state = self.state.lock();
            let slot = self.select(&state, selector)?;
            let container = state.registry.get(slot).ok_or_else(vanished)?;
            if container.grafted.is_empty() {
                return Err(Error::not_found(format!(
                    "{} has no grafts; it is only mounted",
                    container.id
                ))
                .remedy("see `eci-fs list`, and `eci-fs unmount`"));
            }
            (slot, container.id.clone())
        };
        let grafts = self.ungraft(slot)?;
        self.forget_if_unused(slot);
        self.save(&mut self.state.lock())
            .map_err(|error| error.context(format!("{id} is detached, but")))?;
        tracing::info!(%id, slot, grafts, "detached");
        Ok(Response::Detached { id, grafts })
    }

    /// One page of the list. Who has ended is not on it, though that may not have been noticed yet.
    pub fn list(&self, after: Option<u64>) -> Response {
        let there = |container: &Container| {
            let ended = has_ended(container.subject.pidfd.as_fd());
            !ended.unwrap_or(false)
        };
        let state = self.state.lock();
        let (containers, more) = state.registry.list(after, LIST_PAGE, there);
        Response::Containers { containers, more }
    }

    /// Open one view as the container would.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the container has no such view.
    pub fn open(&self, selector: &Selector, path: &str) -> Result<OwnedFd> {
        let (slot, row) = {
            let _turn = self.begin()?;
            let state = self.state.lock();
            let slot = self.select(&state, selector)?;
            let container = state.registry.get(slot).ok_or_else(vanished)?;
            let row = container
                .rows
                .iter()
                .find(|row| row.path == path && !row.directory);
            let row = row.cloned().ok_or_else(|| {
                Error::not_found(format!("{} has no view of {path}", container.id))
                    .remedy("what is not a view is the kernel's own file")
            })?;
            (slot, row)
        };
        self.grafter.run(move |place| place.open_view(slot, &row))
    }

    pub(super) fn forget_if_unused(&self, slot: u64) {
        let mut state = self.state.lock();
        let used = state
            .registry
            .get(slot)
            .is_some_and(|c| !c.grafted.is_empty() || !c.mounts.is_empty());
        if used {
            return;
        }
        let Some(container) = state.registry.remove(slot) else {
            return;
        };
        self.watch.forget(container.subject.pidfd.as_fd());
        if let Err(error) = state.server().and_then(|server| server.remove(slot)) {
            // The next server does not get it.
            tracing::warn!(%error, slot, "the server did not let go of a container, ignoring");
        }
        drop(state);
        // Not under the lock: this may write to the machine.
        self.broker.leave(slot);
    }

    pub(super) fn select(&self, state: &State, selector: &Selector) -> Result<u64> {
        let namespace = match selector {
            Selector::Pid(pid) => self.proc.namespace(*pid, "mnt").ok(),
            Selector::Id(_) => None,
        };
        state.registry.select(selector, |subject| {
            Some(subject.mount_namespace) == namespace
        })
    }

    /// Write down what has changed on the list.
    pub(super) fn save(&self, state: &mut State) -> Result<()> {
        match &self.runtime {
            Some(runtime) => state.registry.write(runtime),
            None => Ok(()),
        }
    }
}

pub(super) fn vanished() -> Error {
    Error::not_found("the container has ended")
}
