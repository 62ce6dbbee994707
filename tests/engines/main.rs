//! Real container engines: what their containers see, and that the engines behave as they do without eci-fs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use support::Scene;

mod alone;
mod containerd;
mod cri;
mod docker;
mod host;
mod isolation;
mod networks;
mod podman;
mod same;
mod views;

/// The surroundings of one test.
#[track_caller]
fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_eci-fs"))
}
