//! The life of the server: it is started, told of all containers, and replaced when it has died.

use std::os::fd::AsFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::event_set::{EventSet, SERVER};
use super::journal::Journal;
use super::state::{DaemonState, Shared};
use super::watchdog::Watchdog;
use crate::broker::Broker;
use crate::container::describe_again;
use crate::container::procfs::Proc;
use crate::registry::Registry;
use crate::supervisor::{Program, Server};
use eci_fs_protocol::error::Result;

/// The parts that start and watch servers, besides the connections.
#[derive(Debug)]
pub(super) struct Supervision {
    pub(super) shared: Arc<Shared>,
    pub(super) proc: Arc<Proc>,
    pub(super) program: Mutex<Program>,
    pub(super) broker: Broker,
    pub(super) events: Arc<EventSet>,
    pub(super) watchdog: Arc<Watchdog>,
    pub(super) journal: Arc<Journal>,
}

impl Supervision {
    /// Lets go of a server that has died or is to die: it is ended and reaped.
    pub(super) fn let_go(&self) {
        self.watchdog.watch(None);
        drop(self.shared.state().slot.take());
    }

    /// Starts a server on the connections that the one before it served, and hands all containers over to it. Without
    /// `serve` it does not answer yet: readers may wait for containers that it is still to be told of.
    ///
    /// # Errors
    /// When none can be started now. The requests of readers wait meanwhile.
    pub(super) fn start(&self, serve: bool) -> Result<()> {
        let mut guard = self.shared.state();
        let state = &mut *guard;
        let mut server = state.slot.start(&self.program.lock(), &self.broker)?;
        self.hand_over(&state.registry, &mut server)?;
        // Before any reader is answered, who may look then which process the server is.
        self.journal.note_server(&server);
        if serve {
            server.serve(state.slot.connections().can_resend())?;
        }
        self.install(state, server)
    }

    /// Tells a new server of all containers. One that it cannot be told of, perhaps because it has ended, must not keep
    /// the others from it.
    ///
    /// # Errors
    /// When the server ends before it has heard of all, or would break the grafts of one.
    pub(super) fn hand_over(&self, registry: &Registry, server: &mut Server) -> Result<()> {
        for (_, container) in registry.iter() {
            server.check_generation(container.secrets.generation)?;
        }
        for (slot, container) in registry.iter() {
            let again = describe_again(
                &self.proc,
                container.subject.pidfd.as_fd(),
                Some(container.id.clone()),
                container.choice,
                container.measures_cpus,
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

    /// Makes `server` the one that has the connections, and watches it.
    ///
    /// # Errors
    /// When its end could not be noticed.
    pub(super) fn install(&self, state: &mut DaemonState, mut server: Server) -> Result<()> {
        self.events.add(server.pidfd(), SERVER)?;
        self.watchdog.watch(Some(server.pidfd()));
        self.journal.note_server(&server);
        if let Err(error) = server.watch_host_sysctls(self.broker.host_sysctls.tunables()) {
            // It is of another version, or has ended, which is noticed.
            tracing::debug!(%error, "the server tells of no tunables, ignoring");
        }
        state.slot.put(server);
        Ok(())
    }
}
