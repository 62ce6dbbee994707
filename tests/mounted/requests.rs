//! The cost of a refreshed read for the server: its system calls, counted by strace.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};
use support::{Signal, find_program, let_time_pass};

use crate::{LIMITS, scene};

/// Reads that are counted.
const READS: usize = 40;

/// The freshness of a daemon without options.
const FRESHNESS: Duration = Duration::from_millis(10);

/// More than that and the jiffy that the kernel rounds it up by.
const SILENCE: Duration = Duration::from_millis(30);

/// The cgroup files that /proc/meminfo needs of a container whose cgroup lies directly below the root: five on v1 and
/// five on v2 (`read_usage` in emulators/src/cgroup/v1/memory.rs and v2/memory.rs): usage, usage of swap, statistics,
/// and the two limits. On a machine that has huge pages there are the limit and the usage of these, too.
const NEEDED: [[&str; 5]; 2] = [
    [
        "memory.usage_in_bytes",
        "memory.memsw.usage_in_bytes",
        "memory.stat",
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
    ],
    [
        "memory.current",
        "memory.swap.current",
        "memory.stat",
        "memory.max",
        "memory.swap.max",
    ],
];

/// What is read of the machine, once a tick for all containers.
const MACHINE: [&str; 2] = ["meminfo", "overcommit_ratio"];

/// A strace of a process with all its threads. It lets go of them when it is dropped.
struct Trace {
    child: Child,
    /// What else it says: it would end if nobody listened any more.
    _said: BufReader<ChildStderr>,
}

impl Trace {
    /// Returns when all threads are traced.
    fn start(pid: u32, log: &Path) -> Self {
        let mut command = Command::new(find_program("strace"));
        command
            // The paths of descriptors, and no strings.
            .args(["--follow-forks", "--decode-fds=path", "--string-limit=0"])
            .arg("--attach")
            .arg(pid.to_string())
            .arg("--output")
            .arg(log)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let this = Self { child, _said: said };
        assert!(
            first.contains(" attached"),
            "this test needs CAP_SYS_PTRACE: {first}"
        );
        this
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It fails only when strace has ended.
        let _ = pid.map(|pid| kill_process(pid, Signal::INT));
        let _ = self.child.wait();
    }
}

/// How often each system call began, by its name and the last name in the path of its descriptor.
fn count(log: &str) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for line in log.lines() {
        let Some((_, call)) = line.trim_start().split_once(' ') else {
            continue;
        };
        // Neither signals nor ends of calls, which have been counted at their beginning.
        let Some((name, arguments)) = call.trim_start().split_once('(') else {
            continue;
        };
        if name.contains(['<', '-', '+']) {
            continue;
        }
        let path = arguments
            .split_once('<')
            .filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|(_, rest)| rest.split_once('>'))
            .map_or("", |(path, _)| path);
        let file = path.rsplit('/').next().unwrap_or_default();
        *counts
            .entry((name.to_owned(), file.to_owned()))
            .or_default() += 1;
    }
    counts
}

/// What refreshed reads of a view cost the server.
struct Cost {
    /// How often each system call began.
    counts: BTreeMap<(String, String), usize>,
    /// How often the view was refreshed at most.
    refreshed: usize,
    /// Threads of the server.
    threads: usize,
    /// How long it took.
    took: Duration,
}

impl Cost {
    /// Read a view, each time after it was made to say something else, and once more, which the page cache answers.
    fn of(view: &str, change: &[&str]) -> Self {
        let scene = scene();
        let daemon = scene.daemon(&[]);
        let mut container = scene.container().limits(LIMITS).start();
        scene.attach(&container);
        daemon.wait_for_rest();
        // The first reads open the descriptors.
        for _ in 0..3 {
            container.read(view);
            let_time_pass(SILENCE);
        }
        let server = daemon.server();
        let tasks = std::fs::read_dir(format!("/proc/{server}/task")).unwrap();
        let threads = tasks.count();
        let log = scene.dir().join("strace");
        let trace = Trace::start(server, &log);
        let mut refreshed = 0;
        let all_began = Instant::now();
        for _ in 0..READS {
            // If it said the same, it would not be read again.
            container.ask(change);
            let_time_pass(SILENCE);
            let began = Instant::now();
            container.read(view);
            container.read(view);
            // Where a busy machine makes it last longer than the freshness, it is refreshed on the way.
            refreshed += 1 + began.elapsed().as_millis() / FRESHNESS.as_millis();
        }
        let took = all_began.elapsed();
        drop(trace);
        let counts = count(&std::fs::read_to_string(log).unwrap());
        drop(container);
        daemon.end();
        Self {
            counts,
            refreshed: usize::try_from(refreshed).unwrap(),
            threads,
            took,
        }
    }

    /// Write to a tunable, each time another number.
    fn of_writing(tunable: &str) -> Self {
        let scene = scene();
        let daemon = scene.daemon(&[]);
        let mut container = scene.container().user_namespace(true).start();
        scene.attach(&container);
        daemon.wait_for_rest();
        // The first write reads the machine's value.
        container.ask(&["write-at", tunable, "0", "1"]);
        let server = daemon.server();
        let tasks = std::fs::read_dir(format!("/proc/{server}/task")).unwrap();
        let threads = tasks.count();
        let log = scene.dir().join("strace");
        let trace = Trace::start(server, &log);
        let began = Instant::now();
        for number in 0..READS {
            container.ask(&["write-at", tunable, "0", &number.to_string()]);
        }
        let took = began.elapsed();
        drop(trace);
        let counts = count(&std::fs::read_to_string(log).unwrap());
        drop(container);
        daemon.end();
        Self {
            counts,
            refreshed: READS,
            threads,
            took,
        }
    }

    /// How often a system call began with a file of this name.
    fn count(&self, name: &str, file: &str) -> usize {
        let key = (name.into(), file.into());
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// How often a system call began.
    fn count_all(&self, name: &str) -> usize {
        let calls = self.counts.iter().filter(|((call, _), _)| call == name);
        calls.map(|(_, count)| count).sum()
    }

    /// No system call is for the state, which is memory.
    fn assert_remembers_for_nothing(&self) {
        let mut files = self.counts.keys().map(|(_, file)| file);
        let is_used = files.any(|file| file.contains("eci-fs-state"));
        assert!(!is_used, "{:#?}", self.counts);
    }

    /// How often something happened that happens once in `period`.
    fn at_most_once_in(&self, period: Duration) -> usize {
        1 + usize::try_from(self.took.as_millis() / period.as_millis()).unwrap()
    }
}

#[test]
fn privileged_a_refreshed_read_takes_four_system_calls_and_one_pread_a_file() {
    let cost = Cost::of("/proc/meminfo", &["allocate", "1048576"]);
    let (counts, refreshed) = (&cost.counts, cost.refreshed);
    // While somebody reads, the daemon asks each connection once a second whether it is served.
    let asked = 2 * cost.at_most_once_in(Duration::from_secs(1));

    // GETATTR and READ, each read from the connection and answered. A thread that waits has begun a read, too.
    let reads = cost.count("read", "fuse");
    let answers = cost.count("writev", "fuse");
    assert!(answers > READS, "the reads are not refreshed: {counts:#?}");
    assert!(
        answers <= 2 * refreshed + asked,
        "{answers} answers: {counts:#?}"
    );
    assert!(
        reads <= 2 * refreshed + asked + cost.threads,
        "{reads} reads: {counts:#?}"
    );

    let opened = counts.keys().any(|(name, _)| name.starts_with("open"));
    assert!(!opened, "descriptors are not kept: {counts:#?}");
    assert_eq!(cost.count_all("pwrite64"), 0, "{counts:#?}");

    let preads = counts.iter().filter(|((name, _), _)| name == "pread64");
    let files: BTreeMap<&str, usize> = preads
        .map(|((_, file), count)| (file.as_str(), *count))
        .filter(|(file, _)| !MACHINE.contains(file) && !file.starts_with("hugetlb."))
        .collect();
    let is_needed = |needed: &[&str; 5]| files.keys().all(|file| needed.contains(file));
    assert!(NEEDED.iter().any(is_needed), "not needed: {files:#?}");
    assert!(files.contains_key("memory.stat"), "{counts:#?}");
    let once = files.values().all(|count| *count <= refreshed);
    assert!(once, "more than one pread of a file a read: {files:#?}");
}

#[test]
fn privileged_what_is_remembered_of_a_refreshed_read_takes_no_system_call() {
    let cost = Cost::of("/proc/stat", &["burn", "20"]);
    let answers = cost.count("writev", "fuse");
    assert!(
        answers > READS,
        "the reads are not refreshed: {:#?}",
        cost.counts
    );
    cost.assert_remembers_for_nothing();
}

#[test]
fn privileged_a_write_reads_nothing_and_is_remembered_without_a_system_call() {
    let cost = Cost::of_writing("/proc/sys/vm/swappiness");
    let (counts, writes) = (&cost.counts, cost.refreshed);
    cost.assert_remembers_for_nothing();
    let read = |name: &str| name.starts_with("open") || name.starts_with("pread");
    let reads = counts.keys().any(|(name, _)| read(name));
    assert!(!reads, "something is read: {counts:#?}");
    // GETATTR, OPEN, WRITE and RELEASE, and what is sent when the size has changed.
    let asked = 2 * cost.at_most_once_in(Duration::from_secs(1));
    let answers = cost.count("writev", "fuse");
    assert!(answers >= 3 * writes, "{counts:#?}");
    assert!(answers <= 4 * writes + 2 + asked, "{counts:#?}");
}

#[test]
fn privileged_a_write_that_wants_a_capability_opens_one_file_at_most() {
    let cost = Cost::of_writing("/proc/sys/vm/mmap_min_addr");
    let (counts, writes) = (&cost.counts, cost.refreshed);
    // Of a writer that was looked at a moment ago it opens none.
    let opened = cost.count_all("openat");
    assert!(opened > 0 && opened <= writes, "{opened}: {counts:#?}");
    cost.assert_remembers_for_nothing();
}
