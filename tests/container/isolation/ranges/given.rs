//! The ranges that are given, and to whom.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::isolation::ranges::IDS;
use eci_fs_mountd::isolation::{find, make_user_namespace};
use eci_fs_protocol::error::{Kind, Reason};
use support::find_program;

use super::process::Process;
use super::{end_all, first, inside, notes, scene_with, scene_with_two, second};

#[test]
fn privileged_a_wrapper_gets_a_user_namespace_with_ids_that_nobody_else_has() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
    let (one, other) = (Process::start(), Process::start());
    let (one_has, namespace) = one.isolate(&scene, "/run/runc/one").unwrap();
    let (other_has, _) = other.isolate(&scene, "/run/runc/two").unwrap();
    assert_eq!([one_has.first_id, other_has.first_id], [first(), second()]);
    assert_eq!([one_has.ids, other_has.ids], [IDS; 2]);
    for file in ["uid_map", "gid_map"] {
        let map = inside(&namespace, &["cat", &format!("/proc/self/{file}")]);
        let words: Vec<&str> = map.split_ascii_whitespace().collect();
        assert_eq!(words, ["0", &first().to_string(), "65536"]);
    }
    // A file is root's there that is the first id's on the host.
    let file = scene.dir().join("file");
    fs::write(&file, "").unwrap();
    std::os::unix::fs::chown(&file, Some(first()), Some(first() + 7)).unwrap();
    let owner = inside(&namespace, &["stat", "-c", "%u %g", file.to_str().unwrap()]);
    assert_eq!(owner, "0 7\n");
    for key in ["/run/runc/one", "/run/runc/two"] {
        let found = find(&scene.runtime_dir(), key).unwrap().unwrap();
        let wanted = if key.ends_with("one") {
            &one_has
        } else {
            &other_has
        };
        assert_eq!(
            (found.first_id, &found.stage),
            (wanted.first_id, &wanted.stage)
        );
        assert_eq!(found.members.len(), 1);
    }
    assert_eq!(find(&scene.runtime_dir(), "/run/runc/no").unwrap(), None);
    one.end();
    other.end();
    daemon.wait_for("range free");
    daemon.wait_for("range free");
    assert_eq!(notes(&scene), Vec::<String>::new());
    daemon.end();
}

#[test]
fn privileged_a_container_has_one_range_and_another_process_is_told_that() {
    let scene = scene_with_two();
    let daemon = scene.daemon(&[]);
    let (one, other) = (Process::start(), Process::start());
    let given = one.isolate(&scene, "/run/runc/web").unwrap().0;
    assert_eq!(one.isolate(&scene, "/run/runc/web").unwrap().0, given);
    let error = other.isolate(&scene, "/run/runc/web").unwrap_err();
    assert_eq!(error.reason, Some(Reason::NameTaken));
    let words = error.to_string();
    assert!(
        words.contains("/run/runc/web") && words.contains(&one.0.id().to_string()),
        "{words}"
    );
    // Of another root of the runtime it is another container.
    assert_eq!(other.first_id(&scene, "/run/crun/web"), second());
    // When the first one has ended, another one may have the container made again.
    one.end();
    let third = Process::start();
    let (again, _) = third.isolate(&scene, "/run/runc/web").unwrap();
    assert_eq!(again.first_id, first());
    for key in ["", &"k".repeat(4097)] {
        assert_eq!(third.isolate(&scene, key).unwrap_err().kind, Kind::Refused);
    }
    end_all(daemon, [third, other]);
}

#[test]
fn privileged_ranges_that_are_all_in_use_are_a_clear_error_and_a_killed_wrapper_frees_one() {
    let scene = scene_with_two();
    let daemon = scene.daemon(&[]);
    let (one, other, third) = (Process::start(), Process::start(), Process::start());
    one.isolate(&scene, "/run/runc/one").unwrap();
    other.isolate(&scene, "/run/runc/two").unwrap();
    let error = third.isolate(&scene, "/run/runc/three").unwrap_err();
    assert_eq!(error.kind, Kind::Busy);
    let words = error.to_string();
    assert_eq!(error.reason, Some(Reason::NoRange));
    for word in ["all 2 ranges", "in use", "eci-fs", "/etc/subuid"] {
        assert!(words.contains(word), "{words}");
    }
    // It is not waited for the daemon to hear of the end.
    one.end();
    assert_eq!(third.first_id(&scene, "/run/runc/three"), first());
    end_all(daemon, [third, other]);
}

#[test]
fn privileged_ids_of_real_users_are_never_given() {
    let passwd = format!("ann:x:{}:1::/:/bin/sh\n", first() + 1000);
    let scene = scene_with(&format!("eci-fs:{}:131072\n", first()), &passwd);
    let daemon = scene.daemon(&[]);
    let (one, other) = (Process::start(), Process::start());
    assert_eq!(one.first_id(&scene, "/run/runc/one"), second());
    let error = other.isolate(&scene, "/run/runc/two").unwrap_err();
    assert!(error.to_string().contains("all 1 ranges"), "{error}");
    // A user who is added while the daemon runs counts from then on.
    let text = format!(
        "root:x:0:0::/:/bin/sh\nbob:x:{}:1::/:/bin/sh\n",
        second() + 3
    );
    fs::write(scene.dir().join("passwd"), text).unwrap();
    assert_eq!(other.first_id(&scene, "/run/runc/two"), first());
    end_all(daemon, [one, other]);
}

#[test]
fn privileged_two_daemons_with_two_runtime_directories_never_give_the_same_range() {
    let scene = scene_with_two();
    let mut one = scene.daemon(&[]);
    let dir = scene.dir().join("other");
    let mut command = scene.command(&["mountd"]);
    command.env("ECI_FS_RUNTIME_DIR", &dir);
    let mut other = scene.daemon_of(command);
    let wrappers = [Process::start(), Process::start(), Process::start()];
    let key = "/run/runc/web";
    let one_has = wrappers[0].isolate(&scene, key).unwrap().0;
    let other_has = wrappers[1].isolate_at(&dir, key).unwrap().0;
    assert_eq!([one_has.first_id, other_has.first_id], [first(), second()]);
    for runtime_dir in [&scene.runtime_dir(), &dir] {
        let error = wrappers[2]
            .isolate_at(runtime_dir, "/run/runc/more")
            .unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
    }
    let [a, b, third] = wrappers;
    b.end();
    other.wait_for("range free");
    assert_eq!(third.first_id(&scene, "/run/runc/more"), second());
    a.end();
    third.end();
    one.wait_for("range free");
    one.wait_for("range free");
    one.end();
    other.end();
    assert_eq!(notes(&scene), Vec::<String>::new());
}

#[test]
fn privileged_a_user_namespace_is_its_first_ids_own_or_roots() {
    let scene = scene_with_two();
    let proc = Proc::open().unwrap();
    // Who owns a user namespace may enter it without any capability.
    let enter = |namespace: OwnedFd| {
        Command::new(find_program("nsenter"))
            .args(["--user=/proc/self/fd/0", "id", "-u"])
            .stdin(Stdio::from(namespace))
            .uid(first())
            .gid(first())
            .output()
            .unwrap()
    };
    let own = enter(make_user_namespace(&proc, first(), false).unwrap());
    assert_eq!(
        String::from_utf8(own.stdout.clone()).unwrap(),
        "0\n",
        "{own:?}"
    );
    let of_root = enter(make_user_namespace(&proc, first(), true).unwrap());
    assert!(!of_root.status.success(), "{of_root:?}");
    drop(scene);
}
