//! Ranges of ids: which are given, to whom, and when they are free again.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::isolation::ranges::IDS;
use eci_fs_mountd::isolation::{find, make_user_namespace};
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{Answer, Call, Isolate, Isolated, Request, Response, VERSION};
use eci_fs_protocol::error::{Error, Kind, Reason};
use rustix::mount::mount_bind;
use support::{Daemon, PATIENCE, Scene, end_within, find_program, mounts_of, open_pidfd};

use crate::scene;

/// Returns the first id of the first range that the scenes have. Tests run at the same time, and processes of one may not
/// have ids of another.
fn first() -> u32 {
    1_000_000_000 + std::process::id() % 8000 * (2 * IDS)
}

/// Returns the first id of the second range.
fn second() -> u32 {
    first() + IDS
}

/// A process that lives until this is dropped.
struct Process(Child);

impl Process {
    /// Stands for a wrapper that becomes a runtime.
    fn start() -> Self {
        Self::of(&mut Command::new(find_program("cat")))
    }

    fn of(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    fn with_uid(uid: u32) -> Self {
        Self::of(Command::new(find_program("cat")).uid(uid).gid(uid))
    }

    fn pidfd(&self) -> OwnedFd {
        open_pidfd(self.0.id())
    }

    /// Asks the daemon of the test for a range.
    fn isolate(&self, scene: &Scene, key: &str) -> Result<(Isolated, OwnedFd), Error> {
        self.isolate_at(&scene.runtime_dir(), key)
    }

    fn isolate_at(
        &self,
        runtime_dir: &std::path::Path,
        key: &str,
    ) -> Result<(Isolated, OwnedFd), Error> {
        let socket = runtime_dir.join("control.sock");
        let channel = Channel::connect(&socket, Some(PATIENCE)).unwrap().unwrap();
        let key = key.to_owned();
        let call = Call {
            version: VERSION,
            request: Request::Isolate(Isolate { key }),
        };
        channel.send(&call, &[self.pidfd().as_fd()]).unwrap();
        match channel.recv::<Answer>() {
            Ok(Some((answer, mut fds))) => match answer.response {
                Response::Isolated(isolated) => Ok((isolated, fds.pop().unwrap())),
                Response::Failed(error) => Err(error),
                other => panic!("{other:?}"),
            },
            // The daemon has been killed.
            _ => Err(Error::ending()),
        }
    }

    fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The surroundings of a test on a host where the user eci-fs has `ids`, and `passwd` is in /etc/passwd besides root.
#[track_caller]
fn scene_with(ids: &str, passwd: &str) -> Scene {
    let scene = scene();
    let root = "root:x:0:0::/:/bin/sh\n";
    for (name, text) in [
        ("subuid", ids.to_owned()),
        ("subgid", ids.to_owned()),
        ("passwd", format!("{root}{passwd}")),
    ] {
        let file = scene.dir().join(name);
        fs::write(&file, text).unwrap();
        mount_bind(&file, format!("/etc/{name}")).unwrap();
    }
    scene
}

/// The surroundings with two ranges.
#[track_caller]
fn scene_with_two() -> Scene {
    scene_with(&format!("eci-fs:{}:131072\n", first()), "")
}

/// Runs `command` as root of a user namespace, and returns its output.
fn inside(namespace: &OwnedFd, command: &[&str]) -> String {
    let path = format!(
        "--user=/proc/{}/fd/{}",
        std::process::id(),
        namespace.as_raw_fd()
    );
    let ran = Command::new(find_program("nsenter"))
        .arg(path)
        .args(command)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

/// The files that tell of ranges that are given.
fn notes(scene: &Scene) -> Vec<String> {
    let mut all = Vec::new();
    for dir in [scene.ids_dir(), scene.runtime_dir().join("isolated")] {
        let names = fs::read_dir(dir).into_iter().flatten();
        all.extend(names.map(|name| name.unwrap().file_name().into_string().unwrap()));
    }
    all.retain(|name| name != "last");
    all
}

/// Waits until a range of the two is free, by asking for it.
#[track_caller]
fn wait_for_free(daemon: &mut Daemon) {
    daemon.wait_for("range free");
}

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

#[test]
fn privileged_a_container_has_one_range_and_another_process_is_told_that() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
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
    assert_eq!(
        other.isolate(&scene, "/run/crun/web").unwrap().0.first_id,
        second()
    );
    // When the first one has ended, another one may have the container made again.
    one.end();
    let third = Process::start();
    let (again, _) = third.isolate(&scene, "/run/runc/web").unwrap();
    assert_eq!(again.first_id, first());
    for key in ["", &"k".repeat(4097)] {
        assert_eq!(third.isolate(&scene, key).unwrap_err().kind, Kind::Refused);
    }
    third.end();
    other.end();
    daemon.wait_for("range free");
    daemon.wait_for("range free");
    daemon.end();
}

#[test]
fn privileged_ranges_that_are_all_in_use_are_a_clear_error_and_a_killed_wrapper_frees_one() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
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
    assert_eq!(
        third.isolate(&scene, "/run/runc/three").unwrap().0.first_id,
        first()
    );
    third.end();
    other.end();
    daemon.wait_for("range free");
    daemon.wait_for("range free");
    daemon.end();
}

#[test]
fn privileged_a_range_that_became_free_is_given_last_of_all() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
    for first_id in [first(), second(), first()] {
        let wrapper = Process::start();
        assert_eq!(
            wrapper.isolate(&scene, "/run/runc/web").unwrap().0.first_id,
            first_id
        );
        wrapper.end();
        wait_for_free(&mut daemon);
    }
    daemon.end();
    // The next daemon goes on in turn.
    let mut daemon = scene.daemon(&[]);
    let wrapper = Process::start();
    assert_eq!(
        wrapper.isolate(&scene, "/run/runc/web").unwrap().0.first_id,
        second()
    );
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
    assert_eq!(
        wrapper.isolate(&scene, "/run/runc/one").unwrap().0.first_id,
        second()
    );
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
    assert_eq!(
        other.isolate(&scene, "/run/runc/two").unwrap().0.first_id,
        first()
    );
    left.end();
    wait_for_free(&mut daemon);
    other.end();
    wait_for_free(&mut daemon);
    daemon.end();
}

#[test]
fn privileged_ids_of_real_users_are_never_given() {
    let passwd = format!("ann:x:{}:1::/:/bin/sh\n", first() + 1000);
    let scene = scene_with(&format!("eci-fs:{}:131072\n", first()), &passwd);
    let mut daemon = scene.daemon(&[]);
    let (one, other) = (Process::start(), Process::start());
    assert_eq!(
        one.isolate(&scene, "/run/runc/one").unwrap().0.first_id,
        second()
    );
    let error = other.isolate(&scene, "/run/runc/two").unwrap_err();
    assert!(error.to_string().contains("all 1 ranges"), "{error}");
    // A user who is added while the daemon runs counts from then on.
    let text = format!(
        "root:x:0:0::/:/bin/sh\nbob:x:{}:1::/:/bin/sh\n",
        second() + 3
    );
    fs::write(scene.dir().join("passwd"), text).unwrap();
    assert_eq!(
        other.isolate(&scene, "/run/runc/two").unwrap().0.first_id,
        first()
    );
    one.end();
    other.end();
    daemon.wait_for("range free");
    daemon.wait_for("range free");
    daemon.end();
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
    assert_eq!(
        third.isolate(&scene, "/run/runc/more").unwrap().0.first_id,
        second()
    );
    a.end();
    third.end();
    one.wait_for("range free");
    one.wait_for("range free");
    one.end();
    other.end();
    assert_eq!(notes(&scene), Vec::<String>::new());
}

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
    let mut daemon = scene.daemon(&[]);
    let (one, other) = (Process::start(), Process::start());
    assert_eq!(
        one.isolate(&scene, "/run/runc/one").unwrap().0.first_id,
        second()
    );
    assert_eq!(
        other.isolate(&scene, "/run/runc/two").unwrap().0.first_id,
        first()
    );
    one.end();
    other.end();
    daemon.wait_for("range free");
    daemon.wait_for("range free");
    daemon.end();
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
    assert_eq!(
        other.isolate(&scene, "/run/runc/two").unwrap().0.first_id,
        second()
    );
    // One that ends while there is no daemon is noticed by the next.
    daemon.log_lines();
    daemon.die();
    wrapper.end();
    let mut daemon = scene.daemon(&[]);
    wait_for_free(&mut daemon);
    let third = Process::start();
    assert_eq!(
        third.isolate(&scene, "/run/runc/three").unwrap().0.first_id,
        first()
    );
    third.end();
    other.end();
    daemon.wait_for("range free");
    daemon.wait_for("range free");
    daemon.end();
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
    assert_eq!(
        one.isolate(&scene, "/run/runc/one").unwrap().0.first_id,
        second()
    );
    let error = other.isolate(&scene, "/run/runc/two").unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    left.end();
    assert_eq!(
        other.isolate(&scene, "/run/runc/two").unwrap().0.first_id,
        first()
    );
    one.end();
    other.end();
    daemon.wait_for("range free");
    daemon.wait_for("range free");
    daemon.end();
}

#[test]
fn privileged_a_container_that_is_attached_holds_its_range_when_its_wrapper_has_ended() {
    let scene = scene_with_two();
    let mut daemon = scene.daemon(&[]);
    let wrapper = Process::start();
    let (isolated, namespace) = wrapper.isolate(&scene, "/run/runc/web").unwrap();
    let path = format!(
        "--user=/proc/{}/fd/{}",
        std::process::id(),
        namespace.as_raw_fd()
    );
    let mut command = Command::new(find_program("nsenter"));
    command.args([&path, "unshare", "--mount", "sh", "-c", "echo; exec cat"]);
    let mut container = Process::of(&mut command);
    let mut line = [0];
    std::io::Read::read_exact(container.0.stdout.as_mut().unwrap(), &mut line).unwrap();
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
    assert_eq!(
        other.isolate(&scene, "/run/runc/two").unwrap().0.first_id,
        second()
    );
    let found = find(&scene.runtime_dir(), "/run/runc/web").unwrap();
    assert_eq!(found.unwrap().first_id, isolated.first_id);
    let third = Process::start();
    assert!(third.isolate(&scene, "/run/runc/three").is_err());
    container.end();
    wait_for_free(&mut daemon);
    assert_eq!(
        third.isolate(&scene, "/run/runc/three").unwrap().0.first_id,
        first()
    );
    third.end();
    other.end();
    daemon.wait_for("range free");
    daemon.wait_for("range free");
    daemon.end();
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
