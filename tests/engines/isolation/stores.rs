//! Engines that keep their data where they do by default: what they put into each container is not restricted.

use std::fs;
use std::process::Command;

use support::engines::{CommandLine, IMAGE, Podman, prepare};
use support::{Ran, Scene};

use super::{configuration, docker, ids::program};
use crate::host::Host;
use crate::scene;

/// Shows directories of the test at other places, too. The test has mounts of its own.
#[track_caller]
fn show(scene: &Scene, places: &[(&str, &str)]) {
    prepare();
    // Nothing is made on the host's disk.
    Ran::run(Command::new("mount").args(["-t", "tmpfs", "shown", "/var/lib"])).ok();
    for (dir, place) in places {
        let dir = scene.dir().join(dir);
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(place).unwrap();
        Ran::run(Command::new("mount").arg("--bind").arg(&dir).arg(place)).ok();
    }
}

#[test]
fn privileged_what_docker_puts_into_containers_is_not_restricted() {
    let scene = scene();
    let host = Host::new(&scene);
    show(&scene, &[("docker/data", "/var/lib/docker")]);
    let docker = docker(&host, &scene);
    docker.call(&["volume", "create", "named"]).ok();
    let first = [
        "--detach",
        "--init",
        "--ipc=shareable",
        "--name=first",
        "-v=named:/n",
        "-v=/anonymous",
    ];
    docker.run(&first, &["sleep", "600"]).ok();
    for options in [
        &[
            "--ipc=container:first",
            "--network=container:first",
            "--pid=container:first",
        ][..],
        &["--volumes-from=first"],
        &["--read-only", "--tmpfs=/t", "--privileged"],
    ] {
        let options = [&["--rm"], options].concat();
        docker
            .run(
                &options,
                &["cat", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"],
            )
            .ok();
    }
    // Not what is beside that.
    for path in [".", "volumes", "containers", "overlay2"] {
        let volume = format!(
            "{}:/x:ro",
            scene.dir().join("docker/data").join(path).display()
        );
        let ran = docker.run(&["--rm", "-v", &volume], &["true"]);
        assert!(
            ran.code == Some(125) && ran.stderr.contains("/var/lib/docker"),
            "{ran:?}"
        );
    }
    docker.call(&["rm", "--force", "--volumes", "first"]).ok();
}

#[test]
fn privileged_what_podman_puts_into_containers_is_not_restricted() {
    let scene = scene();
    let host = Host::new(&scene);
    show(
        &scene,
        &[
            ("podman/root", "/var/lib/containers/storage"),
            ("podman/run", "/run/containers/storage"),
        ],
    );
    let program = program(&host, &scene, &configuration(&scene, ""), "runc");
    let podman = Podman::start(&scene, None).with(&["--runtime", &program]);
    let secret = scene.dir().join("secret");
    fs::write(&secret, "s\n").unwrap();
    podman
        .call(&["secret", "create", "s", &secret.to_string_lossy()])
        .ok();
    podman.call(&["volume", "create", "named"]).ok();
    let dir = scene.dir().join("shared");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("f"), "f\n").unwrap();
    let changed = format!("{}:/o:O", dir.display());
    for options in [
        &["--secret=s", "--volume=named:/n", "--volume=/anonymous"][..],
        &[
            "--read-only",
            "--shm-size=1m",
            "--hostname=named",
            "--add-host=x:192.0.2.1",
        ],
        &["--volume", &changed],
        &[
            "--mount",
            &format!("type=image,source={IMAGE},destination=/i"),
        ],
    ] {
        let options = [&["--rm"], options].concat();
        podman
            .run(&options, &["cat", "/etc/hosts", "/etc/hostname"])
            .ok();
    }
    let script = "echo x >/o/f && touch /o/new && stat -c '%u:%g' /o /o/f /o/new; cat /o/f";
    let ran = podman.run(&["--rm", "--volume", &changed], &["sh", "-c", script]);
    assert_eq!(ran.ok(), "0:0\n0:0\n0:0\nx\n");
    assert_eq!(fs::read_to_string(dir.join("f")).unwrap(), "f\n");
    for volume in ["/etc:/x:O", "/etc:/x:ro"] {
        let ran = podman.run(&["--rm", "--volume", volume], &["true"]);
        assert!(
            ran.code != Some(0) && ran.stderr.contains("/etc, which containers"),
            "{ran:?}"
        );
    }
    let ran = podman.call(&["run", "--rm", "--network=none", "--rootfs", "/boot", "true"]);
    assert!(
        ran.code != Some(0) && ran.stderr.contains("/boot"),
        "{ran:?}"
    );
}
