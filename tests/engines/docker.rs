//! Docker, with the runtime that `eci-fs install --engine docker` writes into its configuration.

use serde_json::Value;
use support::engines::{CommandLine, Docker};

use crate::host::Host;
use crate::scene;
use crate::views::{
    LIMITS, SHOW, cpus_of, fifty_at_once, show_limits, show_the_cgroup, show_the_machine, start,
};

/// What chooses our runtime.
const ECI: &str = "--runtime=eci";

#[test]
fn privileged_every_container_of_docker_sees_its_limits_and_leaves_nothing() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = host.docker(&[]);
    // What dockerd makes for the first container and keeps.
    docker.run(&["--rm", ECI, "--network=host"], &["true"]).ok();
    docker.run(&["--rm", ECI], &["true"]).ok();
    let before = host.left(docker.cgroup());
    let mut kinds: Vec<&[&str]> = vec![
        &[],
        &[
            "--cap-add=SYS_ADMIN",
            "--security-opt=systempaths=unconfined",
            "--security-opt=seccomp=unconfined",
        ],
        &["--read-only"],
        &["--pid=host"],
        &["--network=host", "--cgroupns=host"],
        &[
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--user=1000:1000",
        ],
    ];
    // It takes all capabilities there are, which not every root has to give.
    if docker.run(&["--rm", "--privileged"], &["true"]).code == Some(0) {
        kinds.push(&["--privileged"]);
    }
    for options in kinds {
        let ran = docker.run(&[&["--rm", ECI], options, &LIMITS[..]].concat(), &SHOW);
        show_limits(&ran.ok(), 128, cpus_of(options));
        host.is_as(&before, docker.cgroup(), &format!("{options:?}"));
    }
}

#[test]
fn privileged_the_stock_runtime_of_docker_shows_the_machine() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = host.docker(&[]);
    let ran = docker.run(&[&["--rm"], &LIMITS[..]].concat(), &SHOW);
    show_the_machine(&ran.ok());
}

#[test]
fn privileged_as_the_default_runtime_of_docker_it_needs_no_option() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = host.docker(&["--default-runtime"]);
    let ran = docker.run(&[&["--rm"], &LIMITS[..]].concat(), &SHOW);
    show_limits(&ran.ok(), 128, 1);
    let ran = docker.run(&[&["--rm", "--runtime=runc"], &LIMITS[..]].concat(), &SHOW);
    show_the_machine(&ran.ok());
}

#[test]
fn privileged_limits_that_docker_changes_show_in_the_running_container() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = host.docker(&[]);
    let before = host.left(docker.cgroup());
    start(&docker, "one", &[&[ECI], &LIMITS[..]].concat());
    let exec = [&["exec", "one"], &SHOW[..]].concat();
    show_limits(&docker.call(&exec).ok(), 128, 1);
    let update = [
        "update",
        "--memory=192m",
        "--memory-swap=192m",
        "--cpus=2",
        "one",
    ];
    docker.call(&update).ok();
    show_limits(&docker.call(&exec).ok(), 192, 2);
    docker.call(&["restart", "one"]).ok();
    show_limits(&docker.call(&exec).ok(), 192, 2);
    show_the_cgroup(&docker.call(&exec).ok());
    assert_eq!(host.attached().len(), 1);
    docker.call(&["rm", "--force", "one"]).ok();
    host.is_as(&before, docker.cgroup(), "");
}

#[test]
fn privileged_containers_that_dockerd_restarts_have_their_views_again() {
    let scene = scene();
    let host = Host::new(&scene);
    let mut docker = host.docker(&[]);
    start(
        &docker,
        "one",
        &[&["--restart=always", ECI], &LIMITS[..]].concat(),
    );
    docker.restart();
    assert_eq!(running(&docker), ["one"]);
    let exec = [&["exec", "one"], &SHOW[..]].concat();
    show_limits(&docker.call(&exec).ok(), 128, 1);
    assert_eq!(host.attached().len(), 1);
}

#[test]
fn privileged_fifty_containers_of_docker_at_once_have_their_views_and_leave_nothing() {
    let scene = scene();
    let host = Host::new(&scene);
    let docker = host.docker(&[]);
    docker.run(&["--rm", ECI], &["true"]).ok();
    let before = host.left(docker.cgroup());
    fifty_at_once(&docker, &[ECI, "--network=none"]);
    host.is_as(&before, docker.cgroup(), "");
}

/// The names of the containers that run.
fn running(docker: &Docker) -> Vec<String> {
    let all = docker.call(&["ps", "--format", "{{json .}}"]).ok();
    let name = |line: &str| -> String {
        let container: Value = serde_json::from_str(line).unwrap();
        container["Names"].as_str().unwrap().to_owned()
    };
    all.lines().map(name).collect()
}
