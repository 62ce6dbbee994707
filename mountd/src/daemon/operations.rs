//! What can be done to containers. One operation runs at a time: they all end in the one grafter anyway, and
//! so each sees the list as the one before left it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::OFlags;

use crate::connections::Connections;
use crate::container::procfs::Proc;
use crate::container::{Described, describe};
use crate::error::{Error, Kind, Result};
use crate::grafts;
use crate::grafts::place::Grafter;
use crate::protocol::control::{Attached, CgroupChoice, LIST_PAGE, Response, Selector};
use crate::registry::{self, Container, Exposure, Registry};
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
    pub(super) watch: crate::daemon::run::Watch,
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
    fn begin(&self) -> Result<MutexGuard<'_, State>> {
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
    pub fn attach(
        &self,
        pidfd: BorrowedFd<'_>,
        id: Option<String>,
        choice: CgroupChoice,
    ) -> Result<Attached> {
        let received = Instant::now();
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
        let slot = self.enter(&mut state, described, choice)?;
        let result = self.graft(&mut state, slot);
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
    fn enter(&self, state: &mut State, described: Described, choice: CgroupChoice) -> Result<u64> {
        if let Some(slot) = state.registry.find_subject(&described.subject) {
            return Ok(slot);
        }
        let Described {
            subject,
            facts,
            dirs,
        } = described;
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
            .add(slot, secrets, &facts, &dirs)
            .and_then(|rows| {
                self.watch
                    .container(slot, subject.pidfd.as_fd())
                    .map(|()| rows)
            })
            .inspect_err(|_| self.pressure.remove(slot))?;
        let container = Container {
            id: facts.id,
            subject,
            choice,
            secrets,
            rows,
            grafted: Vec::new(),
            mounts: Vec::new(),
        };
        state.registry.insert(slot, container);
        Ok(slot)
    }

    fn graft(&self, state: &mut State, slot: u64) -> Result<(String, usize)> {
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        let rows = container.rows.clone();
        let subject = container.subject.duplicate()?;
        let outcome = self
            .grafter
            .run(move |place| grafts::attach(place, &subject, slot, &rows))?;
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

    fn ungraft(&self, state: &mut State, slot: u64) -> Result<usize> {
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        let paths = std::mem::take(&mut container.grafted);
        let subject = container.subject.duplicate()?;
        if paths.is_empty() {
            return Ok(0);
        }
        self.grafter
            .run(move |place| grafts::detach(place, &subject, &paths))
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

    /// Show the views of the container of the process behind `pidfd` on the directory `dir`, in the mount
    /// namespace of the process behind `client`.
    ///
    /// # Errors
    /// As [`describe`] and [`grafts::expose`].
    pub fn mount(
        &self,
        pidfd: BorrowedFd<'_>,
        dir: OwnedFd,
        path: &Path,
        created: bool,
        client: i32,
    ) -> Result<Response> {
        let described = describe(&self.proc, pidfd, None, CgroupChoice::NamespaceRoot)?;
        let namespace = self
            .proc
            .open_at(&format!("{client}/ns/mnt"), OFlags::RDONLY)?;
        let mut state = self.begin()?;
        if state.registry.find_mount(path).is_some() {
            return Err(Error::new(
                Kind::Busy,
                format!("{} shows a container already", path.display()),
            )
            .remedy("unmount it first, or name another directory"));
        }
        let slot = self.enter(&mut state, described, CgroupChoice::NamespaceRoot)?;
        let result = self.expose(
            &mut state,
            slot,
            dir,
            Exposure {
                dir: path.to_owned(),
                created,
                namespace,
            },
        );
        if result.is_err() {
            self.forget_if_unused(&mut state, slot);
        }
        result
    }

    fn expose(
        &self,
        state: &mut State,
        slot: u64,
        dir: OwnedFd,
        exposure: Exposure,
    ) -> Result<Response> {
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        let rows = container.rows.clone();
        let namespace = exposure
            .namespace
            .try_clone()
            .map_err(|e| Error::io("duplicate", "a namespace", e))?;
        let grafts = self
            .grafter
            .run(move |place| grafts::expose(place, slot, &rows, &dir, namespace))?;
        let path = exposure.dir.clone();
        container.mounts.push(exposure);
        let id = container.id.clone();
        if let Err(error) = self.save(state) {
            let withdrawn = self.withdraw(state, slot, &path);
            tracing::warn!(?withdrawn, "the list cannot be written: unmounting again");
            return Err(error);
        }
        tracing::info!(%id, slot, grafts, dir = %path.display(), "mounted");
        Ok(Response::Mounted { id, grafts })
    }

    fn withdraw(&self, state: &mut State, slot: u64, dir: &Path) -> Result<()> {
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        let at = container
            .mounts
            .iter()
            .position(|mount| mount.dir == dir)
            .ok_or_else(vanished)?;
        let exposure = container.mounts.remove(at);
        self.grafter
            .run(move |place| {
                grafts::withdraw(place, &exposure.dir, &exposure.namespace)?;
                Ok(exposure)
            })
            .map(|exposure| {
                if exposure.created {
                    // It can only fail because somebody has put something there, and then it shall stay.
                    let _ = std::fs::remove_dir(&exposure.dir);
                }
            })
    }

    /// Take a directory that shows a container away again.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such directory.
    pub fn unmount(&self, dir: &Path) -> Result<Response> {
        let mut state = self.begin()?;
        let slot = state.registry.find_mount(dir).ok_or_else(|| {
            Error::not_found(format!("{} shows no container", dir.display()))
                .remedy("see `eci-fs list`")
        })?;
        self.withdraw(&mut state, slot, dir)?;
        self.forget_if_unused(&mut state, slot);
        self.save(&state)?;
        Ok(Response::Unmounted)
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

    /// A container has ended: its grafts are gone with its namespace, all else is let go of.
    pub(super) fn container_ended(&self, slot: u64) {
        let mut state = self.state.lock();
        let Some(container) = state.registry.get_mut(slot) else {
            return;
        };
        let id = container.id.clone();
        container.grafted.clear();
        for dir in container
            .mounts
            .iter()
            .map(|mount| mount.dir.clone())
            .collect::<Vec<_>>()
        {
            if let Err(error) = self.withdraw(&mut state, slot, &dir) {
                tracing::warn!(%error, "a directory stays mounted, ignoring");
            }
        }
        self.forget_if_unused(&mut state, slot);
        if let Err(error) = self.save(&state) {
            tracing::warn!(%error, "the list is out of date, ignoring");
        }
        tracing::info!(%id, slot, "the container has ended");
    }

    /// The server has died: start another one on the same connections, and hand everything over to it.
    ///
    /// # Errors
    /// When no server can be started any more.
    pub(super) fn restart_server(&self) -> Result<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.server.kill();
        state.server = Server::start(&self.program, &mut state.connections, &self.pressure)?;
        let State {
            registry, server, ..
        } = state;
        for (slot, container) in registry.iter() {
            let again = describe(
                &self.proc,
                container.subject.pidfd.as_fd(),
                Some(container.id.clone()),
                container.choice,
            )
            .and_then(|described| {
                server.add(slot, container.secrets, &described.facts, &described.dirs)
            });
            if let Err(error) = again {
                tracing::warn!(%error, id = %container.id, "a container could not be handed over, ignoring");
            }
        }
        server.resend()
    }

    /// Undo everything, before the daemon ends.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.ending = true;
        let slots: Vec<u64> = state.registry.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Err(error) = self.ungraft(&mut state, slot) {
                tracing::debug!(%error, slot, "its grafts are gone with it");
            }
            let dirs: Vec<_> = state
                .registry
                .get_mut(slot)
                .map(|c| c.mounts.iter().map(|mount| mount.dir.clone()).collect())
                .unwrap_or_default();
            for dir in dirs {
                if let Err(error) = self.withdraw(&mut state, slot, &dir) {
                    tracing::warn!(%error, "a directory stays mounted, ignoring");
                }
            }
            self.forget_if_unused(&mut state, slot);
        }
        if let Err(error) = self.save(&state) {
            tracing::warn!(%error, "the list is out of date, ignoring");
        }
    }

    /// Whether nothing is attached or mounted; if so, and `claim` is set, nothing new is begun any more.
    pub(super) fn is_idle(&self, claim: bool) -> bool {
        let mut state = self.state.lock();
        let idle = state.registry.is_empty();
        state.ending |= idle && claim;
        idle
    }

    fn forget_if_unused(&self, state: &mut State, slot: u64) {
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

    fn select(&self, state: &State, selector: &Selector) -> Result<u64> {
        let namespace = match selector {
            Selector::Pid(pid) => self.proc.namespace(*pid, "mnt").ok(),
            Selector::Id(_) => None,
        };
        state.registry.select(selector, |subject| {
            Some(subject.mount_namespace) == namespace
        })
    }

    fn save(&self, state: &State) -> Result<()> {
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        let text = serde_json::to_string(&state.registry.save())
            .map_err(|e| Error::io("encode", registry::FILE, std::io::Error::from(e)))?;
        runtime.write(registry::FILE, &text)
    }
}

fn vanished() -> Error {
    Error::not_found("the container has ended")
}
