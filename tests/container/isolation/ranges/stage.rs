//! The stage of a daemon that gives ranges.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use support::mounts_of;

use super::process::Process;
use super::{first, scene_with_two};

#[test]
fn privileged_the_stage_is_a_private_mount_that_others_may_pass_and_goes_with_the_daemon() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
    let before = mounts_of("thread-self");
    let wrapper = Process::start();
    let (isolated, _) = wrapper.isolate(&scene, "/run/runc/one").unwrap();
    let stage = isolated.stage;
    assert_eq!(stage, scene.runtime_dir().join("stage"));
    let mounts = mounts_of("thread-self");
    let line = mounts
        .iter()
        .find(|line| line.contains(stage.to_str().unwrap()))
        .unwrap();
    assert!(line.contains(" - tmpfs eci-fs-stage "), "{line}");
    assert!(
        !line.contains("shared:") && !line.contains("master:"),
        "{line}"
    );
    let names: Vec<_> = fs::read_dir(&stage)
        .unwrap()
        .map(|one| one.unwrap().file_name())
        .collect();
    assert_eq!(names, ["root"]);
    for (path, mode) in [
        (stage.clone(), 0o711),
        (stage.join("root"), 0o711),
        (scene.runtime_dir(), 0o711),
    ] {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{path:?}");
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0));
    }
    // The next daemon takes it over.
    scene.eci_fs(&["upgrade"]).ok();
    daemon.wait_for("ready");
    let again = wrapper.isolate(&scene, "/run/runc/one").unwrap().0;
    assert_eq!((again.first_id, again.stage), (first(), stage.clone()));
    assert_eq!(mounts_of("thread-self"), mounts);
    wrapper.end();
    daemon.wait_for("range free");
    crate::upgrade::end(&scene, support::Signal::TERM);
    assert_eq!(mounts_of("thread-self"), before);
    assert!(!stage.exists());
}
