//! Containers that join the user namespace of another one.

use std::os::fd::OwnedFd;

use eci_fs_mountd::isolation::find;
use eci_fs_mountd::isolation::ranges::IDS;
use eci_fs_protocol::error::Kind;
use support::{PATIENCE, end_within, open_pidfd};

use super::others::guest_of;
use super::process::Process;
use super::{end_all, first, notes, scene_with, scene_with_two, second, wait_for_free};

#[test]
fn privileged_the_runtime_of_a_container_that_joins_another_holds_its_range_and_the_stage() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
    let wrapper = Process::start();
    let (given, namespace) = wrapper.isolate(&scene, "/run/runc/web").unwrap();
    let container = Process::container(&namespace);
    let joiner = Process::start();
    let (joined, its_namespace) = joiner.join(&scene, &container).unwrap();
    assert_eq!(joined, given);
    let identity = |namespace: &OwnedFd| rustix::fs::fstat(namespace).unwrap().st_ino;
    assert_eq!(identity(&its_namespace), identity(&namespace));
    // A second time it is a member all the same, and no second one.
    assert_eq!(joiner.join(&scene, &container).unwrap().0, given);
    let members = || {
        let found = find(&scene.runtime_dir(), "/run/runc/web")
            .unwrap()
            .unwrap();
        found
            .members
            .iter()
            .map(|member| member.pid.unsigned_abs())
            .collect::<Vec<_>>()
    };
    assert_eq!(members(), [wrapper.0.id(), joiner.0.id()]);
    drop((namespace, its_namespace));
    container.end();
    wrapper.end();
    let (other, third) = (Process::start(), Process::start());
    assert_eq!(other.first_id(&scene, "/run/runc/two"), second());
    assert!(third.isolate(&scene, "/run/runc/three").is_err());
    assert_eq!(members(), [joiner.0.id()]);
    joiner.end();
    wait_for_free(&mut daemon);
    assert_eq!(third.first_id(&scene, "/run/runc/three"), first());
    end_all(daemon, [third, other]);
}

#[test]
fn privileged_a_runtime_that_joins_a_user_namespace_of_others_holds_the_stage_alone() {
    let scene = scene_with(&format!("eci-fs:{}:65536\n", first()), "");
    let container = scene.container().start();
    scene.attach(&container);
    let daemon = open_pidfd(scene.daemon_pid().unwrap());
    let (foreign, joiner, wrapper) = (guest_of(second()), Process::start(), Process::start());
    let joined = joiner.join(&scene, &foreign).unwrap().0;
    assert_eq!((joined.first_id, joined.ids), (second(), IDS));
    assert!(joined.stage.join("root").is_dir());
    assert_eq!(notes(&scene), Vec::<String>::new());
    scene.detach(&container);
    assert_eq!(wrapper.first_id(&scene, "/run/runc/web"), first());
    wrapper.end();
    assert!(
        joiner.join(&scene, &foreign).is_ok(),
        "the daemon has ended"
    );
    joiner.end();
    assert!(end_within(&daemon, PATIENCE));
    assert!(!joined.stage.exists());
    foreign.end();
}

#[test]
fn privileged_a_process_of_the_host_or_with_its_root_cannot_be_joined() {
    let scene = scene_with_two();
    let daemon = scene.daemon(&[]);
    let joiner = Process::start();
    let host = Process::start();
    let error = joiner.join(&scene, &host).unwrap_err();
    assert_eq!(error.kind, Kind::Refused, "{error}");
    assert!(error.to_string().contains("the host"), "{error}");
    daemon.end();
}
