//! The mounts of a container that the kernel locks.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The masks, read-only paths and read-only mounts of a container's configuration that the daemon makes in place of the
/// runtime. A runtime would make them after the daemon has locked the mounts, so they would not be locked. All paths
/// are absolute paths in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    /// Files and directories below /proc and /sys that are masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<PathBuf>,
    /// Files and directories below /proc and /sys that are read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_only: Vec<PathBuf>,
    /// Mounts that are read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<ReadOnlyMount>,
}

/// A mount of a container that is read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOnlyMount {
    /// The mount point. Symbolic links in it are followed within the container.
    pub point: PathBuf,
    /// True if the mounts below it are read-only, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
}
