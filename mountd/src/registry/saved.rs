//! What is written down in the runtime directory, for the next daemon.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::container::Membership;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::CgroupChoice;

/// The list, as a daemon has left it.
#[derive(Debug)]
pub struct Saved {
    /// The kernel's boot_id: after a reboot nothing of this is true any more.
    pub boot_id: String,
    /// The slot that the next container gets.
    pub next_slot: u64,
    /// The secret from which hardware identities are made; the files are root's alone.
    pub machine_secret: Option<[u8; 32]>,
    /// The containers, by slot.
    pub containers: Vec<SavedContainer>,
}

/// A container as it is written down.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedContainer {
    /// Its name.
    pub id: String,
    /// Its slot.
    pub slot: u64,
    /// Its process.
    pub pid: i32,
    /// The start of that process in clock ticks, to tell it from a later one.
    pub start_ticks: u64,
    /// The paths that are covered in it.
    pub grafted: Vec<String>,
    /// Where else its views are shown, and whether that directory was made for it.
    pub mounts: Vec<(PathBuf, bool)>,
    /// Which of its cgroups counts.
    #[serde(default)]
    pub choice: CgroupChoice,
    /// Those that it had when it was attached.
    #[serde(default)]
    pub cgroups: Vec<Membership>,
    /// What is set for it alone.
    #[serde(default)]
    pub choices: Choices,
    /// Where its root file system lay when it was attached, if that was not its root directory yet.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// Its boot_id; the file is root's alone.
    #[serde(default)]
    pub boot_id: Option<[u8; 16]>,
}

/// What a daemon is about to do, written down before it is done: a daemon that is killed in the middle of it
/// leaves grafts that are on no list.
#[derive(Debug, Serialize, Deserialize)]
pub struct Intent {
    /// The kernel's boot_id.
    pub boot_id: String,
    /// The slot that the container gets.
    pub slot: u64,
    /// Its process.
    pub pid: i32,
    /// The start of that process in clock ticks.
    pub start_ticks: u64,
    /// Where its root file system lies, if that is not its root directory yet.
    pub root: Option<PathBuf>,
    /// What is to be covered.
    pub paths: Vec<String>,
}
