//! Containers of all kinds, and what can go wrong with them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use support::Scene;

mod run;

/// The surroundings of one test.
#[track_caller]
fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_eci-fs"))
}
