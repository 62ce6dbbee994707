//! The containers: each with limits of its own, so that every text tells whose it is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use eci_fs_emulators::{DIRECTORIES, EMULATORS, Pace};
use nix::sched::{CloneFlags, setns, unshare};
use parking_lot::Mutex;
use support::{Container, Limits, Scene, cpu_list};

use crate::judge::{Known, Numbers, judge, judge_static};

/// A file that each container writes its own number to.
pub(crate) const TUNABLE: &str = "/proc/sys/vm/max_map_count";

/// The most digits by which the numbers of a cached view can grow together in a run.
const MOST_DIGITS: usize = 64;

/// Files of directory grafts that are the container's own, by the ends of their paths. The others are the kernel's,
/// and may change.
const COMPUTED: [&str; 12] = [
    "/online",
    "/offline",
    "/possible",
    "/present",
    "/has_cpu",
    "/has_memory",
    "/topology/core_cpus_list",
    "/topology/thread_siblings_list",
    "/shared_cpu_list",
    "/cpulist",
    "/cpumap",
    "/meminfo",
];

/// A container as the readers see it.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its number, for messages.
    pub(crate) number: usize,
    pub(crate) namespace: File,
    pub(crate) files: Vec<Seen>,
    /// Directories, and the names in them.
    pub(crate) directories: Vec<(String, Vec<String>)>,
    /// Whether it has a cgroup of v2 that is its own, and with that pressure.
    pub(crate) pressure: bool,
    known: Known,
    began: Instant,
}

/// A file, and what was seen of it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    first: String,
    last: Mutex<BTreeMap<String, u64>>,
}

impl Seen {
    /// About half of it.
    pub(crate) fn half(&self) -> usize {
        self.first.len() / 2
    }

    /// How many bytes are read at a time where they are few: of a live view each read is a request to the server,
    /// of thousands of which nothing else would be left to see.
    pub(crate) fn piece(&self) -> usize {
        let live = self.kind == Kind::Live || self.path.starts_with("/sys/");
        if live { 1 + self.first.len() / 32 } else { 1 }
    }
}

/// How the content of a file behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It never changes.
    Static,
    /// It changes with time, on the cached connection.
    Cached,
    /// It changes with time, on the live connection.
    Live,
}

/// Start the containers and attach them. Those of `Container` are to be dropped before the scene.
#[track_caller]
pub(crate) fn start(scene: &Scene, count: usize) -> Vec<(Container, Instant)> {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    assert!(
        cpu_list(&online).starts_with(&[0, 1]),
        "this test needs CPUs 0 and 1: by them it tells containers apart"
    );
    (0..count)
        .map(|number| {
            let began = Instant::now();
            let (cpuset, cpus) = cpus(number);
            let limits = Limits {
                memory: Some(memory(number)),
                swap: None,
                cpus,
                cpuset: Some(cpuset),
            };
            let mut builder = scene.container().limits(limits);
            builder = match number % 5 {
                // Where v2 is mounted beside v1, the view is of the cgroup that it is in on the host.
                3 => builder.options(&["--host-cgroup"]),
                4 => builder.user_namespace(true),
                _ => builder,
            };
            let container = builder.start();
            if number % 5 == 3 {
                join_unified(&container);
            }
            scene.attach(&container);
            (container, began)
        })
        .collect()
}

/// Bytes that no other container has.
fn memory(number: usize) -> u64 {
    (64 + number as u64) << 20
}

/// The cpuset and the quota.
fn cpus(number: usize) -> (&'static str, Option<f64>) {
    match number % 4 {
        0 => ("0", None),
        1 => ("1", None),
        2 => ("0-1", None),
        _ => ("0-1", Some(0.5)),
    }
}

/// Give it a cgroup of v2 where v2 has no controller that any limit needs, and thus none was made.
pub(crate) fn join_unified(container: &Container) {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if !unified.join("cgroup.procs").exists() {
        return;
    }
    let dir = unified.join(container.cgroup().path().trim_start_matches('/'));
    if !dir.exists() {
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cgroup.procs"), container.pid().to_string()).unwrap();
    }
}

impl Member {
    /// Look at an attached container, through its mount namespace: on a thread of its own, which stays there.
    #[track_caller]
    pub(crate) fn look(number: usize, container: &Container, began: Instant) -> Self {
        std::thread::scope(|scope| {
            let looked = scope.spawn(|| {
                unshare(CloneFlags::CLONE_FS).unwrap();
                Self::new(number, container, began)
            });
            looked.join().unwrap()
        })
    }

    #[track_caller]
    fn new(number: usize, container: &Container, began: Instant) -> Self {
        let namespace = File::open(format!("/proc/{}/ns/mnt", container.pid())).unwrap();
        let (cpuset, quota) = cpus(number);
        let mut cpus = cpu_list(cpuset);
        cpus.truncate(quota.map_or(cpus.len(), |quota| quota.ceil() as usize));
        let own = |dir: &std::path::PathBuf| dir.join("cpu.pressure").exists();
        let mut this = Self {
            number,
            namespace,
            files: Vec::new(),
            directories: Vec::new(),
            pressure: container.cgroup().dirs().iter().any(own)
                && Path::new("/proc/pressure").exists(),
            known: Known {
                memory_kib: memory(number) >> 10,
                cpus,
                age: 0,
            },
            began,
        };
        let grafts = container.grafts();
        this.enter().unwrap();
        fs::write(TUNABLE, this.tuned()).unwrap();
        for path in grafts {
            let emulator = EMULATORS.iter().find(|other| other.facts().path == path);
            if let Some(emulator) = emulator {
                // There are views that are only written to.
                if emulator.facts().mode & 0o444 != 0 {
                    this.add_file(path);
                }
            } else {
                let is_directory =
                    |path: &str| DIRECTORIES.iter().any(|dir| dir.facts().path == path);
                // What the files say that are grafted one by one is checked in tests/live.
                let mut by_file = DIRECTORIES.iter().filter(|dir| dir.is_by_file());
                let is_single = by_file.any(|dir| Path::new(&path).starts_with(dir.facts().path));
                if is_single && !is_directory(&path) {
                    continue;
                }
                assert!(is_directory(&path), "{path} is grafted, and no view");
                this.add_directory(path, 3);
            }
        }
        this
    }

    #[track_caller]
    fn add_file(&mut self, path: String) {
        let first = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => panic!("container {}: {path}: {error}", self.number),
        };
        let emulator = EMULATORS.iter().find(|other| other.facts().path == path);
        // Each connection is a device; this view is cached on any machine.
        let cached = device(&path) == device("/proc/uptime");
        let ticking = match emulator {
            Some(emulator) => emulator.facts().pace != Pace::Static,
            None => path.ends_with("/meminfo"),
        };
        let kind = match (ticking, cached) {
            (false, _) => Kind::Static,
            (true, true) => Kind::Cached,
            (true, false) => Kind::Live,
        };
        if let Err(why) = judge_static(&path, &first, &self.known) {
            panic!("container {}: {path}: {why}: {first}", self.number);
        }
        self.files.push(Seen {
            path,
            kind,
            first,
            last: Mutex::default(),
        });
    }

    #[track_caller]
    fn add_directory(&mut self, path: String, depth: u32) {
        let names = list(&path).unwrap();
        for name in &names {
            let below = format!("{path}/{name}");
            let Ok(metadata) = fs::symlink_metadata(&below) else {
                continue;
            };
            if metadata.is_dir() && depth > 0 {
                self.add_directory(below, depth - 1);
            } else if metadata.is_file() && COMPUTED.iter().any(|end| below.ends_with(end)) {
                let known = self.files.iter().any(|file| file.path == below);
                if !known && EMULATORS.iter().all(|other| other.facts().path != below) {
                    self.add_file(below);
                }
            }
        }
        self.directories.push((path, names));
    }

    /// What it writes to [`TUNABLE`], and no other container.
    pub(crate) fn tuned(&self) -> String {
        format!("{}\n", 1000 + self.number)
    }

    /// Go into its mount namespace with the calling thread, which shares its root with no other.
    pub(crate) fn enter(&self) -> nix::Result<()> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNS)
    }

    /// The counters of a file before it is read: none may be seen lower by whoever begins now.
    pub(crate) fn floors(&self, file: &Seen) -> BTreeMap<String, u64> {
        file.last.lock().clone()
    }

    /// Judge a text of one version.
    pub(crate) fn judge(
        &self,
        file: &Seen,
        text: &str,
        floors: &BTreeMap<String, u64>,
    ) -> Result<(), String> {
        if file.kind == Kind::Static {
            return if text == file.first {
                Ok(())
            } else {
                Err(format!("it was {:.200?}", file.first))
            };
        }
        let mut known = self.known.clone();
        known.age = u64::try_from(self.began.elapsed().as_millis() / 10 + 1).unwrap_or(u64::MAX);
        let Numbers {
            counters,
            constants,
        } = judge(&file.path, text, &file.first, &known)?;
        // When its size changes, a cached view may have an empty line at its end.
        let form = |text: &str| support::form(text.trim_end_matches('\n'));
        if file.kind == Kind::Cached && form(text) != form(&file.first) {
            return Err(format!("another form than {:.200?}", file.first));
        }
        for (name, value) in counters.iter().chain(&constants) {
            let floor = floors.get(name).copied().unwrap_or(0);
            if *value < floor {
                return Err(format!("{name} fell from {floor} to {value}"));
            }
        }
        let mut last = file.last.lock();
        for (name, value) in counters {
            let entry = last.entry(name).or_default();
            *entry = value.max(*entry);
        }
        for (name, value) in constants {
            let entry = *last.entry(name.clone()).or_insert(value);
            if entry != value {
                return Err(format!("{name} was {entry} and is {value}"));
            }
        }
        Ok(())
    }

    /// What can be judged of a pass in small reads that has seen two versions. Where their sizes differ, a line of the one
    /// may go on in the other one at another place.
    pub(crate) fn judge_mixed(&self, file: &Seen, text: &str) -> Result<(), String> {
        let meminfo = file.path.ends_with("/meminfo");
        let before = file.first.len();
        let apart = if meminfo { 0 } else { MOST_DIGITS };
        if text.len().abs_diff(before) > apart || !text.ends_with('\n') {
            return Err(format!("{} bytes, which were {before}", text.len()));
        }
        if meminfo && !text.contains(&format!("{} kB", self.known.memory_kib)) {
            return Err("another container's".to_owned());
        }
        if text.contains('\0') {
            return Err("there is a NUL".to_owned());
        }
        Ok(())
    }
}

#[track_caller]
fn device(path: &str) -> u64 {
    fs::metadata(path).unwrap().dev()
}

/// The sorted names in a directory.
pub(crate) fn list(path: &str) -> std::io::Result<Vec<String>> {
    let mut names = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}
