//! Parts of an engine that are killed while isolated containers run.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::engines::{CommandLine, Docker};
use support::{
    PATIENCE, Scene, Signal, end_within, let_time_pass, open_pidfd, signal, status_field,
};

use super::docker;
use super::ids::first_id;
use crate::host::Host;
use crate::scene;

/// Starts a container, and returns the pid of its first process and its first id.
#[track_caller]
fn start(docker: &Docker, name: &str) -> (u32, u32) {
    docker
        .run(&["--detach", "--name", name], &["sleep", "1000"])
        .ok();
    let write = "touch /own; chown 7:60000 /own";
    docker.call(&["exec", name, "sh", "-c", write]).ok();
    (pid_of(docker, name), first_id(docker, name))
}

#[track_caller]
fn pid_of(docker: &Docker, name: &str) -> u32 {
    let inspect = ["inspect", "--format", "{{.State.Pid}}", name];
    docker.call(&inspect).ok().trim().parse().unwrap()
}

/// Waits until no range is given.
#[track_caller]
fn until_no_range_is_given(scene: &Scene, what: &str) {
    let end = Instant::now() + PATIENCE;
    let dirs = [
        scene.ids_dir(),
        Path::new("/run/eci-fs/isolated").to_owned(),
    ];
    let names = || {
        let all = dirs
            .iter()
            .flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
        let names = all.map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != "last").collect::<Vec<_>>()
    };
    while !names().is_empty() {
        assert!(Instant::now() < end, "{what}: {:?}", names());
        let_time_pass(Duration::from_millis(10));
    }
}

#[test]
fn privileged_a_docker_or_a_monitor_that_is_killed_leaves_no_mount_and_no_range() {
    let scene = scene();
    let host = Host::new(&scene);
    let mut docker = docker(&host, &scene);
    docker.run(&["--rm"], &["true"]).ok();
    let before = host.left(docker.cgroup());
    for part in ["monitor", "dockerd and containerd", "first process"] {
        let (pid, first) = start(&docker, "one");
        let pidfd = open_pidfd(pid);
        match part {
            "monitor" => {
                let monitor = status_field(pid, "PPid:").unwrap();
                signal(monitor.trim().parse().unwrap(), Signal::KILL);
            }
            // The next dockerd ends the containers of the one before.
            "dockerd and containerd" => docker.crash(),
            _ => signal(pid, Signal::KILL),
        }
        assert!(end_within(&pidfd, PATIENCE), "{part}");
        until_no_range_is_given(&scene, part);
        // Docker hears of the end a little later.
        let end = Instant::now() + PATIENCE;
        let running = ["inspect", "--format", "{{.State.Running}}", "one"];
        while docker.call(&running).ok() != "false\n" {
            assert!(Instant::now() < end, "{part}: {:?}", docker.log());
        }
        docker.call(&["start", "one"]).ok();
        assert_ne!(first_id(&docker, "one"), first, "{part}");
        let owner = docker.call(&["exec", "one", "stat", "-c", "%u:%g", "/own"]);
        assert_eq!(owner.ok(), "7:60000\n", "{part}");
        docker.call(&["rm", "--force", "one"]).ok();
        until_no_range_is_given(&scene, part);
        host.is_as(&before, docker.cgroup(), part);
    }
}
