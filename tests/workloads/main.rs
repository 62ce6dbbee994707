//! Programs that take their container for a machine: they are run unmodified, with a user namespace, in a container
//! that is attached and in one that is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use support::Scene;

mod docker;
mod init;
mod machine;
mod nested;
mod nodes;
mod runtimes;

/// The surroundings of one test.
#[track_caller]
fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_eci-fs"))
}
