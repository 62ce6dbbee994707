//! The hostile container.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, setpriority_process};
use serde_json::Value;
use support::{Container, Limits, Ran, Scene, children_of};

use crate::prefer::own_cgroup;

/// The limits of the attacker, and of the control, which is in the same container.
const LIMITS: Limits = Limits {
    memory: Some(2 << 30),
    swap: None,
    cpus: Some(0.5),
    cpuset: None,
};

/// Processes and threads beside those that attack: pid 1, and the main thread of the attacker.
const OTHERS: usize = 16;

/// The user on the host that is root in the container.
const ROOT: u32 = 100_000;

/// The files of its own limit of memory, of cgroups v1 and v2.
const MEMORY_LIMITS: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];

/// The file of the quota of a cgroup of v1.
const QUOTA: &str = "cpu.cfs_quota_us";

/// What an attack needs in its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing.
    Nothing,
    /// This number of devices in its network namespace.
    Devices(usize),
    /// Its cgroup may be written to by its root.
    OwnLimit,
}

/// A container whose threads all do the same.
#[derive(Debug)]
pub(crate) struct Attacker {
    container: Container,
    /// The CPU time of its threads up to the last rest.
    used_usec: u64,
}

/// What the threads did between two rests.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) number: u64,
    pub(crate) errors: Value,
    pub(crate) cpu_usec: u64,
    pub(crate) rested: bool,
}

impl Attacker {
    /// Starts the container and its threads, which rest, and attaches it.
    ///
    /// # Panics
    /// When any of that fails.
    #[track_caller]
    pub(crate) fn start(scene: &Scene, attack: &str, threads: usize, needs: Needs) -> Self {
        let builder = scene.container().limits(LIMITS).user_namespace(true);
        let mut container = builder.options(&["--network", "--host-cgroup"]).start();
        limit_threads(&container, threads + OTHERS);
        join_unified(&container);
        let argument = match needs {
            Needs::Nothing => String::new(),
            Needs::Devices(count) => {
                make_devices(scene, &container, count);
                count.to_string()
            }
            Needs::OwnLimit => give_limit(&container).display().to_string(),
        };
        scene.attach(&container);
        let program = container.program("probe");
        let threads = threads.to_string();
        prioritise(container.pid(), 0);
        container.ask(&[
            "start", "attack", &program, "attack", attack, &threads, &argument,
        ]);
        // The threads that hear the commands are not to wait for thousands of others.
        for pid in children_of(container.pid()) {
            prefer_over_others(&container, pid);
        }
        prefer_over_others(&container, container.pid());
        Self {
            container,
            used_usec: 0,
        }
    }

    /// Returns the container.
    pub(crate) fn container(&self) -> &Container {
        &self.container
    }

    /// Has all threads do something: "control" or "attack".
    #[track_caller]
    pub(crate) fn begin(&mut self, what: &str) {
        self.container.ask(&["tell", "attack", what]);
    }

    /// Has all threads rest, and returns what they did.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Done {
        let answer = self.container.ask(&["tell", "attack", "rest"]);
        let answer = &answer["ok"];
        let used_usec = answer["cpu_us"].as_u64().unwrap();
        let before = std::mem::replace(&mut self.used_usec, used_usec);
        Done {
            number: answer["done"].as_u64().unwrap(),
            errors: answer["errors"].clone(),
            cpu_usec: used_usec - before,
            rested: answer["rested"].as_bool().unwrap(),
        }
    }
}

#[track_caller]
fn prioritise(pid: u32, priority: i32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    setpriority_process(pid, priority).unwrap();
}

/// Has a thread of the container run before the others. Where threads have cgroups of their own (v1), it is freed of the
/// container's quota too: Linux 6.18 gives a thread with a high priority next to nothing of a quota that a thousand
/// others have used up, 37 ms in ten minutes.
#[track_caller]
fn prefer_over_others(container: &Container, thread: u32) {
    prioritise(thread, -20);
    let dirs = container.cgroup().dirs();
    if let Some(dir) = dirs.iter().find(|dir| dir.join(QUOTA).exists()) {
        let free = own_cgroup(dir.parent().unwrap()).join("tasks");
        fs::write(free, thread.to_string()).unwrap();
    }
}

#[track_caller]
fn limit_threads(container: &Container, most: usize) {
    let dirs = container.cgroup().dirs();
    let dir = dirs.iter().find(|dir| dir.join("pids.max").exists());
    let dir = dir.expect("a pids controller");
    fs::write(dir.join("pids.max"), most.to_string()).unwrap();
}

/// Gives it a cgroup of v2 where v2 is mounted beside v1, so that it has pressure of its own.
#[track_caller]
fn join_unified(container: &Container) {
    let unified = Path::new("/sys/fs/cgroup/unified");
    let dir = unified.join(container.cgroup().path().trim_start_matches('/'));
    if unified.join("cgroup.procs").exists() && !dir.exists() {
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cgroup.procs"), container.pid().to_string()).unwrap();
    }
}

#[track_caller]
fn make_devices(scene: &Scene, container: &Container, count: usize) {
    let batch = scene.dir().join("devices");
    let lines = (0..count).map(|index| format!("link add d{index} type ifb\n"));
    fs::write(&batch, lines.collect::<String>()).unwrap();
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--net", "--target", &container.pid().to_string()]);
    nsenter.args(["ip", "-batch"]).arg(&batch);
    Ran::run(&mut nsenter).ok();
}

/// Lets root of the container write the container's limit of memory, as an engine may. Returns the file.
#[track_caller]
fn give_limit(container: &Container) -> PathBuf {
    let dirs = container.cgroup().dirs();
    let files = dirs
        .iter()
        .flat_map(|dir| MEMORY_LIMITS.map(|file| dir.join(file)));
    let file = files.into_iter().find(|file| file.exists());
    let file = file.expect("a memory controller");
    chown(&file, Some(ROOT), Some(ROOT)).unwrap();
    file
}
