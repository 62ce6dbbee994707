//! What commands say where no daemon runs, and where one has died and left a server that serves on.

use std::fs;
use std::os::unix::fs::DirBuilderExt;

use serde_json::Value;
use support::{Bundle, Engine, Ran, Scene, Signal, signal};

use crate::{limits, scene, sees, sees_the_host};

/// The list of a daemon that is dead. The command prints it, says so, and fails.
#[track_caller]
pub(super) fn list_of_the_dead(scene: &Scene) -> Vec<Value> {
    let ran = scene.eci_fs(&["list", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    says(&ran.stderr, &["eci-fs: ", "dead", "start eci-mountd again"]);
    serde_json::from_str(&ran.stdout).unwrap()
}

/// That one line has all these words.
#[track_caller]
fn says(line: &str, words: &[&str]) {
    assert_eq!(line.lines().count(), 1, "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is missing: {line}");
    }
}

/// The finding of the doctor about the daemon.
#[track_caller]
fn finding(scene: &Scene) -> (Ran, Value) {
    let root = scene.dir().join("machine");
    fs::create_dir_all(&root).unwrap();
    let ran = scene.eci_fs(&["doctor", "--json", "--root", root.to_str().unwrap()]);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let all = json["findings"].as_array().unwrap();
    let found = all.iter().find(|finding| finding["part"] == "daemon");
    (ran, found.unwrap().clone())
}

/// Takes out what only a daemon can tell, which asks the server what it has done.
#[track_caller]
fn without_usage(mut list: Vec<Value>) -> Vec<Value> {
    for listed in &mut list {
        let usage = listed.as_object_mut().and_then(|one| one.remove("usage"));
        assert!(usage.is_some());
    }
    list
}

#[test]
fn privileged_beside_a_dead_daemon_commands_tell_what_its_server_serves_on() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let gone = scene.container().start();
    let mounts = container.mounts();
    let pid = container.pid().to_string();
    scene.eci_fs(&["attach", "--id", "web", &pid]).ok();
    scene.attach(&gone);
    let views = scene.dir().join("views");
    let views = views.to_str().unwrap();
    scene.eci_fs(&["mount", &pid, views]).ok();
    let before = without_usage(scene.list());
    let dead = daemon.pid().to_string();
    let server = daemon.server().to_string();
    daemon.die();
    drop(gone);

    // What lives is on the list as the daemon had it. What has ended since is not.
    let listed = list_of_the_dead(&scene);
    assert_eq!(listed, before[..1], "{listed:?}");
    let text = scene.eci_fs(&["list"]);
    assert_eq!(text.stdout.lines().count(), 2, "{text:?}");
    assert!(text.stdout.contains("web"), "{text:?}");
    says(&text.stderr, &[&dead, &server, "serves 1 container on"]);
    let grafts = format!("has {} grafts", listed[0]["grafts"]);
    for container in ["web", &pid] {
        let ran = scene.eci_fs(&["detach", container]);
        ran.refused(&["web cannot be detached", &grafts, &dead, &server]);
        let ran = scene.eci_fs(&["show", container, "/proc/meminfo"]);
        ran.refused(&["web cannot be shown", &dead, &format!("nsenter -t {pid}")]);
    }
    let ran = scene.eci_fs(&["unmount", views]);
    ran.refused(&["web cannot be unmounted", &dead, "umount -R"]);
    let ran = scene.eci_fs(&["detach", "other"]);
    ran.refused(&["other is none of its containers", &dead]);
    scene.eci_fs(&["upgrade"]).refused(&["is dead", &dead]);
    let (ran, found) = finding(&scene);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(found["state"], "wrong", "{found}");
    says(
        found["says"].as_str().unwrap(),
        &[&dead, &server, "1 container"],
    );
    sees(&mut container, 128, 1);

    // The remedy is one.
    let daemon = scene.daemon(&[]);
    assert_eq!(without_usage(scene.list()), before[..1]);
    let (_, found) = finding(&scene);
    assert_eq!(found["state"], "ok", "{found}");
    assert!(
        found["says"].as_str().unwrap().ends_with("has 1 container"),
        "{found}"
    );
    scene.eci_fs(&["unmount", views]).ok();
    scene.eci_fs(&["detach", "web"]).ok();
    assert_eq!(container.mounts(), mounts);
    sees_the_host(&mut container);
    daemon.end();
}

#[test]
fn privileged_a_dead_server_beside_a_dead_daemon_is_told_too() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let container = scene.container().start();
    scene.attach(&container);
    daemon.crash();
    let text = scene.eci_fs(&["list"]);
    assert_eq!(text.code, Some(1), "{text:?}");
    says(&text.stderr, &["and its server are dead", "cannot be read"]);
    drop(container);
    // Nothing is left of the container, and so nothing of the daemon's is.
    let text = scene.eci_fs(&["list"]);
    assert_eq!(text.code, Some(0), "{text:?}");
    says(
        &text.stderr,
        &["no eci-mountd is running", "nothing is attached"],
    );
}

#[test]
fn privileged_where_no_daemon_is_needed_the_list_is_empty_and_a_sentence_says_why() {
    let scene = scene();
    let run = scene.runtime_dir();
    let name = run.to_str().unwrap();
    // A directory that was named and is not there may be misspelled.
    let absent = [name, "there is no such directory", "--runtime-dir"];
    for command in [&["list"][..], &["list", "--json"], &["detach", "web"]] {
        let ran = scene.eci_fs(command);
        ran.refused(&absent);
        assert_eq!(ran.code, Some(1), "{ran:?}");
    }
    let (ran, found) = finding(&scene);
    assert_eq!((ran.code, &found["state"]), (Some(0), &"note".into()));
    assert!(!run.exists(), "a command that asks makes no directory");

    fs::DirBuilder::new().mode(0o700).create(&run).unwrap();
    let none = [name, "no eci-mountd is running", "nothing is attached"];
    let empty = |scene: &Scene| {
        let ran = scene.eci_fs(&["list", "--json"]);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(0), "[]\n"),
            "{ran:?}"
        );
        says(&ran.stderr, &none);
        scene.eci_fs(&["detach", "web"]).refused(&none);
    };
    empty(&scene);
    // A daemon that has undone everything leaves nothing to tell.
    let daemon = scene.daemon(&[]);
    let container = scene.container().start();
    scene.attach(&container);
    daemon.end();
    empty(&scene);
}

#[test]
fn privileged_the_default_directory_need_not_be_there() {
    let scene = scene();
    let mut command = scene.command(&["list", "--json"]);
    command.env_remove("ECI_FS_RUNTIME_DIR");
    // A daemon of the host may be there, which the test must not look at.
    if std::path::Path::new("/run/eci-fs").exists() {
        return;
    }
    let ran = Ran::run(&mut command);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "[]\n"),
        "{ran:?}"
    );
    says(&ran.stderr, &["none has run since the host was started"]);
}

#[test]
fn privileged_a_look_at_the_list_of_a_dead_daemon_changes_nothing_in_the_directory() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let container = scene.container().start();
    scene.attach(&container);
    daemon.die();
    let dir = scene.runtime_dir();
    let spoiled = dir.join("containers/99.json");
    fs::write(&spoiled, "{").unwrap();
    for command in [&["list"][..], &["detach", "web"]] {
        scene.eci_fs(command).refused(&["containers/99.json"]);
    }
    assert_eq!(fs::read_to_string(&spoiled).unwrap(), "{");
    fs::remove_file(&spoiled).unwrap();
    assert_eq!(list_of_the_dead(&scene).len(), 1);
    drop(container);
}

#[test]
fn privileged_a_pid_that_another_process_has_now_is_no_daemon() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let container = scene.container().start();
    scene.attach(&container);
    daemon.die();
    // The number in the lock is that of a process that lives, and has nothing to do with the directory.
    let lock = scene.runtime_dir().join("lock");
    fs::write(lock, container.pid().to_string()).unwrap();
    assert_eq!(list_of_the_dead(&scene).len(), 1);
    drop(container);
}

#[test]
fn privileged_a_stopped_daemon_is_given_up_in_time_and_begins_nothing_for_who_has_gone() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let new = scene.container().start();
    let pid = new.pid().to_string();
    let mounts = new.mounts();
    scene.attach(&container);
    daemon.wait_for_rest();
    daemon.stop();
    let begun = std::time::Instant::now();
    let ran = scene.eci_fs(&["list"]);
    ran.refused(&["did not answer within 5s"]);
    let (ran, found) = finding(&scene);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    says(
        found["says"].as_str().unwrap(),
        &["did not answer within 5s"],
    );
    assert!(ran.stdout.contains("no container is tried"), "{ran:?}");
    assert!(begun.elapsed() < support::PATIENCE, "{:?}", begun.elapsed());
    let views = scene.dir().join("views");
    let own = container.pid().to_string();
    for command in [
        &["detach", &own][..],
        &["attach", &pid],
        &["mount", &pid, views.to_str().unwrap()],
        &["upgrade"],
    ] {
        let ran = scene.eci_fs(&[command, &["--timeout", "0.1"]].concat());
        ran.refused(&["did not answer within 100ms", "begins nothing"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
    }
    let pid_before = daemon.pid();
    daemon.go_on();
    for _ in 0..4 {
        daemon.wait_for("the command that asked has gone, so nothing is done");
    }
    let listed = scene.list();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(new.mounts(), mounts);
    assert_eq!(scene.daemon_pid(), Some(pid_before));
    sees(&mut container, 128, 1);
    drop((container, new));
    daemon.end();
}

#[test]
fn privileged_a_hook_that_gave_up_has_nothing_attached_later() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    daemon.stop();
    let bundle = Bundle::new(&scene, Engine::Runc, &limits(192, 0.5), false);
    bundle.hook(&scene, &["--timeout", "1"]);
    let ran = bundle.run();
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:?}");
    assert!(ran.stderr.contains("did not answer within"), "{ran:?}");
    daemon.go_on();
    daemon.wait_for("the command that asked has gone, so nothing is done");
    assert_eq!(scene.list().len(), 0);
    drop(bundle);
    daemon.end();
}

#[test]
fn privileged_a_request_that_waits_behind_another_is_not_begun_when_its_command_has_gone() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mut new = scene.container().limits(limits(96, 1.0)).start();
    scene.attach(&container);
    daemon.wait_for_rest();
    let server = daemon.server();
    let is_at_work = |pid: u32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        tasks
            .filter(|task| {
                let name = fs::read_to_string(task.path().join("comm"));
                name.is_ok_and(|name| name.starts_with("control"))
            })
            .count()
    };
    let own = container.pid().to_string();
    let mut came_first = 0;
    loop {
        // The attach waits for the server, and the detach for the attach.
        signal(server, Signal::STOP);
        let attach = scene.start(&["attach", &new.pid().to_string()]);
        while is_at_work(daemon.pid()) == 0 {}
        let ran = scene.eci_fs(&["detach", &own, "--timeout", "0.2"]);
        ran.refused(&["did not answer within 200ms"]);
        signal(server, Signal::CONT);
        attach.wait().ok();
        daemon.wait_for_rest();
        if scene.list().len() == 2 {
            daemon.wait_for("the command that asked has gone, so nothing is done");
            break;
        }
        // On a busy host the detach may begin before the attach does.
        came_first += 1;
        assert!(came_first < 20);
        scene.attach(&container);
        scene.detach(&new);
        daemon.wait_for_rest();
    }
    assert_eq!(scene.list().len(), 2);
    sees(&mut container, 128, 1);
    sees(&mut new, 96, 1);
    drop((container, new));
    daemon.end();
}

#[test]
fn privileged_on_a_terminal_a_command_says_that_it_waits() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    daemon.stop();
    let line = format!("{} list --timeout 1.5", scene.program().display());
    let mut command = std::process::Command::new(support::find_program("script"));
    command.args(["-qec", &line, "/dev/null"]);
    command.env("ECI_FS_RUNTIME_DIR", scene.runtime_dir());
    let ran = Ran::run(&mut command);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stdout
            .contains("eci-mountd does not answer yet; waiting"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("did not answer within 1.5s"), "{ran:?}");
    daemon.go_on();
    daemon.end();
}
