//! The containers of the daemon before this one: they are taken over as they are, or grafted anew.
//!
//! Most errors here are not fatal. A container that has ended meanwhile needs nothing, and one that cannot be taken
//! over must not keep the others from it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::attach::graft;
use super::containers::NewContainer;
use super::daemon::Daemon;
use super::inherit::Connected;
use super::inspection_mounts;
use super::state::vanished;
use crate::container::mountinfo;
use crate::container::procfs::Proc;
use crate::container::{Described, Subject, describe, describe_again, open_pidfd};
use crate::grafts::{Progress, SOURCE, open_dir};
use crate::registry::{Container, InspectionMount, Intent, Saved, SavedContainer};
use eci_fs_protocol::error::{Error, Result};

/// The number of servers that may die, one after the other, while containers are taken over.
const MAX_SERVERS: usize = 10;

/// Takes over the containers in `saved`, if that was written since the host was booted, and begins to serve.
///
/// # Errors
/// When the server does not begin to serve.
pub(super) fn restore(daemon: &Daemon, saved: Option<&Saved>, connected: &Connected) -> Result<()> {
    let _operation = daemon.shared.operation.lock();
    let none = BTreeSet::new();
    let known = match connected {
        Connected::Anew => {
            // Grafting makes requests to the server. Nobody else can make any yet.
            daemon.shared.state().slot.server()?.serve(false)?;
            &none
        }
        Connected::Before { server: None } => &none,
        Connected::Before {
            server: Some(slots),
        } => slots,
    };
    let boot_id = {
        let mut state = daemon.shared.state();
        known
            .iter()
            .for_each(|slot| state.registry.skip_slot(*slot));
        state.registry.boot_id().to_owned()
    };
    let containers = match saved {
        Some(saved) if saved.boot_id == boot_id => saved.containers.as_slice(),
        _ => &[],
    };
    let mut servers = 0;
    for container in containers {
        let anew = matches!(connected, Connected::Anew);
        loop {
            let known = servers == 0 && known.contains(&container.slot);
            let Err(error) = restore_one(daemon, container, known, anew) else {
                break;
            };
            // No container can help it if the server has died: the next one is told of it.
            if server_is_gone(daemon) {
                servers += 1;
                if servers > MAX_SERVERS {
                    return Err(error);
                }
                tracing::error!(%error, "the server died; starting another one");
                daemon.supervision.let_go();
                if let Err(error) = daemon.supervision.start(anew) {
                    tracing::error!(%error, "there is still none");
                }
                continue;
            }
            tracing::info!(%error, id = %container.id, "the container is let go of");
            let_go(daemon, container);
            break;
        }
    }
    undo_intent(daemon, &boot_id, known)?;
    let mut state = daemon.shared.state();
    for slot in known.iter().filter(|_| servers == 0) {
        if state.registry.get(*slot).is_none() {
            // Its process has ended, or it was about to be attached.
            let _ = state.slot.server()?.remove(*slot);
        }
    }
    let waits = match connected {
        Connected::Anew => false,
        Connected::Before { server } => servers > 0 || server.is_none(),
    };
    if waits {
        let resend = state.slot.connections().can_resend();
        if let Err(error) = state.slot.server()?.serve(resend) {
            drop(state);
            if !server_is_gone(daemon) {
                return Err(error);
            }
            // The event loop notices that like any other death of a server, and then all are handed over.
            tracing::error!(%error, "the server died");
            state = daemon.shared.state();
        }
    }
    if !containers.is_empty() {
        let restored = state.registry.iter().count();
        tracing::info!(restored, of = containers.len(), "containers taken over");
        daemon.containers.save(&mut state)?;
    }
    Ok(())
}

fn server_is_gone(daemon: &Daemon) -> bool {
    daemon.shared.state().slot.is_gone()
}

fn restore_one(daemon: &Daemon, saved: &SavedContainer, known: bool, anew: bool) -> Result<()> {
    let described = find_again(daemon, saved)?;
    let unknown = !anew && !known && !saved.grafted.is_empty();
    if unknown && !has_grafts(&daemon.containers.proc, saved.pid)? {
        // The list could not be written when that was done.
        return Err(Error::not_found("it was detached"));
    }
    let slot = saved.slot;
    let mut state = daemon.shared.state();
    let secrets = state.registry.secrets_of(saved)?;
    daemon
        .containers
        .broker
        .enter(slot, &daemon.containers.proc, &described)?;
    let rows = if known {
        state.slot.server()?.catalogue(slot)?
    } else {
        let server = state.slot.server()?;
        server.add(slot, secrets, &described, &saved.choices)?
    };
    let pidfd = described.subject.pidfd.as_fd();
    daemon.containers.events.add_container(slot, pidfd)?;
    let grafted = if anew {
        Vec::new()
    } else {
        saved.grafted.clone()
    };
    let new = NewContainer {
        described,
        choice: saved.choice,
        choices: saved.choices.clone(),
        measures_cpus: saved.measures_cpus,
        secrets,
        rows,
    };
    state.registry.insert(
        slot,
        Container {
            root: saved.root.clone(),
            locked: saved.locked,
            engine_root: saved.engine_root.clone(),
            grafted,
            ..new.listed()
        },
    );
    drop(state);
    if let Some(engine) = &saved.engine_root {
        let overlays = &daemon.containers.overlays;
        if let Err(error) = overlays.watch_again(slot, &daemon.containers.proc, saved.pid, engine) {
            tracing::warn!(%error, id = %saved.id, "its engine may see old names in its files");
        }
    }
    if anew && !saved.grafted.is_empty() {
        // The container has entered its root since it was attached, or the hook that asked has failed.
        let progress = Progress {
            has_locks: saved.locked,
            ..Progress::default()
        };
        graft(&daemon.containers, slot, progress)?;
    }
    for (dir, created) in &saved.mounts {
        let inspection = InspectionMount {
            dir: dir.clone(),
            created: *created,
            namespace: daemon
                .containers
                .proc
                .open_at("self/ns/mnt", OFlags::RDONLY)?,
        };
        if !anew {
            let mut state = daemon.shared.state();
            let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
            container.mounts.push(inspection);
            continue;
        }
        let shown = unmount(&daemon.containers.proc, dir)
            .and_then(|()| open_dir(dir))
            .and_then(|opened| {
                inspection_mounts::show(&daemon.containers, slot, opened, inspection)
            });
        if let Err(error) = shown {
            tracing::warn!(%error, dir = %dir.display(), "a directory shows its container no more, ignoring");
        }
    }
    Ok(())
}

/// Returns true if anything of ours is mounted where a process is.
fn has_grafts(proc: &Proc, pid: i32) -> Result<bool> {
    let found = proc.each_mount(&format!("{pid}/mountinfo"), mountinfo::LIMIT, |mount| {
        if mount.source == SOURCE {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(found.is_some())
}

fn find_again(daemon: &Daemon, saved: &SavedContainer) -> Result<Described> {
    let pidfd = open_pidfd(saved.pid)?;
    let id = Some(saved.id.clone());
    let described = describe_again(
        &daemon.containers.proc,
        pidfd.as_fd(),
        id,
        saved.choice,
        saved.measures_cpus,
        &saved.cgroups,
    )?;
    if described.subject.start_ticks != saved.start_ticks {
        return Err(vanished());
    }
    Ok(described)
}

/// Removes the rest of a container that is not taken over.
fn let_go(daemon: &Daemon, saved: &SavedContainer) {
    let mut state = daemon.shared.state();
    if let Some(container) = state.registry.remove(saved.slot) {
        daemon
            .containers
            .events
            .remove(container.subject.pidfd.as_fd());
        if let Ok(server) = state.slot.server() {
            let _ = server.remove(saved.slot);
        }
    }
    drop(state);
    daemon.containers.broker.leave(saved.slot);
    for (dir, created) in &saved.mounts {
        if let Err(error) = unmount(&daemon.containers.proc, dir) {
            tracing::debug!(%error, dir = %dir.display(), "nothing is mounted there");
        } else if *created {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Takes out the grafts of a daemon that was killed in the middle of an attach.
fn undo_intent(daemon: &Daemon, boot_id: &str, known: &BTreeSet<u64>) -> Result<()> {
    let intent = daemon.containers.journal.unfinished()?;
    if let Some(intent) = intent.filter(|intent| intent.boot_id == boot_id) {
        let listed = {
            let mut state = daemon.shared.state();
            state.registry.skip_slot(intent.slot);
            state.registry.get(intent.slot).is_some()
        };
        // If it is on the list, the attach had come to its end.
        if !listed {
            let slot = known.contains(&intent.slot).then_some(intent.slot);
            match undo(daemon, &intent, slot) {
                Ok(0) => {}
                Ok(grafts) => {
                    tracing::info!(pid = intent.pid, grafts, "undid an attach that was cut off");
                }
                Err(error) => tracing::debug!(%error, "nothing is left of an attach"),
            }
        }
    }
    daemon.containers.journal.finish()
}

fn undo(daemon: &Daemon, intent: &Intent, slot: Option<u64>) -> Result<usize> {
    let pidfd = open_pidfd(intent.pid)?;
    let choice = eci_fs_protocol::control::CgroupChoice::Own;
    let subject: Subject =
        describe(&daemon.containers.proc, pidfd.as_fd(), None, choice, None)?.subject;
    if subject.start_ticks != intent.start_ticks {
        return Ok(0);
    }
    let (paths, root) = (intent.paths.clone(), intent.root.clone());
    daemon
        .containers
        .grafter
        .detach(&subject, root, slot, paths)
}

fn unmount(proc: &Proc, dir: &Path) -> Result<()> {
    let mut top = None;
    proc.each_mount("self/mountinfo", u64::MAX, |mount| {
        if Path::new(&mount.point) == dir {
            top = Some(mount);
        }
        ControlFlow::<()>::Continue(())
    })?;
    if top.is_none_or(|mount| mount.source != SOURCE) {
        return Err(Error::not_found("nothing of ours is mounted there"));
    }
    rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH)
        .map_err(|e| Error::io("unmount", dir, e))
}
