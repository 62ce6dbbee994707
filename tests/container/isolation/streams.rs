//! Standard streams of isolated containers.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use serde_json::json;
use support::{Engine, Ran};

use super::rig::{Rig, Style};
use crate::scene;

#[test]
fn privileged_pipes_can_be_opened_again_by_root_and_others_at_create_and_exec() {
    let scene = scene();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    for engine in Engine::RUNTIMES {
        // youki gives no stream to the user of the process, with isolation or without.
        let users: &[u32] = if engine == Engine::Youki {
            &[0]
        } else {
            &[0, 1000]
        };
        for &uid in users {
            let disk = rig.overlay(Style::Docker, &format!("{engine:?}{uid}"));
            let bundle = rig.bundle(engine, &disk.root);
            bundle.change(|config| config["process"]["user"] = json!({ "uid": uid, "gid": uid }));
            let script =
                "echo out > /proc/self/fd/1; echo err > /proc/self/fd/2; read -r line; exit 3";
            bundle.program(&["/bin/busybox", "sh", "-c", script]);
            let mut command = bundle.run_command();
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            let mut error = String::new();
            BufReader::new(child.stdout.take().unwrap())
                .read_line(&mut line)
                .unwrap();
            BufReader::new(child.stderr.take().unwrap())
                .read_line(&mut error)
                .unwrap();
            assert_eq!(
                (line.as_str(), error.as_str()),
                ("out\n", "err\n"),
                "{engine:?} {uid}"
            );
            let mut exec = bundle.runtime(&[
                "exec",
                bundle.name(),
                "/bin/busybox",
                "sh",
                "-c",
                "echo again > /proc/self/fd/1",
            ]);
            exec.stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let output = exec.spawn().unwrap().wait_with_output().unwrap();
            let ran = Ran::from_output("exec".into(), &output);
            if engine == Engine::Youki {
                ran.refused(&["eci-runc: isolation: ", "root of the host"]);
            } else {
                assert_eq!(ran.stdout, "again\n", "{engine:?} {uid} {ran:?}");
            }
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }
    daemon.end();
}

#[test]
fn privileged_the_hosts_null_device_stays_the_hosts() {
    let scene = scene();
    // A /dev/null for the test, as the host's must not be at risk.
    support::engines::prepare();
    let rig = Rig::new(&scene, "");
    let daemon = scene.daemon(&[]);
    let stat = || {
        let stat = std::fs::metadata("/dev/null").unwrap();
        (stat.uid(), stat.gid(), stat.mode(), stat.ino())
    };
    let before = stat();
    for engine in Engine::RUNTIMES {
        let disk = rig.overlay(Style::Docker, &format!("{engine:?}"));
        let bundle = rig.bundle(engine, &disk.root);
        let script =
            "chmod 640 /proc/self/fd/0; chown 1000 /proc/self/fd/0; stat -Lc %t:%T /proc/self/fd/0";
        bundle.program(&["/bin/busybox", "sh", "-c", script]);
        let ran = Ran::run(&mut bundle.run_command());
        // runc puts a pipe between.
        let inside = ["1:3\n", "0:0\n"][usize::from(engine == Engine::Runc)];
        assert_eq!(ran.stdout, inside, "{engine:?} {ran:?}");
        assert_eq!(stat(), before, "{engine:?}");
    }
    daemon.end();
}
