//! containerd: a private daemon for one test, and its client `ctr`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{IMAGE, Image, prepare, without_network};
use crate::{Cgroup, Logged, Ran, Scene, find_program};

/// A running containerd. When this value is dropped, the daemon and its containers end.
#[derive(Debug)]
pub struct Containerd {
    // Fields are dropped in order: the daemon before the cgroup with the containers.
    daemon: Logged,
    cgroup: Cgroup,
    dir: PathBuf,
}

impl Containerd {
    /// Returns the start of a `config.toml` that keeps containerd within the directory of the test. Pods keep their
    /// OOM score, because lowering it needs a capability that not every root has.
    pub fn config(scene: &Scene) -> String {
        let dir = scene.dir().join("containerd");
        let path = |name: &str| dir.join(name).display().to_string();
        format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\n[grpc]\n  address = {:?}\n\n[ttrpc]\n  address = {:?}\n\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = {IMAGE:?}\n  restrict_oom_score_adj = true\n",
            path("root"),
            path("state"),
            path("socket"),
            path("ttrpc"),
        )
    }

    /// Starts containerd with a `config.toml` that begins with [`Self::config`], and imports the image.
    ///
    /// # Panics
    /// When containerd does not become ready.
    #[track_caller]
    pub fn start(scene: &Scene, config: &Path) -> Self {
        prepare();
        let dir = scene.dir().join("containerd");
        let mut command = without_network(find_program("containerd"));
        command.arg("--config").arg(config);
        let mut daemon = Logged::start(command);
        daemon.wait_for("containerd successfully booted");
        let this = Self {
            daemon,
            cgroup: Cgroup::named(Cgroup::fresh_path()),
            dir,
        };
        let archive = Image::build(scene).archive;
        for namespace in ["default", "k8s.io"] {
            let import = ["--namespace", namespace, "images", "import"];
            this.ctr(&[&import[..], &[&archive.to_string_lossy()]].concat())
                .ok();
        }
        this
    }

    /// Returns the socket for clients.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// Returns the cgroup of the containers.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Returns a command of `ctr`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(find_program("ctr"));
        command.arg("--address").arg(self.socket()).args(arguments);
        command
    }

    /// Runs a command of `ctr` to its end.
    ///
    /// # Panics
    /// When the command cannot be started.
    #[track_caller]
    pub fn ctr(&self, arguments: &[&str]) -> Ran {
        Ran::run(&mut self.command(arguments))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // A failed test may have left containers.
        for namespace in ["default", "k8s.io"] {
            let list = |what| {
                self.ctr(&["--namespace", namespace, what, "list", "--quiet"])
                    .stdout
            };
            for task in list("tasks").lines() {
                self.ctr(&["--namespace", namespace, "tasks", "delete", "--force", task]);
            }
            for container in list("containers").lines() {
                self.ctr(&["--namespace", namespace, "containers", "delete", container]);
            }
        }
        self.daemon.terminate();
    }
}
