//! Another version of either program in the place of the one that runs.

use std::path::PathBuf;

use super::asker::Asker;
use super::daemon::Daemon;
use super::{successor, upgrade_server};
use eci_fs_protocol::control::{Part, Response};
use eci_fs_protocol::error::Result;

/// Puts the program at `path`, or the one that lies now where the running one was started from, in its place.
///
/// # Errors
/// When it cannot be started or does not answer: then all is as before.
pub(super) fn upgrade(
    daemon: &Daemon,
    asker: Asker<'_>,
    part: Part,
    path: Option<PathBuf>,
) -> Result<Response> {
    let _operation = daemon.shared.begin_for(asker)?;
    let containers = &daemon.containers;
    let _copy = containers.list_copy.keep(&daemon.shared.state().registry);
    let upgraded = match part {
        Part::Daemon => successor::start(daemon, path)?,
        Part::Server => {
            upgrade_server::upgrade(&daemon.supervision, &mut daemon.shared.state(), path)?
        }
    };
    Ok(Response::Upgraded(upgraded))
}
