//! The list of attached containers, in memory and in the runtime directory.
//!
//! A slot is the number of a container's directory in both connections, and part of every node id. No slot is given out
//! twice before a reboot, so that nothing that still holds an old graft can meet another container.

mod files;
mod saved;

pub use files::DIR;
pub use saved::{Intent, Saved, SavedContainer};

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::container::{Membership, Subject};
use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::{CgroupChoice, Listed, Selector};
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::link::{Row, Secrets, random};

/// The file of the [`Intent`] in the runtime directory. There is none between two operations.
pub const INTENT: &str = "attaching.json";

/// A container that the server knows.
#[derive(Debug)]
pub struct Container {
    /// The name of the container.
    pub id: String,
    /// The process and its namespaces.
    pub subject: Subject,
    /// The choice of its cgroup.
    pub choice: CgroupChoice,
    /// The cgroups that it had when it was attached.
    pub cgroups: Vec<Membership>,
    /// The settings of this container alone.
    pub choices: Choices,
    /// False if its programs do not measure CPUs, whatever its bounding set is.
    pub measures_cpus: Option<bool>,
    /// The path of its root file system when it was attached, if that was not its root directory yet.
    pub root: Option<PathBuf>,
    /// The values that make its identity.
    pub secrets: Secrets,
    /// The rows that the server offers for it.
    pub rows: Vec<Row>,
    /// The paths that are grafted in it.
    pub grafted: Vec<String>,
    /// The inspection mounts of the container.
    pub mounts: Vec<InspectionMount>,
}

/// A directory of the host under which a container's views are shown.
#[derive(Debug)]
pub struct InspectionMount {
    /// The path of the directory.
    pub dir: PathBuf,
    /// True if it was made for this.
    pub created: bool,
    /// The mount namespace in which it is mounted.
    pub namespace: OwnedFd,
}

/// The list of containers, by slot.
#[derive(Debug)]
pub struct Registry {
    containers: BTreeMap<u64, Container>,
    next_slot: u64,
    boot_id: String,
    host_secret: [u8; 32],
    /// Slots whose files may be out of date: of containers that have changed, and of those that are gone.
    changed: BTreeSet<u64>,
    /// The next slot as it is written down; none while the content of the runtime directory is not known.
    written: Option<u64>,
}

impl Registry {
    /// Returns an empty list. It goes on with the slots and the secret of `saved` if that is of the same boot.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn new(boot_id: String, saved: Option<&Saved>) -> Result<Self> {
        let (next_slot, secret) = match saved {
            Some(saved) if saved.boot_id == boot_id => (saved.next_slot, saved.host_secret),
            _ => (1, None),
        };
        let host_secret = match secret {
            Some(secret) => secret,
            None => random().map_err(|e| Error::io("get", "random bytes", e))?,
        };
        Ok(Self {
            containers: BTreeMap::new(),
            next_slot,
            boot_id,
            host_secret,
            changed: BTreeSet::new(),
            written: None,
        })
    }

    /// Returns the secrets of a new container.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn new_secrets(&self) -> Result<Secrets> {
        Secrets::new(self.host_secret).map_err(|e| Error::io("get", "random bytes", e))
    }

    /// Returns the secrets of a container that had this boot_id before, as far as that is known.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn secrets_of(&self, boot_id: Option<[u8; 16]>) -> Result<Secrets> {
        match boot_id {
            Some(boot_id) => Ok(Secrets {
                boot_id,
                host_secret: self.host_secret,
            }),
            None => self.new_secrets(),
        }
    }

    /// Gives out no slot up to this one.
    pub fn skip_slot(&mut self, slot: u64) {
        self.next_slot = self.next_slot.max(slot.saturating_add(1));
    }

    /// Returns what a daemon of this boot is about to do with the container in `slot`.
    pub fn intent(&self, slot: u64) -> Option<Intent> {
        let container = self.containers.get(&slot)?;
        Some(Intent {
            boot_id: self.boot_id.clone(),
            slot,
            pid: container.subject.pid,
            start_ticks: container.subject.start_ticks,
            root: container.root.clone(),
            paths: container.rows.iter().map(|row| row.path.clone()).collect(),
        })
    }

    /// Returns the kernel's boot_id.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Returns a slot that no container has had.
    pub fn take_slot(&mut self) -> u64 {
        let slot = self.next_slot;
        self.next_slot += 1;
        slot
    }

    /// Puts a container on the list.
    pub fn insert(&mut self, slot: u64, container: Container) {
        self.changed.insert(slot);
        self.containers.insert(slot, container);
    }

    /// Removes a container from the list.
    pub fn remove(&mut self, slot: u64) -> Option<Container> {
        self.changed.insert(slot);
        self.containers.remove(&slot)
    }

    /// Returns the container in a slot.
    pub fn get(&self, slot: u64) -> Option<&Container> {
        self.containers.get(&slot)
    }

    /// Returns the container in a slot, to change it.
    pub fn get_mut(&mut self, slot: u64) -> Option<&mut Container> {
        self.changed.insert(slot);
        self.containers.get_mut(&slot)
    }

    /// Returns all containers, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Container)> {
        self.containers
            .iter()
            .map(|(slot, container)| (*slot, container))
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Returns the slot of the container with this process: the pid and its start.
    pub fn find_subject(&self, subject: &Subject) -> Option<u64> {
        self.find(|c| c.subject.pid == subject.pid && c.subject.start_ticks == subject.start_ticks)
    }

    /// Returns the slot of the container whose views are shown under `dir`.
    pub fn find_mount(&self, dir: &Path) -> Option<u64> {
        self.find(|c| c.mounts.iter().any(|mount| mount.dir == dir))
    }

    /// Returns the slot of the container that `selector` names.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none.
    pub fn select(
        &self,
        selector: &Selector,
        mount_namespace: impl Fn(&Subject) -> bool,
    ) -> Result<u64> {
        let found = match selector {
            Selector::Id(id) => self.find(|c| c.id == *id),
            Selector::Pid(pid) => self
                .find(|c| c.subject.pid == *pid)
                .or_else(|| self.find(|c| mount_namespace(&c.subject))),
        };
        found.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                match selector {
                    Selector::Id(id) => format!("no attached container is named {id}"),
                    Selector::Pid(pid) => format!("process {pid} is in no attached container"),
                },
            )
            .remedy("see `eci-fs list`")
        })
    }

    fn find(&self, is_it: impl Fn(&Container) -> bool) -> Option<u64> {
        self.iter()
            .find(|(_, container)| is_it(container))
            .map(|(slot, _)| slot)
    }

    /// Returns the slot of the container that is named `id`.
    pub fn find_id(&self, id: &str) -> Option<u64> {
        self.find(|c| c.id == id)
    }

    /// Returns the containers that are `there`, as the control protocol lists them: at most `count` after the slot
    /// `after`, and true if there are more.
    pub fn list(
        &self,
        after: Option<u64>,
        count: usize,
        there: impl Fn(&Container) -> bool,
    ) -> (Vec<Listed>, bool) {
        let mut rest = self.iter().filter(|(slot, container)| {
            after.is_none_or(|after| *slot > after) && there(container)
        });
        let page = rest
            .by_ref()
            .take(count)
            .map(|(slot, container)| Listed {
                id: container.id.clone(),
                slot,
                pid: container.subject.pid,
                grafts: container.grafted.len(),
                mounts: container
                    .mounts
                    .iter()
                    .map(|mount| mount.dir.clone())
                    .collect(),
                usage: None,
            })
            .collect();
        (page, rest.next().is_some())
    }
}

/// Returns the intent in the runtime directory: an attach that is under way, or was when the daemon died.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read_intent(runtime: &RuntimeDir) -> Result<Option<Intent>> {
    let text = runtime.read(INTENT)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Checks that a name can be the name of a container: a file name and a log line must bear it.
///
/// # Errors
/// [`Kind::Refused`] with the rule.
pub fn check_id(id: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if id.is_empty() || id.len() > 128 || !id.chars().all(good) || id.starts_with(['.', '-']) {
        return Err(
            Error::refused(format!("{id:?} cannot be the name of a container")).remedy(
                "use up to 128 letters, digits, '_', '.', '-', and begin with none of the last two",
            ),
        );
    }
    if id.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::refused(format!(
            "{id:?} cannot be the name of a container: it reads like a pid"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_go_on_after_a_restart_and_begin_anew_after_a_reboot() {
        let mut registry = Registry::new("boot".into(), None).unwrap();
        assert_eq!((registry.take_slot(), registry.take_slot()), (1, 2));
        let saved = Saved {
            boot_id: "boot".into(),
            next_slot: registry.next_slot,
            host_secret: None,
            containers: Vec::new(),
        };
        for (boot_id, slot) in [("boot", 3), ("other", 1)] {
            let mut next = Registry::new(boot_id.into(), Some(&saved)).unwrap();
            assert_eq!(next.take_slot(), slot);
        }
    }

    #[test]
    fn names_that_read_like_paths_or_pids_are_refused() {
        for good in ["web", "a.b-c_9", "0x"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "-x", "a/b", "a b", "123", "é", &"x".repeat(129)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
