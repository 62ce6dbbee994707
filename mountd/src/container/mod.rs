//! Facts about a container, from a pidfd of one of its processes.
//!
//! Everything comes from what the kernel says about the process (`/proc/<pid>` of the host); nothing that
//! the container itself wrote is read.

mod cgroup;
mod describe;
mod disks;
pub(crate) mod in_namespace;
pub mod mountinfo;
pub mod network;
mod open_below;
mod pid_max;
pub mod procfs;

pub use cgroup::{
    Directory, Membership, namespace_root, open_directory, parse_all_memberships, parse_memberships,
};
pub(crate) use describe::has_ended;
pub use describe::{Described, Subject, describe, describe_again, lives, open_pidfd};
pub(crate) use disks::disks;
pub(crate) use open_below::open_below;
pub use open_below::open_within;
