//! Without root, without /dev/fuse.

use std::fs;
use std::os::unix::process::CommandExt;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_move, unmount};
use support::{Ran, Scene};

use crate::scene;

const NOBODY: u32 = 65534;

fn as_nobody(scene: &Scene, arguments: &[&str]) -> Ran {
    let mut command = scene.command_for_everybody(arguments);
    Ran::run(command.uid(NOBODY).gid(NOBODY))
}

#[test]
fn privileged_every_command_says_that_it_needs_root() {
    let scene = scene();
    let container = scene.container().start();
    let pid = container.pid().to_string();
    for command in [
        &["attach", &pid][..],
        &["detach", &pid],
        &["mount", &pid],
        &["unmount", "/mnt"],
        &["list"],
        &["show", &pid, "/proc/meminfo"],
        &["run", "--", "true"],
        &["mountd"],
    ] {
        let ran = as_nobody(&scene, command);
        ran.refused(&["eci-", "root"]);
    }
    let ran = as_nobody(&scene, &["run", "--", "true"]);
    assert_eq!(ran.code, Some(125));
    assert!(!scene.runtime_dir().exists());
}

#[test]
fn privileged_the_doctor_says_once_that_it_needs_root() {
    let scene = scene();
    let ran = as_nobody(&scene, &["doctor"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let about_root = |line: &&str| line.contains("by root");
    assert_eq!(ran.stdout.lines().filter(about_root).count(), 1, "{ran:?}");
    for part in ["\ndaemon\n", "\ncontainer\n"] {
        assert!(!ran.stdout.contains(part), "{ran:?}");
    }
}

#[test]
fn privileged_the_server_is_not_started_by_hand() {
    let scene = scene();
    scene
        .eci_fs(&["serve"])
        .refused(&["eci-mountd", "eci-fs run"]);
}

#[test]
fn privileged_without_dev_fuse_nothing_is_attached_and_the_remedy_is_named() {
    let scene = scene();
    let container = scene.container().start();
    let mounts = container.mounts();
    let pid = container.pid().to_string();
    hide_fuse(&scene);
    for command in [&["attach", &pid][..], &["mountd"], &["run", "--", "true"]] {
        let ran = scene.eci_fs(command);
        assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
        assert!(
            ran.stderr.contains("/dev/fuse") && ran.stderr.contains("modprobe fuse"),
            "{ran:?}"
        );
    }
    scene
        .eci_fs(&["attach", &pid])
        .refused(&["/dev/fuse", "modprobe fuse"]);
    assert_eq!(container.mounts(), mounts);
    unmount("/dev", UnmountFlags::DETACH).unwrap();
}

/// A /dev of the test's own mount namespace, with what processes need to start and nothing else.
fn hide_fuse(scene: &Scene) {
    let dev = scene.dir().join("dev");
    fs::create_dir(&dev).unwrap();
    mount("tmpfs", &dev, "tmpfs", MountFlags::empty(), None).unwrap();
    for name in ["null", "zero", "urandom"] {
        fs::write(dev.join(name), "").unwrap();
        let device = format!("/dev/{name}");
        mount_bind(device.as_str(), dev.join(name)).unwrap();
    }
    mount_move(&dev, "/dev").unwrap();
}
