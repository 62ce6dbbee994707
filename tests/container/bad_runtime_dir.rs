//! Runtime directories that cannot be trusted or written to.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use support::Scene;

use crate::{limits, scene, sees};

/// That no command works with the runtime directory, and each says why.
#[track_caller]
fn refused(scene: &Scene, words: &[&str]) {
    let container = scene.container().start();
    let mounts = container.mounts();
    let pid = container.pid().to_string();
    let dir = scene.runtime_dir();
    let words = [&["eci-", dir.to_str().unwrap()], words].concat();
    for command in [&["attach", &pid][..], &["mount", &pid], &["mountd"]] {
        scene.eci_fs(command).refused(&words);
    }
    assert_eq!(container.mounts(), mounts);
}

#[test]
fn privileged_a_runtime_directory_that_is_a_symbolic_link_is_refused() {
    let scene = scene();
    let real = scene.dir().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, scene.runtime_dir()).unwrap();
    refused(&scene, &["symbolic link", "--runtime-dir"]);
    assert_eq!(fs::read_dir(&real).unwrap().count(), 0);
}

#[test]
fn privileged_a_runtime_directory_that_is_a_file_is_refused() {
    let scene = scene();
    fs::write(scene.runtime_dir(), "").unwrap();
    refused(&scene, &["no directory", "--runtime-dir"]);
}

#[test]
fn privileged_a_runtime_directory_that_others_can_write_to_is_refused() {
    let scene = scene();
    fs::create_dir(scene.runtime_dir()).unwrap();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        fs::set_permissions(scene.runtime_dir(), fs::Permissions::from_mode(mode)).unwrap();
        refused(&scene, &["others could write", "chmod 0700"]);
    }
    fs::set_permissions(scene.runtime_dir(), fs::Permissions::from_mode(0o700)).unwrap();
    chown(scene.runtime_dir(), Some(65534), None).unwrap();
    refused(&scene, &["belongs to user 65534", "chown root"]);
}

#[test]
fn privileged_a_runtime_directory_that_is_read_only_is_refused() {
    let scene = scene();
    let dir = scene.runtime_dir();
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    mount_bind(&dir, &dir).unwrap();
    mount_remount(&dir, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
    refused(&scene, &["Read-only file system", "--runtime-dir"]);
    unmount(&dir, UnmountFlags::empty()).unwrap();
}

#[test]
fn privileged_a_runtime_directory_whose_parent_is_not_there_is_refused() {
    let scene = scene();
    let container = scene.container().start();
    let dir = scene.dir().join("no/such");
    let pid = container.pid().to_string();
    let ran = scene.eci_fs(&["attach", &pid, "--runtime-dir", dir.to_str().unwrap()]);
    ran.refused(&["no/such", "--runtime-dir"]);
}

#[test]
fn privileged_a_full_runtime_directory_attaches_nothing() {
    let scene = scene();
    let dir = scene.runtime_dir();
    fs::create_dir(&dir).unwrap();
    let options = c"size=64k,mode=0700";
    mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), options).unwrap();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mounts = container.mounts();
    // All but what is there already.
    let filled = fs::write(dir.join("ballast"), vec![1; 128 << 10]);
    assert!(filled.is_err());
    let pid = container.pid().to_string();
    scene
        .eci_fs(&["attach", &pid])
        .refused(&[dir.to_str().unwrap(), ".json", "free space"]);
    assert_eq!(container.mounts(), mounts);
    assert!(scene.list().is_empty());
    fs::remove_file(dir.join("ballast")).unwrap();
    scene.attach(&container);
    sees(&mut container, 128, 1);
    drop(container);
    daemon.end();
    unmount(&dir, UnmountFlags::empty()).unwrap();
}

#[test]
fn privileged_a_list_that_cannot_be_read_is_set_aside() {
    let scene = scene();
    let dir = scene.runtime_dir();
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.join("containers.json"), "{\"version\":\"99\"}").unwrap();
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    sees(&mut container, 128, 1);
    assert!(dir.join("containers.json.unreadable").exists());
}
