//! Modes, owners, and what may not be done.

use std::os::unix::fs::MetadataExt;

use eci_fs_emulators::tunable::Policy;
use eci_fs_emulators::{Facts, tunable};
use serde_json::Value;

use crate::{LIMITS, scene, views};

/// `FUSE_SUPER_MAGIC`
const FUSE: &str = "65735546";

#[test]
fn privileged_views_have_the_modes_of_the_kernel_and_belong_to_root() {
    let scene = scene();
    for (user, owner) in [(false, 0), (true, 100_000)] {
        let mut container = scene
            .container()
            .limits(LIMITS)
            .user_namespace(user)
            .start();
        scene.attach(&container);
        for facts in views(&container) {
            let path = facts.path;
            let stat = container.ask(&["stat", path])[path].clone();
            let mode = match tunable(facts.id).map(|tunable| tunable.policy) {
                None | Some(Policy::Constant(_)) => u32::from(facts.mode),
                Some(_) => std::fs::metadata(path).unwrap().mode() & 0o7777,
            };
            assert_eq!(stat["mode"], format!("{mode:o}"), "{path}");
            // Inside, the root of the user namespace is 0 in either case.
            assert_eq!(
                (&stat["uid"], &stat["gid"]),
                (&0.into(), &0.into()),
                "{path}"
            );
            assert_eq!(stat["file"], true, "{path}");
            assert_eq!(stat["fstype"], FUSE, "{path}");
            assert_eq!(stat["size"], stat["opened_size"], "{path}");
            let outside = std::fs::metadata(format!("/proc/{}/root{path}", container.pid()));
            let outside = outside.unwrap();
            assert_eq!((outside.uid(), outside.gid()), (owner, owner), "{path}");
        }
    }
}

#[test]
fn privileged_no_read_only_view_can_be_opened_for_writing() {
    let scene = scene();
    for options in [&[][..], &["--freshness", "0"]] {
        let daemon = scene.daemon(options);
        for user in [false, true] {
            let mut container = scene.container().user_namespace(user).start();
            scene.attach(&container);
            // Triggers are written to the files of pressure.
            let read_only = |facts: &&'static Facts| facts.mode & 0o222 == 0;
            for facts in views(&container).into_iter().filter(read_only) {
                let outcomes = container.ask(&["open-for-writing", facts.path]);
                let Value::Object(outcomes) = &outcomes[facts.path] else {
                    panic!("{}: {outcomes}", facts.path);
                };
                for (how, outcome) in outcomes {
                    let refused = outcome == "EROFS" || outcome == "EACCES";
                    assert!(refused, "{} opened to {how}: {outcome}", facts.path);
                }
            }
        }
        daemon.end();
    }
}

#[test]
fn privileged_what_is_not_a_view_stays_the_file_of_the_kernel() {
    let scene = scene();
    let mut container = scene.container().limits(LIMITS).start();
    let listed = container.ask(&["list", "/proc", "/sys/devices/system/cpu"]);
    let others = [
        "/proc/version",
        "/proc/filesystems",
        "/proc/sys/kernel/ostype",
    ];
    let before: Vec<String> = others.iter().map(|path| container.read(path)).collect();
    scene.attach(&container);
    let after: Vec<String> = others.iter().map(|path| container.read(path)).collect();
    assert_eq!(before, after);
    let stat = container.ask(&["stat", "/proc/version"]);
    assert_ne!(stat["/proc/version"]["fstype"], FUSE);
    let proc = |value: &Value| value["/proc"].clone();
    assert_eq!(proc(&container.ask(&["list", "/proc"])), proc(&listed));
}
