//! Ranges of ids: which are given, to whom, and when they are free again.

mod freed;
mod given;
mod joined;
mod known_again;
mod others;
mod process;
mod stage;

use std::fs;
use std::os::fd::OwnedFd;
use std::process::Command;

use eci_fs_mountd::isolation::ranges::IDS;
use rustix::mount::mount_bind;
use support::{Daemon, Scene, find_program};

use crate::scene;
use process::{Process, path_of};

/// Returns the first id of the first range that the scenes have. Tests run at the same time, and processes of one may not
/// have ids of another.
fn first() -> u32 {
    1_000_000_000 + std::process::id() % 8000 * (2 * IDS)
}

/// Returns the first id of the second range.
fn second() -> u32 {
    first() + IDS
}

/// The surroundings of a test on a host where the user eci-fs has `ids`, and `passwd` is in /etc/passwd besides root.
#[track_caller]
fn scene_with(ids: &str, passwd: &str) -> Scene {
    let scene = scene();
    let root = "root:x:0:0::/:/bin/sh\n";
    for (name, text) in [
        ("subuid", ids.to_owned()),
        ("subgid", ids.to_owned()),
        ("passwd", format!("{root}{passwd}")),
    ] {
        let file = scene.dir().join(name);
        fs::write(&file, text).unwrap();
        mount_bind(&file, format!("/etc/{name}")).unwrap();
    }
    scene
}

/// The surroundings with two ranges.
#[track_caller]
fn scene_with_two() -> Scene {
    scene_with(&format!("eci-fs:{}:131072\n", first()), "")
}

/// Runs `command` as root of a user namespace, and returns its output.
fn inside(namespace: &OwnedFd, command: &[&str]) -> String {
    let path = path_of(namespace);
    let ran = Command::new(find_program("nsenter"))
        .arg(path)
        .args(command)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

/// The files that tell of ranges that are given.
fn notes(scene: &Scene) -> Vec<String> {
    let mut all = Vec::new();
    for dir in [scene.ids_dir(), scene.runtime_dir().join("isolated")] {
        let names = fs::read_dir(dir).into_iter().flatten();
        all.extend(names.map(|name| name.unwrap().file_name().into_string().unwrap()));
    }
    all.retain(|name| name != "last");
    all
}

/// Waits until the daemon has freed a range.
#[track_caller]
fn wait_for_free(daemon: &mut Daemon) {
    daemon.wait_for("range free");
}

/// Ends two processes that hold a range each, and the daemon, which frees both.
#[track_caller]
fn end_all(mut daemon: Daemon, holders: [Process; 2]) {
    for holder in holders {
        holder.end();
    }
    daemon.wait_for("range free");
    daemon.wait_for("range free");
    daemon.end();
}
