//! Every view, grafted into a container and read in every way a program can.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use eci_fs_emulators::{EMULATORS, Facts, Tunable, tunable};
use support::{Container, Limits, Scene};

mod attributes;
mod concurrency;
mod freshness;
mod inodes;
mod programs;
mod reading;
mod requests;

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
/// grafted in it is asserted. Left out are those that the kernel may keep for a container itself, those of a
/// network namespace, which these containers do not have, and those that nobody can read.
#[track_caller]
fn views(container: &Container) -> Vec<&'static Facts> {
    let grafts = container.grafts();
    let views: Vec<_> = EMULATORS
        .iter()
        .map(|emulator| emulator.facts())
        .filter(|facts| Path::new(facts.path).is_file())
        .filter(|facts| {
            let is_here = |of: &Tunable| of.namespaced.is_none() && !of.in_network;
            tunable(facts.id).is_none_or(is_here)
        })
        .filter(|facts| facts.mode & 0o444 != 0)
        .collect();
    for view in &views {
        // A graft of its own, or one of a directory that it lies in.
        let grafted = grafts
            .iter()
            .any(|graft| Path::new(view.path).starts_with(graft));
        assert!(grafted, "{} is not grafted: {grafts:?}", view.path);
    }
    assert!(!views.is_empty());
    views
}

/// The paths of the views that a daemon without options keeps in the page cache.
#[track_caller]
fn cached(scene: &Scene, container: &Container) -> Vec<String> {
    let text = scene.eci_fs(&["show", &container.pid().to_string()]).ok();
    let cached = text.lines().filter_map(|line| line.strip_prefix("cached"));
    let cached: Vec<String> = cached.map(|path| path.trim().to_owned()).collect();
    assert!(cached.iter().any(|path| path == "/proc/meminfo"), "{text}");
    cached
}
