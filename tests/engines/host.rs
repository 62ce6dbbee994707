//! A host on which eci-fs is installed: its programs, the daemon at its usual place, and the engines' configurations
//! as `eci-fs install` changes them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::engines::{Containerd, Docker, Podman, prepare};
use support::{Cgroup, Daemon, PATIENCE, Scene, end_within, mounts_of, try_pidfd};

/// Where the daemon is, in a /run of the test's own.
const RUNTIME_DIR: &str = "/run/eci-fs";

/// The host. Make it after the scene and before the engine.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    scene: &'a Scene,
    _daemon: Daemon,
    bin: PathBuf,
    root: PathBuf,
}

/// What is there besides containers, a line each.
#[derive(Debug)]
pub(crate) struct Left(BTreeSet<String>);

impl<'a> Host<'a> {
    #[track_caller]
    pub(crate) fn new(scene: &'a Scene) -> Self {
        prepare();
        let bin = scene.dir().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for (name, program) in [
            ("eci-fs", env!("CARGO_BIN_EXE_eci-fs")),
            ("eci-runc", env!("CARGO_BIN_EXE_eci-runc")),
        ] {
            std::os::unix::fs::symlink(program, bin.join(name)).unwrap();
        }
        let root = scene.dir().join("etc-and-usr");
        std::fs::create_dir(&root).unwrap();
        Self {
            scene,
            _daemon: scene.daemon(&["--runtime-dir", RUNTIME_DIR]),
            bin,
            root,
        }
    }

    /// The path of a program of ours.
    pub(crate) fn program(&self, name: &str) -> String {
        self.bin.join(name).display().to_string()
    }

    /// Install eci-fs into an engine's configuration, and say where that is.
    #[track_caller]
    pub(crate) fn install(&self, engine: &str, options: &[&str]) -> PathBuf {
        let (bin, root) = (self.bin.to_string_lossy(), self.root.to_string_lossy());
        let install = [
            "install",
            "--engine",
            engine,
            "--bin-dir",
            &bin,
            "--root",
            &root,
        ];
        self.scene.eci_fs(&[&install, options].concat()).ok();
        self.root.clone()
    }

    /// A docker with our runtime.
    #[track_caller]
    pub(crate) fn docker(&self, options: &[&str]) -> Docker {
        let file = self
            .install("docker", options)
            .join("etc/docker/daemon.json");
        let config = std::fs::read_to_string(file).unwrap();
        Docker::start(self.scene, &serde_json::from_str(&config).unwrap())
    }

    /// A podman with our hooks.
    #[track_caller]
    pub(crate) fn podman(&self) -> Podman {
        let hooks = "usr/share/containers/oci/hooks.d";
        let hooks = self.install("podman", &[]).join(hooks);
        Podman::start(self.scene, Some(&hooks))
    }

    /// A containerd with our runtime.
    #[track_caller]
    pub(crate) fn containerd(&self, options: &[&str]) -> Containerd {
        self.containerd_with(options, "")
    }

    /// The same, whose configuration has more lines.
    #[track_caller]
    pub(crate) fn containerd_with(&self, options: &[&str], more: &str) -> Containerd {
        let config = self.root.join("etc/containerd/config.toml");
        std::fs::create_dir_all(config.parent().unwrap()).unwrap();
        let text = Containerd::config(self.scene) + more;
        std::fs::write(&config, text).unwrap();
        self.install("containerd", options);
        Containerd::start(self.scene, &config)
    }

    /// The attached containers.
    #[track_caller]
    pub(crate) fn attached(&self) -> Vec<Value> {
        let list = ["list", "--json", "--runtime-dir", RUNTIME_DIR];
        serde_json::from_str(&self.scene.eci_fs(&list).ok()).unwrap()
    }

    /// Assert that what was there `before` is there now, and nothing else.
    #[track_caller]
    pub(crate) fn is_as(&self, before: &Left, cgroup: &Cgroup, what: &str) {
        let now = self.left(cgroup);
        let more: Vec<_> = now.0.difference(&before.0).collect();
        let less: Vec<_> = before.0.difference(&now.0).collect();
        assert!(
            more.is_empty() && less.is_empty(),
            "{what}: left {more:#?}, gone {less:#?}"
        );
    }

    /// What is there now that no container runs, to be compared with what is there later.
    #[track_caller]
    pub(crate) fn left(&self, cgroup: &Cgroup) -> Left {
        // Monitors of containers end a little after them.
        while let Some(pid) = cgroup.processes().first() {
            if try_pidfd(*pid).is_some_and(|pidfd| !end_within(&pidfd, PATIENCE)) {
                break;
            }
        }
        // Podman binds its storage to itself, and takes that away at one of its next commands.
        let of_podman = |line: &String| line.contains("/podman/root/overlay ");
        let mounts = mounts_of("thread-self").into_iter();
        let mounts = mounts.filter(|line| !of_podman(line));
        let cgroups = cgroup.dirs().into_iter().flat_map(|dir| below(&dir));
        let processes = cgroup.processes().into_iter();
        let attached = self.attached().into_iter();
        let all = mounts
            .map(|line| format!("mount {}", without_id(&line)))
            .chain(cgroups.map(|dir| format!("cgroup {}", dir.display())))
            .chain(processes.map(|pid| format!("process {pid}")))
            .chain(attached.map(|container| format!("attached {container}")));
        Left(all.collect())
    }
}

/// A mount without the number that is new whenever it is mounted again.
fn without_id(line: &str) -> &str {
    line.splitn(3, ' ').nth(2).unwrap_or_default()
}

/// The cgroups in a cgroup.
fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .flat_map(|path| below(&path).into_iter().chain([path]))
        .collect()
}
