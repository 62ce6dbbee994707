//! What can be done to containers. One operation runs at a time: they all end in the one grafter anyway, and
//! so each sees the list as the one before left it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use crate::connections::Connections;
use crate::container::procfs::Proc;
use crate::container::{Described, describe};
use crate::error::{Error, Kind, Result};
use crate::grafts;
use crate::grafts::place::Grafter;
use crate::protocol::choices::Choices;
use crate::protocol::control::{Attach, Attached, CgroupChoice, LIST_PAGE, Response, Selector};
use crate::registry::{self, Container, Registry};
use crate::runtime_dir::RuntimeDir;
use crate::supervisor::asks::PressureDirs;
use crate::supervisor::{Program, Server};

/// What all operations share.
#[derive(Debug)]
pub struct Daemon {
    pub(super) proc: Arc<Proc>,
    pub(super) grafter: Grafter,
    pub(super) runtime: Option<RuntimeDir>,
    pub(super) program: Program,
    pub(super) pressure: PressureDirs,
    pub(super) state: Mutex<State>,
    /// Told of each container whose end shall be noticed.
    pub(super) watch: super::watch::Watch,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) registry: Registry,
    pub(super) connections: Connections,
    pub(super) server: Server,
    /// Set once, when the daemon ends: nothing new is begun.
    pub(super) ending: bool,
}

impl Daemon {
    pub(super) fn begin(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.ending {
            return Err(Error::new(Kind::Busy, "eci-mountd is ending").remedy("try again"));
        }
        Ok(state)
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
            choices,
        } = wanted;
        if let Some(id) = &id {
            registry::check_id(id)?;
        }
        let described = describe(&self.proc, pidfd, id.clone(), choice)?;
        let mut state = self.begin()?;
        let known = state.registry.find_subject(&described.subject);
        if let Some(container) = known.and_then(|slot| state.registry.get_mut(slot)) {
            if let Some(id) = id.filter(|id| *id != container.id) {
                return Err(Error::new(
                    Kind::Busy,
                    format!(
                        "the container of process {} is attached already, as {}",
                        container.subject.pid, container.id
                    ),
                )
                .remedy(format!("detach it before it is named {id}")));
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
        let slot = self.enter(&mut state, described, choice, choices)?;
        let result = self.graft(&mut state, slot, root);
        if result.is_err() {
            self.forget_if_unused(&mut state, slot);
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

    /// Make the container known to the server and enter it in the list, if it is not there.
    pub(super) fn enter(
        &self,
        state: &mut State,
        described: Described,
        choice: CgroupChoice,
        choices: Choices,
    ) -> Result<u64> {
        if let Some(slot) = state.registry.find_subject(&described.subject) {
            return Ok(slot);
        }
        let Described {
            subject,
            facts,
            dirs,
            cgroups,
        } = described;
        // The loop may not have heard yet that the last one of this name has ended.
        self.strike_if_ended(state, &facts.id)?;
        if state.registry.iter().any(|(_, other)| other.id == facts.id) {
            return Err(Error::new(
                Kind::Busy,
                format!("another container is named {}", facts.id),
            )
            .remedy("choose another name with --id"));
        }
        let secrets = state.registry.new_secrets()?;
        let slot = state.registry.take_slot();
        // The root of v2 has the host's pressure, not the container's.
        let of_v2 = facts
            .hierarchies
            .iter()
            .zip(&dirs)
            .find(|(h, _)| h.version == 2 && h.depth > 0);
        if let Some((_, dir)) = of_v2 {
            let dir = dir
                .try_clone()
                .map_err(|e| Error::io("duplicate", "a cgroup directory", e))?;
            self.pressure.insert(slot, dir);
        }
        let rows = state
            .server
            .add(
                slot,
                secrets,
                &facts,
                &choices,
                &dirs,
                subject.pidfd.as_fd(),
            )
            .and_then(|rows| {
                self.watch
                    .container(slot, subject.pidfd.as_fd())
                    .map(|()| rows)
            })
            .inspect_err(|_| self.pressure.remove(slot))?;
        let rows = choices.chosen(rows);
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

    /// Graft the rows of a container; `root` as [`Attach::root`].
    pub(super) fn graft(
        &self,
        state: &mut State,
        slot: u64,
        root: Option<PathBuf>,
    ) -> Result<(String, usize)> {
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        let rows = container.rows.clone();
        let subject = container.subject.duplicate()?;
        container.root.clone_from(&root);
        let outcome = self
            .grafter
            .run(move |place| grafts::attach(place, &subject, root.as_deref(), slot, &rows))?;
        container.grafted = outcome.grafted;
        let done = (container.id.clone(), container.grafted.len());
        // Written before the answer: what the caller believes is attached is found again after a crash.
        if let Err(error) = self.save(state) {
            let ungrafted = self.ungraft(state, slot);
            tracing::warn!(
                ?ungrafted,
                "the list cannot be written: taking the grafts out again"
            );
            return Err(error);
        }
        Ok(done)
    }

    pub(super) fn ungraft(&self, state: &mut State, slot: u64) -> Result<usize> {
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        let paths = std::mem::take(&mut container.grafted);
        let subject = container.subject.duplicate()?;
        let root = container.root.clone();
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
        let mut state = self.begin()?;
        let slot = self.select(&state, selector)?;
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        let id = container.id.clone();
        if container.grafted.is_empty() {
            return Err(
                Error::not_found(format!("{id} has no grafts; it is only mounted"))
                    .remedy("see `eci-fs list`, and `eci-fs unmount`"),
            );
        }
        let grafts = self.ungraft(&mut state, slot)?;
        self.forget_if_unused(&mut state, slot);
        self.save(&state)?;
        tracing::info!(%id, slot, grafts, "detached");
        Ok(Response::Detached { id, grafts })
    }

    /// One page of the list.
    pub fn list(&self, after: Option<u64>) -> Response {
        let (containers, more) = self.state.lock().registry.list(after, LIST_PAGE);
        Response::Containers { containers, more }
    }

    /// Open one view as the container would.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the container has no such view.
    pub fn open(&self, selector: &Selector, path: &str) -> Result<OwnedFd> {
        let (slot, row) = {
            let mut state = self.begin()?;
            let slot = self.select(&state, selector)?;
            let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
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

    pub(super) fn forget_if_unused(&self, state: &mut State, slot: u64) {
        let used = state
            .registry
            .get_mut(slot)
            .is_some_and(|c| !c.grafted.is_empty() || !c.mounts.is_empty());
        if used {
            return;
        }
        if let Some(container) = state.registry.remove(slot) {
            self.watch.forget(container.subject.pidfd.as_fd());
            self.pressure.remove(slot);
            if let Err(error) = state.server.remove(slot) {
                tracing::warn!(%error, slot, "the server did not let go of a container, ignoring");
            }
        }
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

    pub(super) fn save(&self, state: &State) -> Result<()> {
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        let text = serde_json::to_string(&state.registry.save())
            .map_err(|e| Error::io("encode", registry::FILE, std::io::Error::from(e)))?;
        runtime.write(registry::FILE, &text)
    }
}

pub(super) fn vanished() -> Error {
    Error::not_found("the container has ended")
}
