//! The parts of config.json that isolation reads, and the edit that puts a container into its user namespace.
//!
//! [`Container::parse`] and [`edit`] touch no file: they turn text into values and text. All text that isolation does not
//! change is kept byte for byte.

mod container;
mod edits;
mod seccomp;
mod taken_over;

use eci_fs_protocol::error::Error;

pub use container::{Container, Device, Mount, Namespace, ReadOnly};
pub use edits::{Edits, KEPT, OF_MOUNTS, Source, edit};
pub use seccomp::{KEEP_SPECULATION, NOTIFY, SystemCalls, Trapped, WAIT_KILLABLE};
pub use taken_over::TakenOver;
pub(crate) use taken_over::clean;

fn invalid(error: serde_json::Error) -> Error {
    Error::refused(format!("not the configuration of a container: {error}"))
}

#[cfg(test)]
mod tests;
