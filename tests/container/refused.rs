//! Containers into which nothing is grafted, because it would show elsewhere or lie over something else.

use support::Container;

use crate::{limits, scene};

/// That attaching is refused with these words, and nothing has changed.
#[track_caller]
fn refused(scene: &support::Scene, container: &Container, words: &[&str]) {
    let before = container.mounts();
    let ran = scene.eci_fs(&["attach", &container.pid().to_string()]);
    ran.refused(words);
    assert_eq!(container.mounts(), before);
    assert_eq!(scene.list().len(), 0);
}

#[test]
fn privileged_a_process_in_the_mount_namespace_of_the_host_is_refused() {
    let scene = scene();
    let own = std::process::id().to_string();
    let ran = scene.eci_fs(&["attach", &own]);
    ran.refused(&[
        "eci-fs: ",
        &own,
        "the host's own mount namespace",
        "eci-fs run",
    ]);
    // Seen from the test, "the host" is where the daemon runs; the machine's own namespace is another one.
    let kthreadd = scene.eci_fs(&["attach", "2"]);
    kthreadd.refused(&["process 2", "mount namespace"]);
}

#[test]
fn privileged_a_container_whose_mounts_are_shared_with_others_is_refused() {
    let scene = scene();
    let container = scene
        .container()
        .options(&["--shared", "--proc", "inherited"])
        .start();
    refused(
        &scene,
        &container,
        &[
            "mounted shared",
            "outside of the container",
            "--make-rprivate",
        ],
    );
}

#[test]
fn privileged_a_container_whose_mounts_are_shared_among_its_own_processes_is_not_refused() {
    let scene = scene();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    container.busybox(&["mount", "--make-rshared", "/"]);
    scene.attach(&container);
    crate::sees(&mut container, 128, 1);
    scene.detach(&container);
    crate::sees_the_host(&mut container);
}

#[test]
fn privileged_a_container_that_replaced_its_proc_by_links_is_refused() {
    let scene = scene();
    let container = scene.container().options(&["--proc", "links"]).start();
    refused(&scene, &container, &["/proc", "tmpfs", "mount proc"]);
}

#[test]
fn privileged_a_container_that_laid_a_part_of_proc_over_the_whole_is_refused() {
    let scene = scene();
    let container = scene.container().options(&["--proc", "part"]).start();
    refused(
        &scene,
        &container,
        &["/proc", "a part of one", "mount proc"],
    );
}

#[test]
fn privileged_a_file_that_the_container_covered_is_covered_once_more_and_given_back() {
    let scene = scene();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    container.busybox(&["mount", "--bind", "/proc/version", "/proc/uptime"]);
    let before = container.read("/proc/uptime");
    scene.attach(&container);
    assert_ne!(container.read("/proc/uptime"), before);
    scene.detach(&container);
    assert_eq!(container.read("/proc/uptime"), before);
}

#[test]
fn privileged_a_file_that_the_container_covered_with_a_deleted_one_is_left_alone() {
    let scene = scene();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    // As systemd-nspawn does. The kernel mounts nothing over such a file.
    let path = "/proc/sys/kernel/random/boot_id";
    let file = scene.dir().join("file");
    std::fs::write(&file, "its own\n").unwrap();
    container.busybox(&["mount", "--bind", file.to_str().unwrap(), path]);
    std::fs::remove_file(&file).unwrap();
    let before = container.read(path);
    assert_eq!(before, "its own\n");
    let mounts = container.mounts();
    scene.attach(&container);
    crate::sees(&mut container, 128, 1);
    assert_eq!(container.read(path), before);
    scene.detach(&container);
    assert_eq!(container.read(path), before);
    assert_eq!(container.mounts(), mounts);
}

#[test]
fn privileged_a_container_of_another_daemon_is_refused() {
    let scene = scene();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    let other = scene.dir().join("other");
    let pid = container.pid().to_string();
    let ran = scene.eci_fs(&["attach", &pid, "--runtime-dir", other.to_str().unwrap()]);
    ran.refused(&["another eci-mountd", "detach", "--runtime-dir"]);
    crate::sees(&mut container, 128, 1);
}
