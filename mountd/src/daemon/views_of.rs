//! Finds the views from which the supervisor of system calls takes figures.

use std::os::fd::OwnedFd;

use super::containers::Containers;
use crate::vet::VIEWS;
use eci_fs_protocol::error::Result;
use eci_fs_protocol::vet::Container;

/// Returns the [`VIEWS`] of the attached container with this init, or else with this name, as places; none if there is none, or
/// it has not all of them.
///
/// # Errors
/// When one cannot be opened.
pub(super) fn find(containers: &Containers, wanted: &Container) -> Result<Option<[OwnedFd; 3]>> {
    let (top, rows) = {
        let state = containers.shared.state();
        let by_pid = state
            .registry
            .iter()
            .find(|(_, container)| container.subject.pid == wanted.pid)
            .map(|(slot, _)| slot);
        let found = by_pid.or_else(|| state.registry.find_id(&wanted.id));
        let Some((slot, container)) =
            found.and_then(|slot| Some((slot, state.registry.get(slot)?)))
        else {
            return Ok(None);
        };
        let rows = VIEWS.map(|path| container.rows.iter().find(|row| row.path == path).cloned());
        let [Some(meminfo), Some(uptime), Some(loadavg)] = rows else {
            return Ok(None);
        };
        (container.directory_name(slot), [meminfo, uptime, loadavg])
    };
    containers.grafter.run(move |mounts| {
        let [meminfo, uptime, loadavg] = rows;
        let place = |row| mounts.view_place(&top, &row);
        Ok(Some([place(meminfo)?, place(uptime)?, place(loadavg)?]))
    })
}
