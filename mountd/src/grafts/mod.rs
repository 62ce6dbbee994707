//! Grafts: mounts of ours over single entries of a container's /proc and /sys.
//!
//! [`place`] is the thread and the private mount namespace in which the source mounts live. [`target`] finds
//! and checks what shall be covered. [`container`] covers and uncovers it; [`inspection`] builds the same
//! views under a directory of the host. [`ready`] makes clones before they are needed. [`spare`] keeps a procfs without grafts in the container, for the kernel to
//! see.

mod container;
mod inspection;
mod open;
pub mod place;
mod probe;
mod ready;
mod rows;
mod spare;
mod target;

pub use container::{Clones, Outcome, Progress, attach, detach};
pub use inspection::{expose, withdraw};
pub(crate) use open::open_below;
pub use probe::Prober;
pub use ready::Ready;
pub use target::Targets;
