//! Docker: a private dockerd for one test, and its client.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{CommandLine, Image, prepare, without_network, write};
use crate::process::kill;
use crate::{Cgroup, Logged, Scene, children_of, find_program, reap};

/// A running dockerd. When this value is dropped, the daemon and its containers end.
#[derive(Debug)]
pub struct Docker {
    // Fields are dropped in order: the daemon before the cgroup with the containers.
    daemon: Logged,
    cgroup: Cgroup,
    dir: PathBuf,
}

impl Docker {
    /// Starts dockerd with this `daemon.json`, and loads the image.
    ///
    /// # Panics
    /// When dockerd does not become ready.
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

    /// Ends the daemon as a service manager does, and starts it again.
    ///
    /// # Panics
    /// When dockerd does not end, or does not become ready.
    #[track_caller]
    pub fn restart(&mut self) {
        self.daemon.terminate();
        self.daemon = daemon(&self.dir, self.cgroup.path());
    }

    /// Kills the daemon, and its containerd with it, and starts it again.
    ///
    /// # Panics
    /// When dockerd does not become ready.
    #[track_caller]
    pub fn crash(&mut self) {
        let containerd = children_of(self.pid());
        self.daemon.kill();
        // Its own containerd ends with it. While nobody has waited for that, the next dockerd takes it for a living one.
        containerd.into_iter().for_each(reap);
        self.daemon = daemon(&self.dir, self.cgroup.path());
    }

    /// Returns the cgroup of the containers.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Returns the pid of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Returns the lines of the daemon's log so far.
    pub fn log(&mut self) -> &[String] {
        self.daemon.log_lines()
    }
}

/// Starts dockerd and waits until it is ready.
#[track_caller]
fn daemon(dir: &Path, cgroup: &str) -> Logged {
    let mut command = without_network(find_program("dockerd"));
    command.arg("--config-file").arg(dir.join("daemon.json"));
    command.arg("--data-root").arg(dir.join("data"));
    // This is the default directory: it is in a tmpfs, and holds the bundles.
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
        // A failed test may have left containers. dockerd would give each of them ten seconds to end.
        let all = self.call(&["ps", "--all", "--quiet"]).stdout;
        let all: Vec<&str> = all.lines().collect();
        if !all.is_empty() {
            self.call(&[&["rm", "--force"], &all[..]].concat());
        }
        self.daemon.terminate();
        end_shims();
    }
}

/// Ends the shims of this test, which has a mount namespace of its own. containerd ends that of a container that could not be
/// started a moment after the client hears of it, and not at all if it is ended itself meanwhile.
fn end_shims() {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let own = namespace("thread-self");
    for process in procfs::process::all_processes().into_iter().flatten() {
        let Ok(process) = process else { continue };
        let is_shim = (process.stat()).is_ok_and(|stat| stat.comm.starts_with("containerd-shim"));
        let pid = process.pid();
        if is_shim && own.is_some() && namespace(&pid.to_string()) == own {
            kill(pid.unsigned_abs());
        }
    }
}
