//! The place of the server: the connections, the descriptors that outlive it, and the server that has them now.

use crate::broker::Broker;
use crate::connections::Connections;
use crate::container::has_ended;
use crate::persistent_descriptors::PersistentDescriptors;
use crate::supervisor::{Program, Server};
use eci_fs_protocol::error::{Error, Kind, Result};

/// The place of the server.
#[derive(Debug)]
pub(super) struct ServerSlot {
    connections: Connections,
    descriptors: PersistentDescriptors,
    /// None between the death of one server and the start of the next.
    server: Option<Server>,
}

impl ServerSlot {
    pub(super) fn new(connections: Connections, descriptors: PersistentDescriptors) -> Self {
        Self {
            connections,
            descriptors,
            server: None,
        }
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(super) fn descriptors(&self) -> &PersistentDescriptors {
        &self.descriptors
    }

    /// Starts a server on the connections. It does not become the one that has them.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(super) fn start(&mut self, program: &Program, broker: &Broker) -> Result<Server> {
        Server::start(program, &mut self.connections, &self.descriptors, broker)
    }

    /// Makes `server` the one that has the connections.
    pub(super) fn put(&mut self, server: Server) {
        self.server = Some(server);
    }

    /// Returns the server, which has the connections no more. If it is dropped, it is ended and reaped.
    pub(super) fn take(&mut self) -> Option<Server> {
        self.server.take()
    }

    /// Returns the server, for work that needs one.
    ///
    /// # Errors
    /// [`Kind::Busy`] when it has died and the next one has not been started yet.
    pub(super) fn server(&mut self) -> Result<&mut Server> {
        self.server.as_mut().ok_or_else(|| {
            Error::new(Kind::Busy, "the server has died and is being started again")
                .remedy("try again; the log says why it died")
        })
    }

    /// Returns the server, if there is one.
    pub(super) fn present(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// Returns true if there is no server, or it has closed its end of the link.
    pub(super) fn is_gone(&self) -> bool {
        self.server.as_ref().is_none_or(Server::is_gone)
    }

    /// Returns true if there is a server whose process has ended. One that was replaced is not the server any more.
    pub(super) fn has_died(&self) -> bool {
        match &self.server {
            Some(server) => has_ended(server.pidfd()).unwrap_or(true),
            None => false,
        }
    }
}
