//! Docker: a dockerd of the test's own, and the client that speaks to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{CommandLine, Image, prepare, without_network, write};
use crate::{Cgroup, Logged, Scene, find_program};

/// A running dockerd. It is ended with the value, and its containers with it.
#[derive(Debug)]
pub struct Docker {
    // Before the cgroup, in which the containers are.
    daemon: Logged,
    cgroup: Cgroup,
    dir: PathBuf,
}

impl Docker {
    /// Start one with this `daemon.json`, and load the image.
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    pub fn start(scene: &Scene, config: &Value) -> Self {
        prepare();
        let dir = scene.dir().join("docker");
        write(&dir.join("daemon.json"), &config.to_string());
        let cgroup = Cgroup::named(Cgroup::fresh_path());
        let daemon = daemon(&dir, cgroup.path());
        let this = Self {
            daemon,
            cgroup,
            dir,
        };
        let archive = Image::build(scene).archive;
        let archive = archive.to_string_lossy();
        this.call(&["load", "--quiet", "--input", &archive]).ok();
        this
    }

    /// End the daemon as a service manager would, and start it again.
    ///
    /// # Panics
    /// When it does not end, or does not become ready.
    #[track_caller]
    pub fn restart(&mut self) {
        self.daemon.terminate();
        self.daemon = daemon(&self.dir, self.cgroup.path());
    }

    /// The cgroup that containers are in.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// What the daemon has logged.
    pub fn log(&mut self) -> &[String] {
        self.daemon.said()
    }
}

/// A dockerd that is ready.
#[track_caller]
fn daemon(dir: &Path, cgroup: &str) -> Logged {
    let mut command = without_network(find_program("dockerd"));
    command.arg("--config-file").arg(dir.join("daemon.json"));
    command.arg("--data-root").arg(dir.join("data"));
    // Where it is without the option: on a file system in memory, in which bundles are.
    command.args(["--exec-root", "/run/docker"]);
    command.arg("--pidfile").arg(dir.join("pid"));
    let socket = format!("unix://{}", dir.join("socket").display());
    command.args(["--host", &socket, "--cgroup-parent", cgroup]);
    command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
    let mut daemon = Logged::start(command);
    daemon.wait_for("API listen on");
    daemon
}

impl CommandLine for Docker {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(find_program("docker"));
        let socket = format!("unix://{}", self.dir.join("socket").display());
        command.args(["--host", &socket]).args(arguments);
        command.env("DOCKER_CONFIG", self.dir.join("client"));
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // A failed test may have left some; dockerd would give each of them ten seconds.
        let all = self.call(&["ps", "--all", "--quiet"]).stdout;
        let all: Vec<&str> = all.lines().collect();
        if !all.is_empty() {
            self.call(&[&["rm", "--force"], &all[..]].concat());
        }
        self.daemon.terminate();
    }
}
