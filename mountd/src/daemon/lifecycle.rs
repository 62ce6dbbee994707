//! What happens of itself: a container ends, the server dies, the daemon ends.

use std::os::fd::AsFd;
use std::time::Duration;

use super::operations::{Daemon, State, vanished};
use super::watch::SERVER;
use crate::container::{describe_again, has_ended};
use crate::registry::Registry;
use crate::service_manager;
use crate::supervisor::Server;
use eci_fs_protocol::control::Response;
use eci_fs_protocol::error::Result;

/// How long the end of the daemon waits for an operation that has begun.
const LAST_OPERATION: Duration = Duration::from_secs(10);

impl Daemon {
    /// A container has ended: its grafts are gone with its namespace, all else is let go of.
    pub(super) fn container_ended(&self, slot: u64) {
        let _turn = self.turn.lock();
        self.strike(slot);
    }

    /// Forget a container whose process has ended.
    fn strike(&self, slot: u64) {
        let id = match self.state.lock().registry.get_mut(slot) {
            Some(container) => {
                container.grafted.clear();
                container.id.clone()
            }
            None => return,
        };
        self.withdraw_all(slot);
        self.forget_if_unused(slot);
        if let Err(error) = self.save(&mut self.state.lock()) {
            tracing::warn!(%error, "the list is out of date, ignoring");
        }
        tracing::info!(%id, slot, "the container has ended");
    }

    /// Forget the container that is named `id` if its process has ended; says whether that was so.
    pub(super) fn strike_if_ended(&self, id: &str) -> Result<bool> {
        let (slot, ended) = {
            let state = self.state.lock();
            let Some(slot) = state.registry.find_id(id) else {
                return Ok(false);
            };
            let container = state.registry.get(slot).ok_or_else(vanished)?;
            (slot, has_ended(container.subject.pidfd.as_fd())?)
        };
        if ended {
            self.strike(slot);
        }
        Ok(ended)
    }

    /// Answer [`eci_fs_protocol::control::Request::Forget`].
    pub(super) fn forget(&self, id: &str) -> Result<Response> {
        let _turn = self.begin()?;
        let ended = self.strike_if_ended(id)?;
        Ok(Response::Forgotten { ended })
    }

    /// Whether the server has died. One that was replaced is not the server any more.
    pub(super) fn server_has_died(&self) -> bool {
        match &self.state.lock().server {
            Some(server) => has_ended(server.pidfd()).unwrap_or(true),
            None => false,
        }
    }

    /// The server has died, or shall: let go of what is left of it.
    pub(super) fn let_go_of_server(&self) {
        self.answering.set(None);
        // Dropped, it is reaped.
        self.state.lock().server = None;
    }

    /// Start a server on the connections that the one before it served, and hand everything over to it. Without `serve`
    /// it does not answer yet: readers may wait for containers that it is still to be told of.
    ///
    /// # Errors
    /// When none can be started at this moment. The requests of readers wait meanwhile.
    pub(super) fn start_server(&self, serve: bool) -> Result<()> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut server = Server::start(
            &self.program.lock(),
            &mut state.connections,
            &state.belongings,
            &self.broker,
        )?;
        self.hand_over(&state.registry, &mut server)?;
        // Before anybody is answered, who may look then which one it is.
        self.note(&server);
        if serve {
            server.serve(state.connections.can_resend())?;
        }
        self.install(state, server)
    }

    /// Tell a new server of all containers. One that cannot be told of, for it has ended perhaps, must not keep the others
    /// from it.
    ///
    /// # Errors
    /// When the server ends before it has heard of all.
    pub(super) fn hand_over(&self, registry: &Registry, server: &mut Server) -> Result<()> {
        for (slot, container) in registry.iter() {
            let again = describe_again(
                &self.proc,
                container.subject.pidfd.as_fd(),
                Some(container.id.clone()),
                container.choice,
                &container.cgroups,
            )
            .and_then(|described| {
                server.add(slot, container.secrets, &described, &container.choices)
            });
            if let Err(error) = again {
                // No container can help that.
                if server.is_gone() {
                    return Err(error);
                }
                tracing::warn!(%error, id = %container.id, "a container could not be handed over, ignoring");
            }
        }
        Ok(())
    }

    /// From now on this is the server.
    ///
    /// # Errors
    /// When its end could not be noticed.
    pub(super) fn install(&self, state: &mut State, mut server: Server) -> Result<()> {
        self.watch.add(server.pidfd(), SERVER)?;
        self.answering.set(Some(server.pidfd()));
        self.note(&server);
        if let Err(error) = server.raise(self.broker.raiser.tunables()) {
            // It is of another version, or has ended, which is noticed.
            tracing::debug!(%error, "the server tells of no tunables, ignoring");
        }
        state.server = Some(server);
        Ok(())
    }

    /// Write down which process is the server, for a daemon that cannot speak to it.
    fn note(&self, server: &Server) {
        let Some(runtime) = &self.runtime else {
            return;
        };
        let noted = self
            .proc
            .process(server.pid())
            .and_then(|process| runtime.note_server(process.pid, process.start_ticks));
        if let Err(error) = noted {
            tracing::warn!(%error, "which process is the server is not written down, ignoring");
        }
    }

    /// Hear of the next request on either connection, for the watchdog; or of none.
    pub(super) fn listen_for_requests(&self, hear: bool) {
        // Without the lock of the state: who holds it may be waiting for a server that hangs.
        for (number, fuse) in (0..).zip(&self.requests) {
            if let Err(error) = self.watch.request(number, fuse.as_fd(), hear) {
                tracing::warn!(%error, "the server is not watched over, ignoring");
            }
        }
    }

    /// Undo everything, before the daemon ends.
    pub(super) fn end(&self) {
        self.state.lock().ending = true;
        // What lies in a directory graft is only found with a server that answers.
        let dead = self.state.lock().server.is_none();
        if dead && let Err(error) = self.start_server(true) {
            tracing::warn!(%error, "grafts in directories may stay behind");
        }
        let turn = self.turn.try_lock_for(LAST_OPERATION);
        if turn.is_none() {
            tracing::warn!("an operation does not come to its end, ignoring");
        }
        let slots: Vec<u64> = {
            let state = self.state.lock();
            state.registry.iter().map(|(slot, _)| slot).collect()
        };
        for slot in slots {
            if let Err(error) = self.ungraft(slot) {
                tracing::debug!(%error, slot, "its grafts are gone with it");
            }
            self.withdraw_all(slot);
            self.forget_if_unused(slot);
        }
        if let Err(error) = self.save(&mut self.state.lock()) {
            tracing::warn!(%error, "the list is out of date, ignoring");
        }
        // There is nothing left to serve, and nobody shall find a server waiting.
        self.let_go_of_server();
        service_manager::forget();
    }

    /// Whether nothing is attached or mounted; if so, and `claim` is set, nothing new is begun any more.
    pub(super) fn is_idle(&self, claim: bool) -> bool {
        let mut state = self.state.lock();
        let idle = state.registry.is_empty();
        state.ending |= idle && claim;
        idle
    }
}
