//! A daemon that takes the place of the one that runs: the side of the new one. `successor` describes both.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::daemon::ControlEndpoint;
use super::inherit::{Connected, Inheritance};
use super::standard_streams;
use crate::broker::Broker;
use crate::connections::Connections;
use crate::container::procfs::Proc;
use crate::grafts::{Grafter, Origin};
use crate::persistent_descriptors::{HeldDescriptors, PersistentDescriptors};
use crate::service_manager;
use crate::supervisor::Server;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::handover::{Handover, OLDEST, Taken, VERSION};

/// The time that the daemon which runs has for its packet.
const LIMIT: Duration = Duration::from_secs(10);

/// The daemon that runs, and all that it has handed over.
#[derive(Debug)]
pub(super) struct Predecessor {
    channel: Channel,
    endpoint: ControlEndpoint,
    packet: Handover,
    connections: Connections,
    state: OwnedFd,
    held: HeldDescriptors,
    link: OwnedFd,
    broker_channel: OwnedFd,
}

impl Predecessor {
    /// Receives it on standard input.
    ///
    /// # Errors
    /// When that is not what it must be.
    pub(super) fn hear() -> Result<Self> {
        let trouble = |e| Error::io("hear from", "the daemon that runs", e);
        let socket = rustix::stdio::stdin()
            .try_clone_to_owned()
            .map_err(trouble)?;
        // Children would inherit the original. Each daemon knows by the end of the channel that the other is gone.
        standard_streams::let_go_of_input()?;
        let channel = Channel::new(socket);
        channel.set_timeout(Some(LIMIT)).map_err(trouble)?;
        let Some((packet, fds)) = channel.recv::<Handover>().map_err(trouble)? else {
            return Err(Error::refused("the daemon that runs said nothing"));
        };
        let this = Self::of(channel, packet, fds);
        match this {
            Ok(this) => Ok(this),
            Err((channel, error)) => {
                let why = error.to_string();
                // If it is not heard, our end is.
                let _ = channel.send(&Taken::No { why }, &[]);
                Err(error)
            }
        }
    }

    fn of(
        channel: Channel,
        packet: Handover,
        fds: Vec<OwnedFd>,
    ) -> std::result::Result<Self, (Channel, Error)> {
        if !(OLDEST..=VERSION).contains(&packet.version) {
            let versions = format!(
                "the daemon that runs speaks version {} of the handover, the new one version {VERSION}",
                packet.version
            );
            return Err((channel, Error::refused(versions)));
        }
        let Ok(fds) = <[OwnedFd; 9]>::try_from(fds) else {
            let error = Error::refused("the daemon that runs did not hand over all it has");
            return Err((channel, error));
        };
        let [
            lock,
            listener,
            cached,
            live,
            namespace,
            state,
            rendezvous,
            link,
            broker_channel,
        ] = fds;
        let (init, replies) = (packet.init.clone(), packet.replies.clone());
        match Connections::adopt([cached, live], init, replies) {
            Ok(connections) => Ok(Self {
                channel,
                endpoint: ControlEndpoint { lock, listener },
                packet,
                connections,
                state,
                held: HeldDescriptors {
                    namespace,
                    rendezvous,
                },
                link,
                broker_channel,
            }),
            Err(error) => Err((channel, error)),
        }
    }

    /// Tells the daemon that runs that we cannot go on in its place.
    pub(super) fn refuse(&self, error: &Error) {
        let why = error.to_string();
        // If it is not heard, our end is.
        let _ = self.channel.send(&Taken::No { why }, &[]);
    }

    /// Takes its place, once it has ended.
    ///
    /// # Errors
    /// When we cannot; it goes on then.
    pub(super) fn take_over(
        self,
        proc: &Arc<Proc>,
        broker: &Broker,
    ) -> Result<(Inheritance, ControlEndpoint)> {
        let Self {
            channel,
            endpoint,
            packet,
            connections,
            state,
            held,
            link,
            broker_channel,
        } = self;
        let prepared = (|| {
            let namespace = held
                .namespace
                .try_clone()
                .map_err(|e| Error::io("duplicate", "a namespace", e))?;
            let grafter = Grafter::start(Arc::clone(proc), Origin::Namespace(namespace))?;
            let server = Server::over(Channel::new(link), packet.server, None)?
                .with_generations(packet.generations);
            Ok((grafter, server))
        })();
        let (grafter, server) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let error: Error = error;
                let why = error.to_string();
                let _ = channel.send(&Taken::No { why }, &[]);
                return Err(error);
            }
        };
        let release = format!("eci-mountd {}", env!("CARGO_PKG_VERSION"));
        let said = channel
            .send(&Taken::Yes { release }, &[])
            // Nobody answers any more: this is its end.
            .and_then(|()| channel.set_timeout(None))
            .and_then(|()| channel.recv::<Taken>());
        if let Err(error) = said
            && error.kind() != std::io::ErrorKind::ConnectionReset
        {
            server.release();
            return Err(Error::io("hear from", "the daemon that ran", error));
        }
        let server = server.with_broker(broker_channel, broker)?;
        service_manager::ready();
        let inheritance = Inheritance {
            connections,
            grafter,
            descriptors: PersistentDescriptors::kept(state, held)?,
            server,
            connected: Connected::Before {
                server: Some(packet.slots.into_iter().collect()),
            },
        };
        Ok((inheritance, endpoint))
    }
}
