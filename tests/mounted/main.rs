//! Every view, grafted into a container and read in every way a program can.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use eci_fs_emulators::{EMULATORS, Facts};
use support::{Container, Limits, Scene};

mod attributes;
mod concurrency;
mod freshness;
mod programs;
mod reading;

/// The limits of containers that need any.
const LIMITS: Limits = Limits {
    memory: Some(256 << 20),
    swap: None,
    cpus: Some(0.5),
    cpuset: None,
};

/// The surroundings of one test.
#[track_caller]
fn scene() -> Scene {
    Scene::new(env!("CARGO_BIN_EXE_eci-fs"))
}

/// The views that a container of this machine must have: those of files that the kernel has. That they are
/// grafted in it is asserted.
#[track_caller]
fn views(container: &Container) -> Vec<&'static Facts> {
    let grafts = container.grafts();
    let views: Vec<_> = EMULATORS
        .iter()
        .map(|emulator| emulator.facts())
        .filter(|facts| Path::new(facts.path).is_file())
        .collect();
    for view in &views {
        let grafted = grafts.iter().any(|graft| graft == view.path);
        assert!(grafted, "{} is not grafted: {grafts:?}", view.path);
    }
    assert!(!views.is_empty());
    views
}
