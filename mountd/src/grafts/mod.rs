//! Grafts: mounts of ours over single entries of a container's /proc and /sys.
//!
//! The files in their order: each uses only those after it.
//!
//! | file | what it has |
//! |---|---|
//! | [`grafter`](Grafter) | the thread in the namespace of the source mounts, and the way to all of this |
//! | `container` | grafts into a container, all or none, and takes them out |
//! | `locks` | has the kernel lock grafts, masks and read-only mounts of a container that is being made |
//! | [`inspection`](mount_inspection) | mounts the same views under a directory of the host |
//! | `visits` | threads that look into a container, and can be given up |
//! | `prepared_clones` | clones that are made before they are needed |
//! | `rows` | which rows of a catalogue get a mount |
//! | `spare` | keeps a procfs without grafts in the container, for the kernel to see |
//! | `target` | finds and checks the entries that are to be covered |
//! | `open` | opens paths of the container |
//! | [`source_mounts`](SourceMounts) | the mounts that grafts are clones of, in a namespace of their own |
//! | [`probe`](LivenessProbe) | questions to a file system of ours that may never be answered |
//! | `own_descriptors` | how a thread leaves the daemon's descriptors |

mod container;
mod grafter;
mod inspection;
mod locks;
mod open;
mod own_descriptors;
mod prepared_clones;
mod probe;
mod rows;
mod source_mounts;
mod spare;
mod target;
mod visits;

pub use container::{Outcome, Progress};
pub use grafter::{Grafter, Origin};
pub use inspection::{mount_inspection, unmount_inspection};
pub use probe::LivenessProbe;
pub(crate) use source_mounts::open_dir;
pub use source_mounts::{SOURCE, SourceMounts};
pub use spare::hides_something;
