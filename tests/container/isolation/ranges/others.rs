//! Ids that other managers of the host give to their containers.

use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::isolation::make_user_namespace;
use eci_fs_mountd::isolation::ranges::IDS;
use eci_fs_protocol::error::Reason;

use super::process::Process;
use super::{first, scene_with_two, second, wait_for_free};

/// A process of a user namespace in which `first_id` is root. Its own ids are those of the host's root.
#[track_caller]
pub(super) fn guest_of(first_id: u32) -> Process {
    let namespace = make_user_namespace(&Proc::open().unwrap(), first_id, true).unwrap();
    Process::guest(&namespace)
}

#[test]
fn privileged_ids_that_others_begin_to_use_while_the_daemon_runs_are_passed_over() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
    let one = Process::start();
    assert_eq!(one.first_id(&scene, "/run/runc/one"), first());
    // By processes in a user namespace with some of them, and by one that is a user of the host.
    let begin: [fn() -> Process; 3] = [
        || guest_of(second()),
        || guest_of(second() + IDS - 1),
        || Process::with_uid(second() + IDS - 1),
    ];
    for begin in begin {
        let (foreign, other) = (begin(), Process::start());
        let error = other.isolate(&scene, "/run/runc/two").unwrap_err();
        assert_eq!(error.reason, Some(Reason::NoRange), "{error}");
        foreign.end();
        assert_eq!(other.first_id(&scene, "/run/runc/two"), second());
        other.end();
        wait_for_free(&mut daemon);
    }
    one.end();
    wait_for_free(&mut daemon);
    daemon.end();
}
