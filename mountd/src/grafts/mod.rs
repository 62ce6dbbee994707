//! Grafts: mounts of ours over single entries of a container's /proc and /sys.
//!
//! The files in their order: each uses only those after it.
//!
//! | file | what it has |
//! |---|---|
//! | [`grafter`](Grafter) | the thread that does all of this |
//! | [`container`](attach) | grafts into a container, all or none, and takes them out |
//! | [`inspection`](mount_inspection) | mounts the same views under a directory of the host |
//! | [`prepared_clones`](PreparedClones) | clones that are made before they are needed |
//! | `rows` | which rows of a catalogue get a mount |
//! | `spare` | keeps a procfs without grafts in the container, for the kernel to see |
//! | [`target`](Targets) | finds and checks the entries that are to be covered |
//! | `open` | opens paths of the container |
//! | [`source_mounts`](SourceMounts) | the mounts that grafts are clones of, in a namespace of their own |
//! | [`probe`](LivenessProbe) | questions to a file system that may never answer |

mod container;
mod grafter;
mod inspection;
mod open;
mod prepared_clones;
mod probe;
mod rows;
mod source_mounts;
mod spare;
mod target;

pub use container::{Clones, Outcome, Progress, attach, detach};
pub use grafter::{Grafter, Origin};
pub use inspection::{mount_inspection, unmount_inspection};
pub use prepared_clones::PreparedClones;
pub use probe::LivenessProbe;
pub(crate) use source_mounts::open_dir;
pub use source_mounts::{SOURCE, SourceMounts};
pub use spare::hides_something;
pub use target::Targets;
