//! Programs that expect a whole machine. They run unmodified, with a user namespace, in an attached container and in
//! one that is not attached.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use support::Scene;

mod docker;
mod init;
mod machine;
mod mountinfo;
mod nested;
mod nodes;
mod runtimes;

/// The surroundings of one test.
#[track_caller]
fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_eci-fs"))
}
