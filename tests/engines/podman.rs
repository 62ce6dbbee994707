//! Podman, with the hooks that `eci-fs install --engine podman` writes.

use support::engines::CommandLine;

use crate::host::Host;
use crate::scene;
use crate::views::{LIMITS, SHOW, cpus_of, fifty_at_once, show_limits, show_the_cgroup, start};

#[test]
fn privileged_every_container_of_podman_sees_its_limits_and_leaves_nothing() {
    let scene = scene();
    let host = Host::new(&scene);
    let podman = host.podman();
    podman.run(&["--rm"], &["true"]).ok();
    let before = host.left(podman.cgroup());
    let kinds: [&[&str]; 6] = [
        &[],
        &["--runtime=runc"],
        &["--userns=auto:size=65536"],
        &["--privileged"],
        &["--read-only"],
        &["--pid=host"],
    ];
    for options in kinds {
        let ran = podman.run(&[&["--rm"], options, &LIMITS[..]].concat(), &SHOW);
        show_limits(&ran.ok(), 128, cpus_of(options));
        host.is_as(&before, podman.cgroup(), &format!("{options:?}"));
    }
}

#[test]
fn privileged_a_limit_that_podman_changes_shows_in_the_running_container() {
    let scene = scene();
    let host = Host::new(&scene);
    let podman = host.podman();
    // The cgroup of conmon stays.
    start(&podman, "one", &[]);
    podman.call(&["rm", "--force", "one"]).ok();
    let before = host.left(podman.cgroup());
    start(&podman, "one", &LIMITS);
    let exec = [&["exec", "one"], &SHOW[..]].concat();
    show_limits(&podman.call(&exec).ok(), 128, 1);
    podman
        .call(&["update", "--memory=192m", "--memory-swap=192m", "one"])
        .ok();
    show_limits(&podman.call(&exec).ok(), 192, 1);
    podman.call(&["restart", "one"]).ok();
    // Whether the changed limit outlives that depends on the version.
    show_the_cgroup(&podman.call(&exec).ok());
    assert_eq!(host.attached().len(), 1);
    podman.call(&["rm", "--force", "one"]).ok();
    host.is_as(&before, podman.cgroup(), "");
}

#[test]
fn privileged_fifty_containers_of_podman_at_once_have_their_views_and_leave_nothing() {
    let scene = scene();
    let host = Host::new(&scene);
    let podman = host.podman();
    podman.run(&["--rm"], &["true"]).ok();
    let before = host.left(podman.cgroup());
    fifty_at_once(&podman, &[]);
    host.is_as(&before, podman.cgroup(), "");
}
