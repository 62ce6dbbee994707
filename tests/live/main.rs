//! Every row of docs/semantics.md, live on the cgroup v1 of this machine: what a container is shown, against what
//! the test reads from the files of the container's cgroup itself. tests/vm does the same on cgroup v2.
//!
//! Containers here keep the cgroup namespace of the host, so that a test may move them into the cgroup that it
//! wants, and the view is of that one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use support::{Cgroup, Container, Daemon, Limits, Scene};

mod clock;
mod covered;
mod cpus;
mod disks;
mod failing;
mod host;
mod identity;
mod memory;
mod network;
mod nodes;
mod options;
mod pages;
mod pressure;
mod repeated;
mod sharing;
mod source;
mod stat;
mod sysfs;
mod tunables;

/// The limits of containers that need any.
const LIMITS: Limits = Limits {
    memory: Some(256 << 20),
    swap: None,
    cpus: Some(0.5),
    cpuset: None,
};

/// The second CPU alone, all of it.
const ONE_CPU: Limits = Limits {
    memory: None,
    swap: None,
    cpus: None,
    cpuset: Some("1"),
};

/// An attached container and its surroundings, in the order in which they have to end.
#[derive(Debug)]
struct Live {
    container: Container,
    cgroup: Cgroup,
    /// In the foreground, where options are given; otherwise one in the background ends with the container.
    _daemon: Option<Daemon>,
    scene: Scene,
}

impl Live {
    /// A container in a cgroup with these limits; none where v1 has no memory controller, and these tests have
    /// nothing to compare with.
    #[track_caller]
    fn start(limits: &Limits) -> Option<Self> {
        Self::start_in(scene()?, |_| Cgroup::new(limits))
    }

    /// The same, of a daemon with options.
    #[track_caller]
    fn start_with(options: &[&str], limits: &Limits) -> Option<Self> {
        let scene = scene()?;
        let daemon = scene.daemon(options);
        let live = Self::start_in(scene, |_| Cgroup::new(limits))?;
        Some(Self {
            _daemon: Some(daemon),
            ..live
        })
    }

    /// A container in the cgroup that `make` makes.
    #[track_caller]
    fn start_in(scene: Scene, make: impl FnOnce(&Scene) -> Cgroup) -> Option<Self> {
        let cgroup = make(&scene);
        let container = scene.container().options(&["--host-cgroup"]).start();
        cgroup.add(container.pid());
        scene.attach(&container);
        Some(Self {
            container,
            cgroup,
            _daemon: None,
            scene,
        })
    }

    /// Make the container use anonymous memory and page cache. What it used before it was moved into its cgroup
    /// does not count there.
    #[track_caller]
    fn use_memory(&mut self) {
        self.container.ask(&["allocate", &(48 << 20).to_string()]);
        let output = format!("of={}", self.scene.dir().join("page-cache").display());
        let write = ["dd", "if=/dev/zero", &output, "bs=1M", "count=16"];
        self.container.busybox(&write);
        let memory = source::Memory::read(&self.cgroup);
        assert!(memory.stat("rss") >= 48 << 20, "{memory:?}");
        assert!(memory.stat("cache") >= 16 << 20, "{memory:?}");
    }

    /// What the container sees, read by the test: that takes no time and no memory of the container.
    #[track_caller]
    fn seen(&self, path: &str) -> String {
        let path = format!("/proc/{}/root{path}", self.container.pid());
        source::file(&path)
    }
}

/// The surroundings of one test.
#[track_caller]
fn scene() -> Option<Scene> {
    if source::hierarchy("memory").is_none() {
        // A choice of the machine, not something that is missing.
        #[allow(clippy::print_stderr, reason = "it says why nothing is tested")]
        {
            eprintln!("the memory controller is not one of v1: tests/vm asserts the same on v2");
        }
        return None;
    }
    Some(Scene::new(env!("CARGO_BIN_EXE_eci-fs")))
}
