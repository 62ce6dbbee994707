//! Other versions of the programs replace the running ones.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Scene, open_pidfd, wait_for_end};

use crate::{limits, scene, sees, sees_the_host};

/// End the daemon that has taken the place of the one that the test started, by this signal.
pub(crate) fn end(scene: &Scene, signal: Signal) {
    let pid = scene.daemon_pid().unwrap();
    let pidfd = open_pidfd(pid);
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
    wait_for_end(&pidfd);
}

/// A program that says it is one of eci-fs, and then does `body`.
fn pretender(scene: &Scene, name: &str, body: &str) -> PathBuf {
    let path = scene.dir().join(name);
    let text =
        format!("#!/bin/sh\nif [ \"$1\" = --version ]; then echo eci-fs 99.0; exit; fi\n{body}\n");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn privileged_an_upgrade_replaces_both_programs_and_no_reader_notices() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    let mounts = container.mounts();
    scene.attach(&container);
    let boot_id = container.read("/proc/sys/kernel/random/boot_id");
    container.ask(&["hold", "meminfo", "/proc/meminfo"]);
    let reader = std::thread::spawn(move || {
        for _ in 0..200 {
            sees(&mut container, 128, 1);
            container.ask(&["again", "meminfo"]);
        }
        container
    });
    let mut before = (daemon.pid(), daemon.server());
    for _ in 0..4 {
        let said = scene.eci_fs(&["upgrade"]).ok();
        let now = (scene.daemon_pid().unwrap(), daemon.server());
        assert!(now.0 != before.0 && now.1 != before.1, "{said}");
        assert!(said.contains(&format!("process {}", now.0)), "{said}");
        assert!(said.contains(&format!("process {}", now.1)), "{said}");
        before = now;
    }
    let mut container = reader.join().unwrap();
    assert_eq!(scene.list().len(), 1);
    assert_eq!(container.read("/proc/sys/kernel/random/boot_id"), boot_id);
    let mut another = scene.container().limits(limits(96, 1.0)).start();
    scene.attach(&another);
    sees(&mut another, 96, 1);
    scene.detach(&container);
    assert_eq!(container.mounts(), mounts);
    drop((container, another));
    end(&scene, Signal::TERM);
}

#[test]
fn privileged_a_program_that_cannot_take_the_place_changes_nothing() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    let server = daemon.server();
    let ends = pretender(&scene, "ends", "exit 1");
    let hangs = pretender(&scene, "hangs", "exec sleep 60");
    let no_program = scene.dir().join("no-such-program");
    for (path, words) in [
        (PathBuf::from("/bin/true"), "is no program of eci-fs"),
        (no_program, "No such file"),
        (ends, "goes on"),
        (hangs, "goes on"),
    ] {
        let path = path.to_str().unwrap();
        // One that hangs is waited for, which takes its time: once is enough.
        let options: &[&str] = match path.ends_with("hangs") {
            true => &["--server"],
            false => &["--daemon", "--server"],
        };
        for option in options.iter().copied() {
            if option == "--daemon" {
                scene
                    .eci_fs(&["upgrade", option, path])
                    .refused(&["the daemon that runs goes on", words]);
                assert_eq!(scene.daemon_pid(), Some(daemon.pid()));
            } else {
                let request = ["upgrade", "--only", "server", option, path];
                scene.eci_fs(&request).refused(&[words]);
            }
            assert_eq!(daemon.server(), server);
            sees(&mut container, 128, 1);
            assert_eq!(scene.list().len(), 1);
        }
    }
    daemon.kill_server();
    sees(&mut container, 128, 1);
    daemon.wait_for("the server died");
    scene.detach(&container);
    sees_the_host(&mut container);
    daemon.end();
}

#[test]
fn privileged_the_list_is_told_while_an_upgrade_is_under_way() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 1.0)).start();
    scene.attach(&container);
    let mut ended = scene.container().limits(limits(96, 1.0)).start();
    scene.attach(&ended);
    let [runs, goes_on] = ["runs", "goes-on"].map(|name| {
        let path = scene.dir().join(name);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        path
    });
    let body = format!(
        "echo > {}; read line < {}",
        runs.display(),
        goes_on.display()
    );
    let waits = pretender(&scene, "waits", &body);
    let path = waits.to_str().unwrap();
    let upgrade = scene.start(&["upgrade", "--only", "server", "--server", path]);
    assert_eq!(std::fs::read(&runs).unwrap(), b"\n");
    let list = scene.list();
    assert_eq!(list.len(), 2, "{list:?}");
    assert_eq!(list[0]["pid"], container.pid());
    assert!(list[0].get("usage").is_none_or(Value::is_null), "{list:?}");
    ended.kill();
    assert_eq!(scene.list().len(), 1);
    std::fs::write(&goes_on, b"\n").unwrap();
    upgrade.wait().refused(&["goes on"]);
    let list = scene.list();
    assert_eq!(list.len(), 1);
    assert!(list[0]["usage"].is_object(), "{list:?}");
    sees(&mut container, 128, 1);
    drop((container, ended));
    daemon.end();
}

#[test]
fn privileged_a_list_that_was_handed_over_is_gone_on_with_and_found_after_a_crash() {
    let scene = scene();
    let daemon = scene.daemon(&[]);
    let [mut first, mut second, mut third] =
        [128, 96, 64].map(|mib| scene.container().limits(limits(mib, 1.0)).start());
    scene.attach(&first);
    scene.attach(&second);
    // One that does not come to it, after which the daemon that runs has its list in one file, and one that does.
    let cannot = pretender(&scene, "cannot", "exit 3");
    let cannot = cannot.to_str().unwrap();
    scene
        .eci_fs(&["upgrade", "--daemon", cannot])
        .refused(&["goes on"]);
    scene.attach(&third);
    scene.detach(&third);
    scene.eci_fs(&["upgrade", "--only", "daemon"]).ok();
    scene.detach(&first);
    scene.attach(&third);
    end(&scene, Signal::KILL);
    drop(daemon);
    let daemon = scene.daemon(&[]);
    let ids: Vec<_> = scene.list().iter().map(|one| one["pid"].clone()).collect();
    assert_eq!(ids, [second.pid(), third.pid()]);
    sees_the_host(&mut first);
    sees(&mut second, 96, 1);
    sees(&mut third, 64, 1);
    drop((first, second, third));
    daemon.end();
}

#[test]
fn privileged_an_upgrade_without_a_daemon_says_that_there_is_none() {
    let scene = scene();
    scene.eci_fs(&["upgrade"]).refused(&["eci-mountd"]);
}
