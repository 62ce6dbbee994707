//! The end of a range.

use eci_fs_mountd::isolation::find;
use eci_fs_mountd::isolation::ranges::IDS;
use support::{PATIENCE, end_within, open_pidfd};

use super::process::Process;
use super::{end_all, first, scene_with_two, second, wait_for_free};

#[test]
fn privileged_a_range_that_became_free_is_given_last_of_all() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
    for first_id in [first(), second(), first()] {
        let wrapper = Process::start();
        assert_eq!(wrapper.first_id(&scene, "/run/runc/web"), first_id);
        wrapper.end();
        wait_for_free(&mut daemon);
    }
    daemon.end();
    // The next daemon goes on in turn.
    let mut daemon = scene.daemon(&[]);
    let wrapper = Process::start();
    assert_eq!(wrapper.first_id(&scene, "/run/runc/web"), second());
    wrapper.end();
    wait_for_free(&mut daemon);
    daemon.end();
}

#[test]
fn privileged_a_range_is_not_free_while_a_process_has_an_id_of_it() {
    let scene = scene_with_two();
    // Nobody has told the daemon of this one.
    let foreign = Process::with_uid(first() + 5);
    let mut daemon = scene.daemon(&[]);
    let wrapper = Process::start();
    assert_eq!(wrapper.first_id(&scene, "/run/runc/one"), second());
    let other = Process::start();
    let error = other.isolate(&scene, "/run/runc/two").unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    let left = Process::with_uid(second() + 65_535);
    wrapper.end();
    daemon.wait_for("a process still has an id of the range");
    // So a container whose views are left out, and which is never attached, keeps its range too.
    let found = find(&scene.runtime_dir(), "/run/runc/one")
        .unwrap()
        .unwrap();
    assert_eq!(found.members[0].pid.unsigned_abs(), left.0.id());
    assert!(other.isolate(&scene, "/run/runc/two").is_err());
    foreign.end();
    assert_eq!(other.first_id(&scene, "/run/runc/two"), first());
    left.end();
    wait_for_free(&mut daemon);
    other.end();
    wait_for_free(&mut daemon);
    daemon.end();
}

#[test]
fn privileged_a_process_that_has_ended_keeps_no_range_though_its_parent_does_not_wait_for_it() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
    let wrapper = Process::start();
    let (has, namespace) = wrapper.isolate(&scene, "/run/runc/one").unwrap();
    assert_eq!(has.first_id, first());
    // One with an id of the range in the namespace of the host, and one in the user namespace of the range.
    let mut ended = [
        Process::with_uid(first() + 5),
        Process::container(&namespace),
    ];
    for process in &mut ended {
        let pidfd = process.pidfd();
        process.0.kill().unwrap();
        assert!(end_within(&pidfd, PATIENCE));
    }
    drop(namespace);
    wrapper.end();
    wait_for_free(&mut daemon);
    // So the next containers may have both ranges.
    let (one, other) = (Process::start(), Process::start());
    assert_eq!(one.first_id(&scene, "/run/runc/two"), second());
    assert_eq!(other.first_id(&scene, "/run/runc/three"), first());
    drop(ended);
    end_all(daemon, [one, other]);
}

#[test]
fn privileged_a_thread_that_panics_while_it_frees_a_range_frees_it_all_the_same() {
    let scene = scene_with_two();
    let mut command = scene.command(&["mountd"]);
    command.env("ECI_FS_DAEMON_FAULT", "ranges:1");
    let mut daemon = scene.daemon_of(command);
    let wrapper = Process::start();
    wrapper.isolate(&scene, "/run/runc/web").unwrap();
    wrapper.end();
    daemon.wait_for("a thread panicked");
    wait_for_free(&mut daemon);
    daemon.end();
}

#[test]
fn privileged_a_container_that_is_attached_holds_its_range_when_its_wrapper_has_ended() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
    let wrapper = Process::start();
    let (isolated, namespace) = wrapper.isolate(&scene, "/run/runc/web").unwrap();
    let container = Process::container(&namespace);
    let pid = container.0.id();
    let said = scene.eci_fs(&["attach", &pid.to_string()]).ok();
    assert!(
        said.contains(&format!(", {IDS} ids from {} on", first())),
        "{said}"
    );
    assert_eq!(
        scene.list()[0]["range"],
        serde_json::json!({"first_id": first(), "ids": 65_536})
    );
    let table = scene.eci_fs(&["list"]).ok();
    assert!(
        table.contains(&format!("{}-{}", first(), second() - 1)),
        "{table}"
    );
    wrapper.end();
    let other = Process::start();
    assert_eq!(other.first_id(&scene, "/run/runc/two"), second());
    let found = find(&scene.runtime_dir(), "/run/runc/web").unwrap();
    assert_eq!(found.unwrap().first_id, isolated.first_id);
    let third = Process::start();
    assert!(third.isolate(&scene, "/run/runc/three").is_err());
    container.end();
    wait_for_free(&mut daemon);
    assert_eq!(third.first_id(&scene, "/run/runc/three"), first());
    end_all(daemon, [third, other]);
}

#[test]
fn privileged_a_daemon_in_the_background_lives_as_long_as_a_range_is_held() {
    let scene = scene_with_two();
    let container = scene.container().start();
    scene.attach(&container);
    let daemon = open_pidfd(scene.daemon_pid().unwrap());
    let wrapper = Process::start();
    wrapper.isolate(&scene, "/run/runc/web").unwrap();
    scene.detach(&container);
    assert!(
        wrapper.isolate(&scene, "/run/runc/web").is_ok(),
        "it has ended"
    );
    wrapper.end();
    assert!(end_within(&daemon, PATIENCE));
    assert!(!scene.runtime_dir().join("stage").exists());
}
