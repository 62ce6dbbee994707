//! containerd: a daemon of the test's own, and `ctr`, which speaks to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{IMAGE, Image, prepare, without_network};
use crate::{Cgroup, Logged, Ran, Scene, find_program};

/// A running containerd. It is ended with the value, and its containers with it.
#[derive(Debug)]
pub struct Containerd {
    // Before the cgroup, in which the containers are.
    daemon: Logged,
    cgroup: Cgroup,
    dir: PathBuf,
}

impl Containerd {
    /// What a `config.toml` has to say for containerd to be the test's own. Pods keep to the badness that they have:
    /// a lower one takes a capability that not every root has.
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

    /// Start one with a `config.toml` that begins with [`Self::config`], and import the image.
    ///
    /// # Panics
    /// When it does not become ready.
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

    /// The socket that clients speak to.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// The cgroup that containers are in.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// A command of `ctr`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(find_program("ctr"));
        command.arg("--address").arg(self.socket()).args(arguments);
        command
    }

    /// Run a command of `ctr` to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn ctr(&self, arguments: &[&str]) -> Ran {
        Ran::run(&mut self.command(arguments))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // What a failed test has left.
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
