//! Containers into which nothing is grafted, because it would show elsewhere or lie over something else.

use support::{Container, mounts_of};

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

/// Has a container mount so much, on a path so long, that its mountinfo has more than 16 MiB.
#[track_caller]
fn mount_16_mib(container: &mut Container) {
    // The kernel writes four characters for a blank, and a path may have 4095 of them.
    let script = "mount -t tmpfs tmpfs /mnt && mount --make-private /mnt && cd /mnt || exit
        name=$(printf '%240s' x)
        for level in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do mkdir \"$name\" && cd \"$name\" || exit; done
        for mount in $(seq 700); do mount -o bind . . || exit; done";
    container.busybox(&["sh", "-c", script]);
    let path = format!("/proc/{}/mountinfo", container.pid());
    let length = std::fs::read(path).unwrap().len();
    assert!(length > 16 << 20, "{length}");
}

#[test]
fn privileged_a_container_with_more_mounts_than_are_read_is_refused() {
    let scene = scene();
    let mut container = scene
        .container()
        .options(&["--shared", "--proc", "inherited"])
        .start();
    mount_16_mib(&mut container);
    // The grafts would be on the host.
    let before = mounts_of("thread-self");
    let ran = scene.eci_fs(&["attach", &container.pid().to_string()]);
    ran.refused(&["mount"]);
    assert_eq!(mounts_of("thread-self"), before);
    assert_eq!(scene.list().len(), 0);
}

#[test]
fn privileged_a_container_that_mounts_without_end_keeps_its_grafts_and_disturbs_nobody() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mut other = scene.container().limits(limits(256, 1.0)).start();
    scene.attach(&container);
    mount_16_mib(&mut container);
    crate::sees(&mut container, 128, 1);
    scene.attach(&other);
    crate::sees(&mut other, 256, 1);
    daemon.die();
    // The next daemon finds it.
    let daemon = scene.daemon(&[]);
    assert_eq!(scene.list().len(), 2);
    crate::sees(&mut container, 128, 1);
    let detach = scene.eci_fs(&["detach", &container.pid().to_string()]);
    detach.refused(&["mountinfo has more than 16 MiB", "unmount"]);
    crate::sees(&mut container, 128, 1);
    scene.detach(&other);
    crate::sees_the_host(&mut other);
    container.busybox(&["umount", "-l", "/mnt"]);
    scene.detach(&container);
    crate::sees_the_host(&mut container);
    drop((container, other));
    daemon.end();
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
