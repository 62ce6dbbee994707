//! Networks that an engine made before the container: podman's networks, and those of a CRI.
//!
//! Such a network namespace belongs to the host's user namespace, and that cannot be changed. So another one is made that
//! belongs to the container's user namespace. All interfaces are moved to it with their addresses, routes and settings. It
//! is mounted where the engine keeps its own. The other end of each interface stays where it is, so the engine finds,
//! changes and removes the network as before.

mod contents;
mod filters;
mod link;
mod netlink;

use std::os::fd::AsFd;

use eci_fs_mountd::container::mountinfo::Mount;
use eci_fs_mountd::faults;
use eci_fs_protocol::error::{Error, Result};

use contents::Contents;
use filters::Filters;
use netlink::{ROUTE, Socket};

use super::owned_namespace::{self, Kind};
use super::policy::{EngineNamespace, Starts};
use super::sysctls::{OF_NETWORKS, Sysctls};
use super::{namespace, place};

/// Puts a network namespace that belongs to `user_namespace` in the place of the one that an engine made. `mounts`
/// are those of this process. The new one is added to `starts`.
///
/// # Errors
/// When the network has something that cannot be moved: then the engine's namespace stays as it was. When the kernel
/// refuses a step: then the interfaces are back in that namespace, but are down and have no addresses. The error says so
/// if they are not.
pub(super) fn own(
    network: &EngineNamespace,
    starts: &Starts,
    user_namespace: impl AsFd,
    mounts: &[Mount],
) -> Result<()> {
    place::check(network.path(), mounts)?;
    let engines = network.namespace();
    let ours = owned_namespace::make(user_namespace.as_fd(), Kind::Network, |_| Ok(()))?;
    let (from, filters, sysctls) = namespace::inside(engines, Kind::Network, || {
        let sysctls = Sysctls::read(&OF_NETWORKS)?;
        Ok((route_socket()?, Filters::read()?, sysctls))
    })?;
    let (to, usual) = namespace::inside(&ours, Kind::Network, || {
        Ok((route_socket()?, Filters::read()?))
    })?;
    filters.check(&usual)?;
    let contents = Contents::read(&from, &to)?;
    contents.shift((&from, engines), (&to, &ours))?;
    faults::kill_at("network-moved");
    let done = namespace::inside(&ours, Kind::Network, || sysctls.write())
        .and_then(|()| contents.restore(&to))
        .inspect(|()| faults::kill_at("network-restored"))
        .and_then(|()| network.check())
        .and_then(|()| starts.add(&ours))
        .and_then(|()| place::replace(network.path(), &ours));
    faults::kill_at("network-replaced");
    done.map_err(|error| match contents.shift_back(&to, engines) {
        Ok(()) => error,
        Err(lost) => error.context(format!("the engine's network is no longer whole ({lost})")),
    })
}

fn route_socket() -> Result<Socket> {
    Socket::open(ROUTE).map_err(|e| Error::io("open", "a netlink socket", e))
}
