//! The containers of the daemon before this one: what it has left is taken over, or grafted anew.
//!
//! Nothing here is fatal: a container that has ended meanwhile needs nothing, and one that cannot be taken over must
//! not keep the others from it.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::inherit::Connected;
use super::operations::{Daemon, vanished};
use crate::container::mountinfo::parse_mountinfo;
use crate::container::procfs::Proc;
use crate::container::{Described, Subject, describe, describe_again, open_pidfd};
use crate::grafts;
use crate::grafts::Progress;
use crate::grafts::place::{SOURCE, open_dir};
use crate::registry::{self, Container, Exposure, Intent, Saved, SavedContainer};
use crate::supervisor::Server;
use eci_fs_protocol::error::{Error, Result};

/// Servers that may die, one after the other, while containers are taken over.
const MAX_SERVERS: usize = 10;

impl Daemon {
    /// Take over the containers in `saved`, if that was written since the machine was booted, and begin to serve.
    ///
    /// # Errors
    /// When the server does not begin to serve.
    pub(super) fn restore(&self, saved: Option<&Saved>, connected: &Connected) -> Result<()> {
        let _turn = self.turn.lock();
        let none = BTreeSet::new();
        let known = match connected {
            Connected::Anew => {
                // Grafting asks the server for what is grafted. Nobody else can ask it yet.
                self.state.lock().server()?.serve(false)?;
                &none
            }
            Connected::Before { server: None } => &none,
            Connected::Before {
                server: Some(slots),
            } => slots,
        };
        let boot_id = {
            let mut state = self.state.lock();
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
                let Err(error) = self.restore_one(container, known, anew) else {
                    break;
                };
                // The container cannot help it if the server has died: the next one is told of it.
                if self.server_is_gone() {
                    servers += 1;
                    if servers > MAX_SERVERS {
                        return Err(error);
                    }
                    tracing::error!(%error, "the server died; starting another one");
                    self.let_go_of_server();
                    if let Err(error) = self.start_server(anew) {
                        tracing::error!(%error, "there is still none");
                    }
                    continue;
                }
                tracing::info!(%error, id = %container.id, "the container is let go of");
                self.let_go(container);
                break;
            }
        }
        self.undo_intent(&boot_id, known)?;
        let mut state = self.state.lock();
        for slot in known.iter().filter(|_| servers == 0) {
            if state.registry.get(*slot).is_none() {
                // Its process has ended, or it was about to be attached.
                let _ = state.server()?.remove(*slot);
            }
        }
        let waits = match connected {
            Connected::Anew => false,
            Connected::Before { server } => servers > 0 || server.is_none(),
        };
        if waits {
            let resend = state.connections.can_resend();
            if let Err(error) = state.server()?.serve(resend) {
                drop(state);
                if !self.server_is_gone() {
                    return Err(error);
                }
                // That is noticed like any other death of a server, and all are handed over then.
                tracing::error!(%error, "the server died");
                state = self.state.lock();
            }
        }
        if !containers.is_empty() {
            let restored = state.registry.iter().count();
            tracing::info!(restored, of = containers.len(), "containers taken over");
            self.save(&mut state)?;
        }
        Ok(())
    }

    fn server_is_gone(&self) -> bool {
        let state = self.state.lock();
        state.server.as_ref().is_none_or(Server::is_gone)
    }

    fn restore_one(&self, saved: &SavedContainer, known: bool, anew: bool) -> Result<()> {
        let described = self.find_again(saved)?;
        let unknown = !anew && !known && !saved.grafted.is_empty();
        if unknown && !self.has_grafts(saved.pid)? {
            // The list could not be written when that was done.
            return Err(Error::not_found("it was detached"));
        }
        let slot = saved.slot;
        let mut state = self.state.lock();
        let secrets = state.registry.secrets_of(saved.boot_id)?;
        self.broker.enter(slot, &self.proc, &described)?;
        let rows = if known {
            state.server()?.catalogue(slot)?
        } else {
            let server = state.server()?;
            server.add(slot, secrets, &described, &saved.choices)?
        };
        let rows = saved.choices.chosen(rows);
        let Described {
            subject,
            facts,
            cgroups,
            ..
        } = described;
        self.watch.container(slot, subject.pidfd.as_fd())?;
        let grafted = if anew {
            Vec::new()
        } else {
            saved.grafted.clone()
        };
        state.registry.insert(
            slot,
            Container {
                id: facts.id,
                subject,
                choice: saved.choice,
                cgroups,
                choices: saved.choices.clone(),
                root: saved.root.clone(),
                secrets,
                rows,
                grafted,
                mounts: Vec::new(),
            },
        );
        drop(state);
        if anew && !saved.grafted.is_empty() {
            // It has entered its root since it was attached, or the hook that asked has failed.
            self.graft(slot, Progress::default(), None)?;
        }
        for (dir, created) in &saved.mounts {
            let exposure = Exposure {
                dir: dir.clone(),
                created: *created,
                namespace: self.proc.open_at("self/ns/mnt", OFlags::RDONLY)?,
            };
            if !anew {
                let mut state = self.state.lock();
                let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
                container.mounts.push(exposure);
                continue;
            }
            let shown = unmount(&self.proc, dir)
                .and_then(|()| open_dir(dir))
                .and_then(|opened| self.expose(slot, opened, exposure));
            if let Err(error) = shown {
                tracing::warn!(%error, dir = %dir.display(), "a directory shows its container no more, ignoring");
            }
        }
        Ok(())
    }

    /// Whether anything of ours is mounted where a process is.
    fn has_grafts(&self, pid: i32) -> Result<bool> {
        let mounts = parse_mountinfo(&self.proc.read(&format!("{pid}/mountinfo"))?);
        Ok(mounts.iter().any(|mount| mount.source == SOURCE))
    }

    fn find_again(&self, saved: &SavedContainer) -> Result<Described> {
        let pidfd = open_pidfd(saved.pid)?;
        let id = Some(saved.id.clone());
        let described =
            describe_again(&self.proc, pidfd.as_fd(), id, saved.choice, &saved.cgroups)?;
        if described.subject.start_ticks != saved.start_ticks {
            return Err(vanished());
        }
        Ok(described)
    }

    /// What is left of a container that is not taken over.
    fn let_go(&self, saved: &SavedContainer) {
        let mut state = self.state.lock();
        if let Some(container) = state.registry.remove(saved.slot) {
            self.watch.forget(container.subject.pidfd.as_fd());
            if let Ok(server) = state.server() {
                let _ = server.remove(saved.slot);
            }
        }
        drop(state);
        self.broker.leave(saved.slot);
        for (dir, created) in &saved.mounts {
            if let Err(error) = unmount(&self.proc, dir) {
                tracing::debug!(%error, dir = %dir.display(), "nothing is mounted there");
            } else if *created {
                let _ = std::fs::remove_dir(dir);
            }
        }
    }

    /// Take out what a daemon that was killed in the middle of an attach has grafted.
    fn undo_intent(&self, boot_id: &str, known: &BTreeSet<u64>) -> Result<()> {
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        let intent = runtime
            .read(registry::INTENT)?
            .and_then(|text| serde_json::from_str::<Intent>(&text).ok());
        if let Some(intent) = intent.filter(|intent| intent.boot_id == boot_id) {
            let listed = {
                let mut state = self.state.lock();
                state.registry.skip_slot(intent.slot);
                state.registry.get(intent.slot).is_some()
            };
            // If it is on the list, the attach had come to its end.
            if !listed {
                let slot = known.contains(&intent.slot).then_some(intent.slot);
                match self.undo(&intent, slot) {
                    Ok(0) => {}
                    Ok(grafts) => {
                        tracing::info!(
                            pid = intent.pid,
                            grafts,
                            "undid an attach that was cut off"
                        );
                    }
                    Err(error) => tracing::debug!(%error, "nothing is left of an attach"),
                }
            }
        }
        runtime.remove(registry::INTENT)
    }

    fn undo(&self, intent: &Intent, slot: Option<u64>) -> Result<usize> {
        let pidfd = open_pidfd(intent.pid)?;
        let choice = eci_fs_protocol::control::CgroupChoice::Own;
        let subject: Subject = describe(&self.proc, pidfd.as_fd(), None, choice)?.subject;
        if subject.start_ticks != intent.start_ticks {
            return Ok(0);
        }
        let (paths, root) = (intent.paths.clone(), intent.root.clone());
        self.grafter
            .run(move |place| grafts::detach(place, &subject, root.as_deref(), slot, &paths))
    }
}

fn unmount(proc: &Proc, dir: &Path) -> Result<()> {
    let mounts = parse_mountinfo(&proc.read("self/mountinfo")?);
    let top = mounts
        .iter()
        .rev()
        .find(|mount| Path::new(&mount.point) == dir);
    if top.is_none_or(|mount| mount.source != SOURCE) {
        return Err(Error::not_found("nothing of ours is mounted there"));
    }
    rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH)
        .map_err(|e| Error::io("unmount", dir, e))
}
