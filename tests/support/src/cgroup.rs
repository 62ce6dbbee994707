//! Cgroups with limits, in all hierarchies of the host.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::{kill, mounts_of};

/// The period of every quota, in microseconds.
const PERIOD_USEC: u64 = 100_000;

/// The controllers that a limit or a view needs.
const WANTED: [&str; 5] = ["memory", "cpu", "cpuacct", "cpuset", "pids"];

/// The limits of a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of swap on top of the memory.
    pub swap: Option<u64>,
    /// CPU time, in CPUs.
    pub cpus: Option<f64>,
    /// The CPUs to run on.
    pub cpuset: Option<&'static str>,
}

/// The cgroups of one path, one in each hierarchy. When this value is dropped, they are removed and their processes
/// are killed.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
    hierarchies: Vec<Hierarchy>,
}

/// A mounted hierarchy.
#[derive(Debug, Clone)]
struct Hierarchy {
    version: u8,
    controllers: Vec<String>,
    top: PathBuf,
}

impl Cgroup {
    /// Makes cgroups with a unique name.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn new(limits: &Limits) -> Self {
        let this = Self::named(Self::fresh_path());
        this.create();
        this.limit(limits);
        this
    }

    /// Returns the cgroups of a path that an engine will make.
    pub fn named(path: String) -> Self {
        Self {
            path,
            hierarchies: hierarchies(),
        }
    }

    /// Returns a unique path directly below the roots, so that no limit of the caller's own cgroup applies.
    pub fn fresh_path() -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Pids are not unique across pid namespaces, so the name has a random number too.
        static RANDOM: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        format!("/eci-test-{}-{count}-{:x}", std::process::id(), *RANDOM)
    }

    /// Returns its path in every hierarchy.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Makes cgroups below these.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn child(&self, name: &str, limits: &Limits) -> Self {
        let child = Self::named(format!("{}/{name}", self.path));
        child.create();
        child.limit(limits);
        child
    }

    #[track_caller]
    fn create(&self) {
        for hierarchy in self.wanted() {
            let dir = hierarchy.dir(&self.path);
            if hierarchy.version == 2
                && let Some(parent) = dir.parent()
            {
                for controller in hierarchy
                    .controllers
                    .iter()
                    .filter(|c| WANTED.contains(&c.as_str()))
                {
                    // The kernel refuses this while the parent has processes. A limit that needs the controller then
                    // fails.
                    let _ = fs::write(
                        parent.join("cgroup.subtree_control"),
                        format!("+{controller}"),
                    );
                }
            }
            if let Err(error) = fs::create_dir(&dir) {
                panic!("the cgroup {} cannot be made: {error}", dir.display());
            }
            // A new v1 cpuset is empty, and takes no process.
            if hierarchy.version == 1 && hierarchy.has("cpuset") {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let text = fs::read_to_string(dir.with_file_name(file));
                    write(&dir.join(file), text.unwrap_or_default().trim());
                }
            }
        }
    }

    /// Sets or changes limits.
    ///
    /// # Panics
    /// When the kernel refuses, or lacks the controller.
    #[track_caller]
    pub fn limit(&self, limits: &Limits) {
        if let Some(bytes) = limits.memory {
            let swap = limits.swap.map(|swap| (bytes + swap).to_string());
            match self.of("memory") {
                (1, dir) => {
                    write(&dir.join("memory.limit_in_bytes"), &bytes.to_string());
                    if let Some(sum) = swap {
                        write(&dir.join("memory.memsw.limit_in_bytes"), &sum);
                    }
                }
                (_, dir) => {
                    write(&dir.join("memory.max"), &bytes.to_string());
                    if let Some(swap) = limits.swap {
                        write(&dir.join("memory.swap.max"), &swap.to_string());
                    }
                }
            }
        }
        if let Some(cpus) = limits.cpus {
            let quota = quota_usec(cpus);
            match self.of("cpu") {
                (1, dir) => {
                    write(&dir.join("cpu.cfs_period_us"), &PERIOD_USEC.to_string());
                    write(&dir.join("cpu.cfs_quota_us"), &quota.to_string());
                }
                (_, dir) => write(&dir.join("cpu.max"), &format!("{quota} {PERIOD_USEC}")),
            }
        }
        if let Some(cpus) = limits.cpuset {
            write(&self.of("cpuset").1.join("cpuset.cpus"), cpus);
        }
    }

    /// Puts a process into all cgroups.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn add(&self, pid: u32) {
        for hierarchy in self.wanted() {
            let dir = hierarchy.dir(&self.path);
            write(&dir.join("cgroup.procs"), &pid.to_string());
        }
    }

    /// Returns the pids of the processes in these cgroups.
    pub fn processes(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self
            .hierarchies
            .iter()
            .flat_map(|hierarchy| processes_below(&hierarchy.dir(&self.path)))
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Returns the directories of the cgroups that exist.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let dirs = self
            .hierarchies
            .iter()
            .map(|hierarchy| hierarchy.dir(&self.path));
        dirs.filter(|dir| dir.is_dir()).collect()
    }

    fn wanted(&self) -> impl Iterator<Item = &Hierarchy> {
        let wanted = |hierarchy: &&Hierarchy| WANTED.iter().any(|name| hierarchy.has(name));
        self.hierarchies.iter().filter(wanted)
    }

    #[track_caller]
    fn of(&self, controller: &str) -> (u8, PathBuf) {
        match self.hierarchies.iter().find(|h| h.has(controller)) {
            Some(hierarchy) => (hierarchy.version, hierarchy.dir(&self.path)),
            None => panic!("this machine has no {controller} controller: mount its cgroups"),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid);
        }
        let failed: Vec<String> = self
            .dirs()
            .iter()
            .filter_map(|dir| {
                remove(dir)
                    .err()
                    .map(|error| format!("{}: {error}", dir.display()))
            })
            .collect();
        if !std::thread::panicking() {
            assert!(failed.is_empty(), "cgroups stay behind: {failed:?}");
        }
    }
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    fn dir(&self, path: &str) -> PathBuf {
        self.top.join(path.trim_start_matches('/'))
    }
}

/// Returns the quota for a number of CPUs, in microseconds.
pub(crate) fn quota_usec(cpus: f64) -> u64 {
    (cpus * PERIOD_USEC as f64) as u64
}

/// Returns the mount point of v2 if both v1 and v2 are mounted.
pub(crate) fn hybrid() -> Option<PathBuf> {
    let all = hierarchies();
    let v2 = all.iter().find(|hierarchy| hierarchy.version == 2)?;
    let v1 = all.iter().any(|hierarchy| hierarchy.version == 1);
    v1.then(|| v2.top.clone())
}

/// Returns all mounted hierarchies, including the named ones.
fn hierarchies() -> Vec<Hierarchy> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut all: Vec<Hierarchy> = Vec::new();
    for line in mounts_of("thread-self") {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (left, right) = (words(left), words(right));
        let (root, top) = (&left[3], PathBuf::from(&left[4]));
        let (version, controllers) = match right[0].as_str() {
            "cgroup" => (1, right[2].split(',').map(str::to_owned).collect()),
            "cgroup2" => {
                let text = fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
                (2, words(text.trim()))
            }
            _ => continue,
        };
        if root == "/" && !all.iter().any(|known| known.top == top) {
            all.push(Hierarchy {
                version,
                controllers,
                top,
            });
        }
    }
    all
}

fn processes_below(dir: &Path) -> Vec<u32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().filter_map(|line| line.parse().ok());
    own.chain(
        children(dir)
            .iter()
            .flat_map(|child| processes_below(child)),
    )
    .collect()
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove(dir: &Path) -> std::io::Result<()> {
    children(dir).iter().try_for_each(|child| remove(child))?;
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[track_caller]
fn write(path: &Path, text: &str) {
    if let Err(error) = fs::write(path, text) {
        panic!("{text:?} cannot be written to {}: {error}", path.display());
    }
}
