//! Isolated containers and their runtime that end at any moment.

use std::process::Stdio;
use std::time::Duration;

use support::{Engine, PATIENCE, children_of, end_within, try_pidfd};

use super::rig::{Rig, Style, first_id, mounts};
use super::volumes::shared_scene;

#[test]
fn privileged_a_runtime_that_is_killed_at_any_moment_leaves_nothing_mounted() {
    let scene = shared_scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let disk = rig.overlay(Style::Docker, "a");
    let before = mounts();
    for moment in 0..12 {
        let bundle = rig.bundle(Engine::Runc, &disk.root);
        bundle.program(&["/bin/busybox", "true"]);
        let mut command = bundle.run_command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // From the first system calls of the wrapper to the end of the container.
        support::let_time_pass(Duration::from_millis(moment * 4));
        support::signal(child.id(), support::Signal::KILL);
        child.wait().unwrap();
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
    }
    let mut container = rig.start(Engine::Runc, &disk.root);
    first_id(&mut container);
    drop(container);
    daemon.end();
}
