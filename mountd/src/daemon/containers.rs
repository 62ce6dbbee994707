//! The containers of a daemon: when one comes or goes, the list, the server, the broker and the event loop hear of it.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::event_set::EventSet;
use super::journal::Journal;
use super::list_copy::ListCopy;
use super::prepare_signal::PrepareSignal;
use super::prepared_slot::PreparedSlot;
use super::state::{DaemonState, Shared};
use crate::broker::Broker;
use crate::container::Described;
use crate::container::procfs::Proc;
use crate::grafts::Grafter;
use crate::isolation::Isolation;
use crate::isolation::overlays::Overlays;
use crate::registry::Container;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::{CgroupChoice, Selector};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};
use eci_fs_protocol::link::{Row, Secrets};

/// The containers, and the parts of a daemon that operations on them take.
#[derive(Debug)]
pub(super) struct Containers {
    pub(super) shared: Arc<Shared>,
    pub(super) proc: Arc<Proc>,
    pub(super) grafter: Grafter,
    pub(super) broker: Broker,
    pub(super) events: Arc<EventSet>,
    pub(super) journal: Arc<Journal>,
    pub(super) isolation: Arc<Isolation>,
    pub(super) overlays: Arc<Overlays>,
    /// The slots of the next containers, for which clones are prepared.
    pub(super) prepared: Mutex<VecDeque<PreparedSlot>>,
    /// The list, while an upgrade holds the state.
    pub(super) list_copy: ListCopy,
    /// The signal that more of them are to be prepared.
    pub(super) prepare_signal: PrepareSignal,
}

/// The part of a request that stays with a container.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) choice: CgroupChoice,
    pub(super) choices: Choices,
    pub(super) measures_cpus: Option<bool>,
}

/// A container that is about to be put on the list.
#[derive(Debug)]
pub(super) struct NewContainer {
    pub(super) described: Described,
    pub(super) choice: CgroupChoice,
    pub(super) choices: Choices,
    pub(super) measures_cpus: Option<bool>,
    pub(super) secrets: Secrets,
    /// The rows that the server offers for it.
    pub(super) rows: Vec<Row>,
}

impl Containers {
    /// Makes a container known to the server and puts it on the list, if it is not there. Its slot and generation are
    /// `next`, which no container has had, or others.
    ///
    /// # Errors
    /// [`Reason::NameTaken`] when another container has its name; [`Error::ending`] when the daemon ends; otherwise when the
    /// server cannot take it.
    pub(super) fn enter(
        &self,
        state: &mut DaemonState,
        described: Described,
        asked: Asked,
        next: Option<(u64, u32)>,
    ) -> Result<u64> {
        // It may have decided to end since the operation was begun: it was idle until this moment.
        if state.ending {
            return Err(Error::ending());
        }
        if let Some(slot) = state.registry.find_subject(&described.subject) {
            return Ok(slot);
        }
        let id = &described.facts.id;
        if state.registry.find_id(id).is_some() {
            return Err(
                Error::new(Kind::Busy, format!("another container is named {id}"))
                    .remedy("choose another name with --id")
                    .because(Reason::NameTaken),
            );
        }
        let (slot, generation) = match next {
            Some(next) => next,
            None => next_of(state)?,
        };
        let secrets = state.registry.new_secrets(generation)?;
        self.broker.enter(slot, &self.proc, &described)?;
        let rows = state
            .slot
            .server()
            .and_then(|server| server.add(slot, secrets, &described, &asked.choices))
            .and_then(|rows| {
                self.events
                    .add_container(slot, described.subject.pidfd.as_fd())
                    .map(|()| rows)
            })
            .inspect_err(|_| self.broker.leave(slot))?;
        let new = NewContainer {
            described,
            choice: asked.choice,
            choices: asked.choices,
            measures_cpus: asked.measures_cpus,
            secrets,
            rows,
        };
        state.registry.insert(slot, new.listed());
        Ok(slot)
    }

    /// Removes a container from the list if it has no grafts and is mounted nowhere.
    pub(super) fn remove_if_unused(&self, slot: u64) {
        let mut state = self.shared.state();
        let used = state
            .registry
            .get(slot)
            .is_some_and(|c| !c.grafted.is_empty() || !c.mounts.is_empty());
        if used {
            return;
        }
        let Some(container) = state.registry.remove(slot) else {
            return;
        };
        self.events.remove(container.subject.pidfd.as_fd());
        let removed = state.slot.server().and_then(|server| server.remove(slot));
        if let Err(error) = removed {
            // The next server does not get it.
            tracing::warn!(%error, slot, "the server did not let go of a container, ignoring");
        }
        drop(state);
        // Not under the lock: this may write to the host's sysctls.
        self.broker.leave(slot);
        self.overlays.forget(slot);
    }

    /// Returns the slot of the container that `selector` names.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none.
    pub(super) fn select(&self, state: &DaemonState, selector: &Selector) -> Result<u64> {
        let namespace = match selector {
            Selector::Pid(pid) => self.proc.namespace(*pid, "mnt").ok(),
            Selector::Id(_) => None,
        };
        state.registry.select(selector, |subject| {
            Some(subject.mount_namespace) == namespace
        })
    }

    /// Writes down what has changed on the list.
    ///
    /// # Errors
    /// When the disk is full or the directory is read-only.
    pub(super) fn save(&self, state: &mut DaemonState) -> Result<()> {
        self.journal.save(&mut state.registry)
    }
}

/// Returns a slot that no container has had, and a generation for the container in it.
///
/// # Errors
/// When there is no slot any more, or no server.
pub(super) fn next_of(state: &mut DaemonState) -> Result<(u64, u32)> {
    let generation = state.slot.server()?.new_generation()?;
    Ok((state.registry.take_slot()?, generation))
}

impl NewContainer {
    /// Returns it as the list has it: without grafts, and mounted nowhere.
    pub(super) fn listed(self) -> Container {
        let Described {
            subject,
            facts,
            cgroups,
            ..
        } = self.described;
        let mut rows = self.rows;
        rows.retain(|row| self.choices.grafts(&row.path));
        Container {
            id: facts.id,
            subject,
            choice: self.choice,
            cgroups,
            rows,
            choices: self.choices,
            measures_cpus: self.measures_cpus,
            root: None,
            locked: false,
            engine_root: None,
            secrets: self.secrets,
            grafted: Vec::new(),
            mounts: Vec::new(),
        }
    }
}
