//! Ranges after the death of a daemon.

use std::fs;

use eci_fs_mountd::isolation::find;
use support::{PATIENCE, end_within, open_pidfd};

use super::process::Process;
use super::{end_all, first, notes, scene_with_two, second, wait_for_free};

/// That a daemon which is killed at `step`, while it gives a range, loses none and gives none twice.
#[track_caller]
fn killed_at(step: &str) {
    let scene = scene_with_two();
    let mut command = scene.command(&["mountd"]);
    command.env("ECI_FS_DAEMON_FAULT", format!("{step}:1"));
    let daemon = scene.daemon_of(command);
    let pidfd = open_pidfd(daemon.pid());
    let wrapper = Process::start();
    assert!(wrapper.isolate(&scene, "/run/runc/web").is_err());
    assert!(end_within(&pidfd, PATIENCE));
    drop(daemon);
    let mut daemon = scene.daemon(&[]);
    let (one, other) = (Process::start(), Process::start());
    // While the wrapper lives the range is its own: the daemon does not know that it got no answer.
    let one_has = one.isolate(&scene, "/run/runc/one").unwrap().0;
    assert_eq!(one_has.first_id, second());
    let error = other.isolate(&scene, "/run/runc/two").unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    wrapper.end();
    if step != "isolate-claimed" {
        // Otherwise there is no record, and nothing is to be freed.
        wait_for_free(&mut daemon);
    }
    let other_has = other.isolate(&scene, "/run/runc/two").unwrap().0;
    assert_eq!(other_has.first_id, first());
    one.end();
    other.end();
    daemon.wait_for("range free");
    daemon.wait_for("range free");
    assert_eq!(notes(&scene), Vec::<String>::new());
    daemon.end();
}

#[test]
fn privileged_a_daemon_that_is_killed_when_it_has_chosen_a_range_loses_none() {
    killed_at("isolate-claimed");
}

#[test]
fn privileged_a_daemon_that_is_killed_when_it_has_written_a_record_loses_no_range() {
    killed_at("isolate-held");
}

#[test]
fn privileged_a_daemon_that_is_killed_before_it_answers_loses_no_range() {
    killed_at("isolate-answer");
}

#[test]
fn privileged_a_daemon_that_is_killed_while_it_frees_a_range_leaves_it_free() {
    let scene = scene_with_two();
    let mut command = scene.command(&["mountd"]);
    command.env("ECI_FS_DAEMON_FAULT", "release-record:1");
    let daemon = scene.daemon_of(command);
    let pidfd = open_pidfd(daemon.pid());
    let wrapper = Process::start();
    wrapper.isolate(&scene, "/run/runc/web").unwrap();
    wrapper.end();
    assert!(end_within(&pidfd, PATIENCE));
    drop(daemon);
    let daemon = scene.daemon(&[]);
    let (one, other) = (Process::start(), Process::start());
    assert_eq!(one.first_id(&scene, "/run/runc/one"), second());
    assert_eq!(other.first_id(&scene, "/run/runc/two"), first());
    end_all(daemon, [one, other]);
}

#[test]
fn privileged_ranges_are_known_again_after_the_death_and_the_upgrade_of_the_daemon() {
    let scene = scene_with_two();
    let daemon = scene.daemon(&[]);
    let wrapper = Process::start();
    let given = wrapper.isolate(&scene, "/run/runc/web").unwrap().0;
    daemon.die();
    let mut daemon = scene.daemon(&[]);
    assert_eq!(wrapper.isolate(&scene, "/run/runc/web").unwrap().0, given);
    let other = Process::start();
    assert_eq!(other.first_id(&scene, "/run/runc/two"), second());
    // One that ends while there is no daemon is noticed by the next.
    daemon.log_lines();
    daemon.die();
    wrapper.end();
    let mut daemon = scene.daemon(&[]);
    // A thread of its own frees the range, before the daemon is ready or after.
    daemon.wait_until_said("range free");
    let third = Process::start();
    assert_eq!(third.first_id(&scene, "/run/runc/three"), first());
    end_all(daemon, [third, other]);
}

#[test]
fn privileged_a_record_that_is_torn_or_hostile_is_removed_and_its_range_is_not_given_while_it_is_used()
 {
    let scene = scene_with_two();
    let daemon = scene.daemon(&[]);
    let wrapper = Process::start();
    wrapper.isolate(&scene, "/run/runc/web").unwrap();
    let dir = scene.runtime_dir().join("isolated");
    let path = dir.join("%2frun%2frunc%2fweb.json");
    let text = fs::read_to_string(&path).unwrap();
    daemon.die();
    let left = Process::with_uid(first());
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    fs::write(
        dir.join("%2fother.json"),
        text.replace("/run/runc/web", "/other")
            .replace("65536", "1"),
    )
    .unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("%2fthird.json")).unwrap();
    assert!(find(&scene.runtime_dir(), "/run/runc/web").is_err());
    let mut daemon = scene.daemon(&[]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    let log = daemon.log_lines().join("\n");
    assert!(
        log.contains("the record is removed") && log.contains("%2fother.json"),
        "{log}"
    );
    let (one, other) = (Process::start(), Process::start());
    wrapper.end();
    assert_eq!(one.first_id(&scene, "/run/runc/one"), second());
    let error = other.isolate(&scene, "/run/runc/two").unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    left.end();
    assert_eq!(other.first_id(&scene, "/run/runc/two"), first());
    end_all(daemon, [one, other]);
}
