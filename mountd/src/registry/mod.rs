//! The list of attached containers, in memory and in the runtime directory.
//!
//! A slot is the number of a container's directory in both connections, and part of every node id. No slot is given out
//! twice before a reboot, so that nothing that still holds an old graft can meet another container (`slots.rs`).

mod files;
mod saved;
mod slots;

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
use eci_fs_protocol::link::{Row, Secrets, directory_name, random};
use slots::Slots;

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
    /// True if the kernel has locked its grafts.
    pub locked: bool,
    /// The path of the overlay of its engine, if it has another one of the same layers.
    pub engine_root: Option<PathBuf>,
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
    /// The slot of the container that came last.
    last: Option<u64>,
    slots: Slots,
    boot_id: String,
    host_secret: [u8; 32],
    /// Slots whose files may be out of date: of containers that have changed, and of those that are gone.
    changed: BTreeSet<u64>,
    /// The next slot as it is written down; none while the content of the runtime directory is not known.
    written: Option<u64>,
}

impl Container {
    /// Returns the name of its directory in the root of both connections. It is in `slot`.
    pub fn directory_name(&self, slot: u64) -> String {
        directory_name(slot, self.secrets.generation)
    }
}

impl Registry {
    /// Returns an empty list. It goes on with the slots and the secret of `saved` if that is of the same boot.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn new(boot_id: String, saved: Option<&Saved>) -> Result<Self> {
        let saved = saved.filter(|saved| saved.boot_id == boot_id);
        let host_secret = match saved.and_then(|saved| saved.host_secret) {
            Some(secret) => secret,
            None => random().map_err(|e| Error::io("get", "random bytes", e))?,
        };
        let slots = match saved {
            Some(saved) => {
                let mut slots = Slots::going_on(&host_secret, saved.next_slot, saved.counted_below);
                saved.in_files.iter().for_each(|slot| slots.skip(*slot));
                slots
            }
            None => Slots::new(&host_secret),
        };
        Ok(Self {
            containers: BTreeMap::new(),
            last: None,
            slots,
            boot_id,
            host_secret,
            changed: BTreeSet::new(),
            written: None,
        })
    }

    /// Returns the secrets of a new container with this generation.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn new_secrets(&self, generation: u32) -> Result<Secrets> {
        let secrets =
            Secrets::new(self.host_secret).map_err(|e| Error::io("get", "random bytes", e))?;
        Ok(Secrets {
            generation,
            ..secrets
        })
    }

    /// Returns the secrets of a container that was attached before, as far as they are known.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn secrets_of(&self, saved: &SavedContainer) -> Result<Secrets> {
        match saved.boot_id {
            Some(boot_id) => Ok(Secrets {
                boot_id,
                host_secret: self.host_secret,
                generation: saved.generation,
            }),
            None => self.new_secrets(saved.generation),
        }
    }

    /// Does not give out this slot, which has been given out.
    pub fn skip_slot(&mut self, slot: u64) {
        self.slots.skip(slot);
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
    ///
    /// # Errors
    /// When there is none any more before the host is booted.
    pub fn take_slot(&mut self) -> Result<u64> {
        self.slots.take()
    }

    /// Returns the container that came last; none if it is gone.
    pub fn last(&self) -> Option<&Container> {
        self.get(self.last?)
    }

    /// Puts a container on the list.
    pub fn insert(&mut self, slot: u64, container: Container) {
        self.last = Some(slot);
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

    /// Returns the containers that are `there` in the order in which they came, as the control protocol lists them: at most
    /// `count` after the one in the slot `after`, and true if there are more.
    pub fn list(
        &self,
        after: Option<u64>,
        count: usize,
        there: impl Fn(&Container) -> bool,
    ) -> (Vec<Listed>, bool) {
        let after = after.map(|after| self.slots.order(after));
        let mut rest: Vec<(u64, u64, &Container)> = self
            .iter()
            .map(|(slot, container)| (self.slots.order(slot), slot, container))
            .filter(|(order, _, container)| {
                after.is_none_or(|after| *order > after) && there(container)
            })
            .collect();
        rest.sort_unstable_by_key(|(order, ..)| *order);
        let mut rest = rest
            .into_iter()
            .map(|(_, slot, container)| (slot, container));
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
                range: None,
                locked: container.locked && !container.grafted.is_empty(),
                vetted: false,
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
    use eci_fs_protocol::link::SLOTS;

    #[test]
    fn slots_go_on_after_a_restart_and_begin_anew_after_a_reboot() {
        let mut registry = Registry::new("boot".into(), None).unwrap();
        registry.take_slot().unwrap();
        let saved = Saved {
            boot_id: "boot".into(),
            next_slot: registry.slots.next(),
            counted_below: registry.slots.counted_below(),
            host_secret: Some(registry.host_secret),
            containers: Vec::new(),
            in_files: Vec::new(),
        };
        let next_of = |boot_id: &str| {
            let mut next = Registry::new(boot_id.into(), Some(&saved)).unwrap();
            (next.slots.next(), next.take_slot().unwrap())
        };
        assert_eq!(
            next_of("boot"),
            (registry.slots.next(), registry.take_slot().unwrap())
        );
        assert_eq!(next_of("other").0, 1);
    }

    #[test]
    fn a_list_whose_slots_are_used_up_takes_no_container() {
        let saved = Saved {
            boot_id: "boot".into(),
            next_slot: SLOTS,
            counted_below: 1,
            host_secret: Some([1; 32]),
            containers: Vec::new(),
            in_files: Vec::new(),
        };
        let mut registry = Registry::new("boot".into(), Some(&saved)).unwrap();
        let error = registry.take_slot().unwrap_err().to_string();
        assert!(error.contains("slots"), "{error}");
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
