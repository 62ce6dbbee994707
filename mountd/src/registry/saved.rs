//! The list as it is written down in the runtime directory, for the next daemon.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::slots::Slots;
use crate::container::Membership;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::CgroupChoice;

/// The list, as a daemon has left it.
#[derive(Debug)]
pub struct Saved {
    /// The kernel's boot_id: after a reboot nothing of this is true any more.
    pub boot_id: String,
    /// The number of the slot that the next container gets.
    pub next_slot: u64,
    /// Slots below this were given out by version 0.1.0.
    pub counted_below: u64,
    /// The secret from which hardware identities are made; the files are root's alone.
    pub host_secret: Option<[u8; 32]>,
    /// The containers, in the order in which they came.
    pub containers: Vec<SavedContainer>,
    /// The slots that have files of their own, also of those containers whose files cannot be understood.
    pub in_files: Vec<u64>,
}

impl Saved {
    /// Returns it with the containers in the order in which they came.
    pub(super) fn sorted(mut self) -> Self {
        if let Some(secret) = &self.host_secret {
            let slots = Slots::going_on(secret, self.next_slot, self.counted_below);
            self.containers
                .sort_by_key(|container| slots.order(container.slot));
        }
        self
    }
}

/// A container as it is written down.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedContainer {
    /// The name of the container.
    pub id: String,
    /// The slot of the container.
    pub slot: u64,
    /// The process of the container.
    pub pid: i32,
    /// The start of that process in clock ticks, to tell it from a later one.
    pub start_ticks: u64,
    /// The paths that are grafted in it.
    pub grafted: Vec<String>,
    /// The directories of its inspection mounts, each with true if it was made for that.
    pub mounts: Vec<(PathBuf, bool)>,
    /// The choice of its cgroup.
    #[serde(default)]
    pub choice: CgroupChoice,
    /// The cgroups that it had when it was attached.
    #[serde(default)]
    pub cgroups: Vec<Membership>,
    /// The settings of this container alone.
    #[serde(default)]
    pub choices: Choices,
    /// The path of its root file system when it was attached, if that was not its root directory yet.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// The path of the overlay of its engine, if it has another one of the same layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_root: Option<PathBuf>,
    /// True if the kernel has locked its grafts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// The boot_id of the container. The file is root's alone.
    #[serde(default)]
    pub boot_id: Option<[u8; 16]>,
    /// False if its programs do not measure CPUs, whatever its bounding set is. A daemon of version 0.1.0 did not write it:
    /// then the container keeps the CPUs that it has seen.
    #[serde(default = "not_measuring")]
    pub measures_cpus: Option<bool>,
    /// The generation of its nodes; 0 if it was attached by version 0.1.0. The file is root's alone.
    #[serde(default)]
    pub generation: u32,
}

fn not_measuring() -> Option<bool> {
    Some(false)
}

/// The intent of a daemon. It is written down before it is carried out, because a daemon that is killed in the middle
/// leaves grafts that are on no list.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The kernel's boot_id.
    pub boot_id: String,
    /// The slot that the container gets.
    pub slot: u64,
    /// The process of the container.
    pub pid: i32,
    /// The start of that process in clock ticks.
    pub start_ticks: u64,
    /// The path of its root file system, if that is not its root directory yet.
    pub root: Option<PathBuf>,
    /// The paths that are to be covered.
    pub paths: Vec<String>,
}
