//! The list of attached containers, in memory and in the runtime directory.
//!
//! A slot is the number of a container's directory in both connections, and part of every node id: it is not
//! given out twice before a reboot, so that nothing that still holds an old graft can meet another container.

mod files;
mod saved;

pub use files::DIR;
pub use saved::{Intent, Saved, SavedContainer};

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::container::{Membership, Subject};
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::{CgroupChoice, Listed, Selector};
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::link::{Row, Secrets, random};

/// The [`Intent`] in the runtime directory; there is none between two operations.
pub const INTENT: &str = "attaching.json";

/// A container that the server knows.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub id: String,
    /// Who it is.
    pub subject: Subject,
    /// Which of its cgroups counts.
    pub choice: CgroupChoice,
    /// Those that it had when it was attached.
    pub cgroups: Vec<Membership>,
    /// What is set for it alone.
    pub choices: Choices,
    /// Where its root file system lay when it was attached, if that was not its root directory yet.
    pub root: Option<PathBuf>,
    /// What makes its identity.
    pub secrets: Secrets,
    /// What the server offers for it.
    pub rows: Vec<Row>,
    /// The paths that are covered in it.
    pub grafted: Vec<String>,
    /// Where else its views are shown.
    pub mounts: Vec<InspectionMount>,
}

/// A directory of the host under which a container's views are shown.
#[derive(Debug)]
pub struct InspectionMount {
    /// Its path.
    pub dir: PathBuf,
    /// Whether it was made for this.
    pub created: bool,
    /// The mount namespace in which it is mounted.
    pub namespace: OwnedFd,
}

/// All of them, by slot.
#[derive(Debug)]
pub struct Registry {
    containers: BTreeMap<u64, Container>,
    next_slot: u64,
    boot_id: String,
    machine_secret: [u8; 32],
    /// Those that may not be written down as they are, and those that are gone and may still be.
    changed: BTreeSet<u64>,
    /// The next slot as it is written down; none while nobody knows what lies in the runtime directory.
    written: Option<u64>,
}

impl Registry {
    /// An empty one, going on with the slots and the secret of `saved` if that is of the same boot.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn new(boot_id: String, saved: Option<&Saved>) -> Result<Self> {
        let (next_slot, secret) = match saved {
            Some(saved) if saved.boot_id == boot_id => (saved.next_slot, saved.machine_secret),
            _ => (1, None),
        };
        let machine_secret = match secret {
            Some(secret) => secret,
            None => random().map_err(|e| Error::io("get", "random bytes", e))?,
        };
        Ok(Self {
            containers: BTreeMap::new(),
            next_slot,
            boot_id,
            machine_secret,
            changed: BTreeSet::new(),
            written: None,
        })
    }

    /// What a new container is known by.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn new_secrets(&self) -> Result<Secrets> {
        Secrets::new(self.machine_secret).map_err(|e| Error::io("get", "random bytes", e))
    }

    /// The same with the boot_id that the container had before, as far as it is known.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn secrets_of(&self, boot_id: Option<[u8; 16]>) -> Result<Secrets> {
        match boot_id {
            Some(boot_id) => Ok(Secrets {
                boot_id,
                machine_secret: self.machine_secret,
            }),
            None => self.new_secrets(),
        }
    }

    /// Give out no slot up to this one.
    pub fn skip_slot(&mut self, slot: u64) {
        self.next_slot = self.next_slot.max(slot.saturating_add(1));
    }

    /// What a daemon of this boot is about to do with the container in `slot`.
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

    /// The kernel's boot_id.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// A slot that nobody had.
    pub fn take_slot(&mut self) -> u64 {
        let slot = self.next_slot;
        self.next_slot += 1;
        slot
    }

    /// Enter a container.
    pub fn insert(&mut self, slot: u64, container: Container) {
        self.changed.insert(slot);
        self.containers.insert(slot, container);
    }

    /// Strike a container out.
    pub fn remove(&mut self, slot: u64) -> Option<Container> {
        self.changed.insert(slot);
        self.containers.remove(&slot)
    }

    /// The container in a slot.
    pub fn get(&self, slot: u64) -> Option<&Container> {
        self.containers.get(&slot)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, slot: u64) -> Option<&mut Container> {
        self.changed.insert(slot);
        self.containers.get_mut(&slot)
    }

    /// All, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Container)> {
        self.containers
            .iter()
            .map(|(slot, container)| (*slot, container))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// The slot of the container with the process `pid` that started at `start_ticks`.
    pub fn find_subject(&self, subject: &Subject) -> Option<u64> {
        self.find(|c| c.subject.pid == subject.pid && c.subject.start_ticks == subject.start_ticks)
    }

    /// The slot that shows its views under `dir`.
    pub fn find_mount(&self, dir: &Path) -> Option<u64> {
        self.find(|c| c.mounts.iter().any(|mount| mount.dir == dir))
    }

    /// The slot of the container that `selector` names.
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

    /// The slot of the container that is named `id`.
    pub fn find_id(&self, id: &str) -> Option<u64> {
        self.find(|c| c.id == id)
    }

    /// As the control protocol lists those that are `there`: at most `count` after the slot `after`, and whether there are
    /// more.
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
            })
            .collect();
        (page, rest.next().is_some())
    }
}

/// Whether a name can be a container's: what a file name and a log line bear.
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
            machine_secret: None,
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
