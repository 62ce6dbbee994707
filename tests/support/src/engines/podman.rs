//! Podman, which has no daemon. Its directories and its configuration belong to the test.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{CommandLine, Image, mount_over, prepare, without_network, write};
use crate::{Cgroup, Ran, Scene, find_program};

/// The host ids for `--userns=auto`.
const IDS: &str = "containers:200000:1000000\n";

/// Podman with its own storage. Its containers end when this value is dropped.
#[derive(Debug)]
pub struct Podman {
    cgroup: Cgroup,
    dir: PathBuf,
    hooks: Option<PathBuf>,
    global: Vec<String>,
    network: Option<PathBuf>,
}

impl Podman {
    /// Makes the directories, and loads the image. `hooks` is the directory of hooks.
    ///
    /// # Panics
    /// When podman fails.
    #[track_caller]
    pub fn start(scene: &Scene, hooks: Option<&Path>) -> Self {
        prepare();
        let dir = scene.dir().join("podman");
        // The host's files of ids stay unchanged; the mount namespace of the test gets others.
        for file in ["/etc/subuid", "/etc/subgid"] {
            let ours = dir.join(file.trim_start_matches('/'));
            write(&ours, IDS);
            mount_over(file.as_ref(), &ours.to_string_lossy(), None);
        }
        let this = Self {
            cgroup: Cgroup::named(Cgroup::fresh_path()),
            dir,
            hooks: hooks.map(Path::to_owned),
            global: Vec::new(),
            network: None,
        };
        let archive = Image::build(scene).archive;
        let archive = archive.to_string_lossy();
        this.call(&["load", "--quiet", "--input", &archive]).ok();
        this
    }

    /// Returns the cgroup of the containers.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Adds options before the subcommand, to all later calls.
    #[must_use]
    pub fn with(mut self, options: &[&str]) -> Self {
        self.global
            .extend(options.iter().copied().map(str::to_owned));
        self
    }

    /// Gives podman a network namespace that lasts from call to call, and its containers the networks that it makes. Returns
    /// also where it is mounted.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    #[must_use]
    pub fn with_network(mut self) -> (Self, PathBuf) {
        let path = self.dir.join("host-network");
        write(&path, "");
        let mut unshare = Command::new(find_program("unshare"));
        unshare.arg(format!("--net={}", path.display()));
        Ran::run(unshare.args(["ip", "link", "set", "lo", "up"])).ok();
        self.network = Some(path.clone());
        (self, path)
    }

    /// Sets the directory of hooks, or none. Returns the old one.
    pub fn hooks(&mut self, hooks: Option<&Path>) -> Option<PathBuf> {
        std::mem::replace(&mut self.hooks, hooks.map(Path::to_owned))
    }
}

impl CommandLine for Podman {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.network {
            None => without_network(find_program("podman")),
            Some(path) => {
                let mut command = Command::new(find_program("nsenter"));
                command.arg(format!("--net={}", path.display()));
                command.arg(find_program("podman"));
                command
            }
        };
        for (option, name) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(option).arg(self.dir.join(name));
        }
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        if let Some(hooks) = &self.hooks {
            command.arg("--hooks-dir").arg(hooks);
        }
        command.args(&self.global).args(arguments);
        command
    }

    fn run_options(&self) -> Vec<String> {
        // By default podman raises limits, which needs a capability that not every root has.
        let mut options = vec![
            "--ulimit=nofile=1024:4096".to_owned(),
            "--ulimit=nproc=4096:4096".to_owned(),
            format!("--cgroup-parent={}", self.cgroup.path()),
        ];
        if self.network.is_none() {
            options.push("--network=none".to_owned());
        }
        options
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.call(&["rm", "--all", "--force", "--time", "0"]);
        if let Some(path) = &self.network {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}
