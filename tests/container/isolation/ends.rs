//! Isolated containers and their runtime that end at any moment.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{Bundle, Engine, PATIENCE, Scene, children_of, end_within, try_pidfd};

use super::rig::{Rig, Style, first_id, mounts};
use super::volumes::{bind, shared_scene};
use crate::scene;

/// The moments at which a runtime is killed, from its first system calls to the end of its container.
const MOMENTS: u32 = 6;

/// Writes files of several owners, to the root and to a volume.
const WRITER: &str = "cd /srv; for dir in / /v; do busybox touch $dir/made; busybox chown 42:43 $dir/made; done; \
                      busybox mkdir -p /d/e; busybox rm /srv/gone; echo more >> /srv/max";

/// The ids on a disk.
const IDS: u32 = 65_536;

/// A bundle whose container writes, and ends.
#[track_caller]
fn writer(rig: &Rig<'_>, engine: Engine, root: &Path, volume: &Path) -> Bundle {
    let bundle = rig.bundle(engine, root);
    bind(&bundle, volume, "/v", &["rbind"]);
    bundle.program(&["/bin/busybox", "sh", "-c", WRITER]);
    bundle
}

/// Asserts that no file of a tree has an owner that a container sees as nobody, or an id of a range.
#[track_caller]
fn owners_are_of_the_disk(top: &Path, moment: &str) {
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let (uid, gid) = (stat.uid(), stat.gid());
        let known = |id: u32| id < IDS && id != 65_534;
        assert!(known(uid) && known(gid), "{moment}: {path:?} {uid}:{gid}");
        if stat.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
}

/// Waits until no range is given, and no record is left.
#[track_caller]
fn until_no_range_is_given(scene: &Scene, moment: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let dirs = [scene.ids_dir(), scene.runtime_dir().join("isolated")];
        let names: Vec<_> = dirs
            .iter()
            .flat_map(|dir| fs::read_dir(dir).into_iter().flatten())
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "last")
            .collect();
        if names.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{moment}: {names:?}");
        support::let_time_pass(Duration::from_millis(10));
    }
}

/// Kills a runtime at each of the moments: nothing stays mounted, no range stays given, and each file has an owner of the
/// disk.
#[track_caller]
fn killed_at_any_moment(scene: &Scene, engine: Engine) {
    let rig = Rig::new(scene, "");
    let daemon = scene.daemon(&[]);
    let volume = scene.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let disk = rig.overlay(Style::Docker, "a");
    let before = mounts();
    let started = Instant::now();
    writer(&rig, engine, &disk.root, &volume).run().ok();
    let whole = started.elapsed();
    for moment in 0..=MOMENTS {
        let bundle = writer(&rig, engine, &disk.root, &volume);
        let mut command = bundle.run_command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        support::let_time_pass(whole * moment / MOMENTS);
        support::signal(child.id(), support::Signal::KILL);
        child.wait().unwrap();
        let moment = format!("{moment} of {MOMENTS}");
        // A container that was created and not started waits until it is deleted.
        drop(bundle);
        let others = children_of(std::process::id()).into_iter();
        for orphan in others.filter(|child| *child != daemon.pid()) {
            assert!(
                try_pidfd(orphan).is_none_or(|pidfd| end_within(&pidfd, PATIENCE)),
                "{moment}"
            );
        }
        assert_eq!(mounts(), before, "{moment}");
        until_no_range_is_given(scene, &moment);
        owners_are_of_the_disk(&disk.upper, &moment);
        owners_are_of_the_disk(&volume, &moment);
    }
    let mut container = rig.start(engine, &disk.root);
    first_id(&mut container);
    drop(container);
    daemon.end();
}

#[test]
fn privileged_a_runtime_that_is_killed_at_any_moment_leaves_nothing_mounted() {
    // What the wrapper mounts would appear in the test's namespace.
    killed_at_any_moment(&shared_scene(), Engine::Runc);
}

#[test]
fn privileged_crun_that_is_killed_at_any_moment_leaves_no_range_and_no_wrong_owner() {
    killed_at_any_moment(&scene(), Engine::Crun);
}

#[test]
fn privileged_youki_that_is_killed_at_any_moment_leaves_no_range_and_no_wrong_owner() {
    killed_at_any_moment(&scene(), Engine::Youki);
}
