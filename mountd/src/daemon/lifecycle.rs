//! What happens of itself: a container ends, the server dies, the daemon ends.

use std::os::fd::AsFd;

use super::operations::{Daemon, State, vanished};
use crate::container::{describe_again, has_ended};
use crate::error::Result;
use crate::protocol::control::Response;
use crate::supervisor::Server;

impl Daemon {
    /// A container has ended: its grafts are gone with its namespace, all else is let go of.
    pub(super) fn container_ended(&self, slot: u64) {
        self.strike(&mut self.state.lock(), slot);
    }

    /// Forget a container whose process has ended.
    fn strike(&self, state: &mut State, slot: u64) {
        let Some(container) = state.registry.get_mut(slot) else {
            return;
        };
        let id = container.id.clone();
        container.grafted.clear();
        self.withdraw_all(state, slot);
        self.forget_if_unused(state, slot);
        if let Err(error) = self.save(state) {
            tracing::warn!(%error, "the list is out of date, ignoring");
        }
        tracing::info!(%id, slot, "the container has ended");
    }

    /// Forget the container that is named `id` if its process has ended; says whether that was so.
    pub(super) fn strike_if_ended(&self, state: &mut State, id: &str) -> Result<bool> {
        let Some(slot) = state.registry.find_id(id) else {
            return Ok(false);
        };
        let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
        let ended = has_ended(container.subject.pidfd.as_fd())?;
        if ended {
            self.strike(state, slot);
        }
        Ok(ended)
    }

    /// Answer [`crate::protocol::control::Request::Forget`].
    pub(super) fn forget(&self, id: &str) -> Result<Response> {
        let mut state = self.begin()?;
        let ended = self.strike_if_ended(&mut state, id)?;
        Ok(Response::Forgotten { ended })
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
            let again = describe_again(
                &self.proc,
                container.subject.pidfd.as_fd(),
                Some(container.id.clone()),
                container.choice,
                &container.cgroups,
            )
            .and_then(|described| {
                server.add(
                    slot,
                    container.secrets,
                    &described.facts,
                    &container.choices,
                    &described.dirs,
                    container.subject.pidfd.as_fd(),
                )
            });
            if let Err(error) = again {
                tracing::warn!(%error, id = %container.id, "a container could not be handed over, ignoring");
            }
        }
        server.serve(true)
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
            self.withdraw_all(&mut state, slot);
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
}
