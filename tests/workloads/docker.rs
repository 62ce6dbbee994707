//! dockerd in a container, and containers in that.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use support::engines::{CommandLine, IMAGE, Image};
use support::{Logged, Ran, Scene};

use crate::machine::{Files, MEMORY, Machine};
use crate::scene;

/// A dockerd as Debian starts it, but for the log and the driver of storage, of which it has no other in a tmpfs.
const DOCKERD: [&str; 3] = ["dockerd", "--storage-driver=vfs", "--log-level=info"];

/// The Docker of a container. It is ended with the value, before the container is.
struct Inner {
    daemon: Logged,
    machine: Machine,
}

impl Inner {
    #[track_caller]
    fn start(scene: &Scene, files: Files, image: &Path) -> Self {
        let machine = Machine::start(scene, files, Path::new("/usr"), &["sleep", "100000"], &[]);
        let mut daemon = Logged::start(machine.command(&DOCKERD));
        daemon.wait_for("API listen on");
        let load = machine.command(&["docker", "load", "--quiet"]);
        let said = with_input(load, image).ok();
        assert!(said.contains(IMAGE), "{said}");
        Self { daemon, machine }
    }
}

impl CommandLine for Inner {
    fn command(&self, arguments: &[&str]) -> Command {
        self.machine.command(&[&["docker"], arguments].concat())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.daemon.terminate();
    }
}

/// Run a command that reads a file.
#[track_caller]
fn with_input(mut command: Command, file: &Path) -> Ran {
    let output = command.stdin(File::open(file).unwrap()).output().unwrap();
    Ran::from_output(format!("{command:?}"), &output)
}

/// What its containers are asked for, and what they say.
fn transcript(docker: &Inner) -> Vec<String> {
    let show = "cat /proc/self/uid_map; head -n 1 /proc/meminfo; \
                cat /sys/fs/cgroup/memory/memory.limit_in_bytes; \
                ls /proc/sys/net/ipv4/conf; sysctl net.core.somaxconn kernel.msgmax kernel.panic";
    let sysctls = [
        "--sysctl=net.core.somaxconn=4242",
        "--sysctl=kernel.msgmax=12345",
    ];
    let mut said = vec![docker.run(&["--rm"], &["sh", "-c", show]).ok()];
    for options in [
        &["--memory=64m", "--cpus=0.5"][..],
        &sysctls,
        &["--network=none"],
        &["--privileged"],
        &["--read-only", "--cap-drop=ALL", "--user=1:1"],
    ] {
        said.push(
            docker
                .run(&[&["--rm"], options].concat(), &["sh", "-c", show])
                .ok(),
        );
    }
    docker
        .run(&["--detach", "--name=one"], &["sleep", "1000"])
        .ok();
    said.push(docker.call(&["exec", "one", "sh", "-c", show]).ok());
    said.push(docker.call(&["rm", "--force", "one"]).ok());
    said
}

#[test]
fn privileged_dockerd_in_a_container_runs_containers_as_it_does_without_eci_fs() {
    let scene = scene();
    let image = Image::build(&scene).archive;
    let without = transcript(&Inner::start(&scene, Files::Kernels, &image));
    let docker = Inner::start(&scene, Files::Grafted, &image);
    let with = transcript(&docker);
    for (with, without) in with.iter().zip(&without) {
        assert_eq!(with, without);
    }
    // It takes the container for the machine.
    let memory = docker.call(&["info", "--format={{.MemTotal}}"]).ok();
    assert_eq!(memory, format!("{MEMORY}\n"));
}
