//! Faulty cgroups: they are gone, have no controllers, or have odd limits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::time::Duration;

use eci_fs_emulators::view::Render;
use eci_fs_emulators::{
    Bound, Cgroup, Container, Context, Controller, EMULATORS, Error, Hierarchy, History, Host,
    Identity, Load, Needs, Settings, Threads, Version, View, limit_files, read_threads,
    render_view,
};

/// A host with four CPUs and 8 GiB, and a v2 tree pod/app whose files the test writes.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine {
            dir: tempfile::tempdir().unwrap(),
        };
        machine.write("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:         7000000 kB\nMemAvailable:    8000000 kB\nSwapTotal:       1048576 kB\nSwapFree:        1048576 kB\n");
        machine.write(
            "proc/stat",
            "cpu  1 1 1 1 1 1 1 1 1 1\ncpu0 1 1 1 1 1 1 1 1 1 1\nbtime 1700000000\n",
        );
        machine.write("proc/uptime", "1.00 1.00\n");
        machine.write("sys/devices/system/cpu/online", "0-3\n");
        for cgroup in ["cgroup", "cgroup/pod", "cgroup/pod/app"] {
            machine.write(&format!("{cgroup}/cgroup.procs"), "");
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn container(&self, controllers: &[Controller]) -> Container {
        Container {
            cgroup: Cgroup::new(vec![Hierarchy {
                version: Version::V2,
                controllers: controllers.to_vec(),
                dir: common::open(&self.path("cgroup/pod/app")),
                depth: 2,
                cache: Default::default(),
            }]),
            identity: Identity {
                start: Duration::from_secs(10),
                ..Identity::default()
            },
            history: History::new(),
            tunables: Default::default(),
            can_measure_cpus: Default::default(),
        }
    }

    fn view(&self, container: &Container, path: &str) -> Result<String, Error> {
        let open = |name: &str| common::open(Path::new(&self.path(name)));
        let host = Host::from_dirs(open("proc"), open("sys"));
        let settings = Settings::default();
        let cx = Context::new(&host, container, &settings, Duration::from_secs(110))
            .with_cgroup()
            .with_load(Load::default());
        let emulator = EMULATORS
            .iter()
            .find(|emulator| emulator.facts().path == path)
            .unwrap();
        let mut out = Vec::new();
        render_view(*emulator, &cx, false, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }
}

const ALL: &[Controller] = &[
    Controller::Cpu,
    Controller::Cpuset,
    Controller::Memory,
    Controller::Io,
];

fn kib(meminfo: &str, key: &str) -> u64 {
    let line = meminfo
        .lines()
        .find(|line| line.starts_with(&format!("{key}:")))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_cgroup_without_controllers_has_the_machine_as_its_limit() {
    let machine = Machine::new();
    for controllers in [&[][..], ALL] {
        let container = machine.container(controllers);
        let meminfo = machine.view(&container, "/proc/meminfo").unwrap();
        assert_eq!(kib(&meminfo, "MemTotal"), 8_388_608);
        assert_eq!(kib(&meminfo, "MemFree"), 8_000_000);
        assert_eq!(kib(&meminfo, "SwapTotal"), 0);
        assert_eq!(
            machine
                .view(&container, "/sys/devices/system/cpu/online")
                .unwrap(),
            "0-3\n"
        );
        assert_eq!(
            machine.view(&container, "/proc/uptime").unwrap(),
            "100.00 400.00\n"
        );
    }
}

#[test]
fn a_removed_cgroup_is_an_error_and_not_the_machine() {
    let machine = Machine::new();
    let container = machine.container(ALL);
    std::fs::remove_dir_all(machine.path("cgroup/pod/app")).unwrap();
    for path in [
        "/proc/meminfo",
        "/proc/stat",
        "/proc/uptime",
        "/sys/devices/system/cpu/online",
    ] {
        let error = machine.view(&container, path).unwrap_err();
        assert!(matches!(error, Error::Removed { .. }), "{path}: {error}");
        assert_eq!(error.errno(), 5);
    }
}

#[test]
fn malformed_files_are_errors_that_name_them() {
    for (file, text, view) in [
        ("memory.max", "", "/proc/meminfo"),
        ("memory.max", "much\n", "/proc/meminfo"),
        ("memory.current", "-1\n", "/proc/meminfo"),
        ("cpu.max", "max\n", "/proc/cpuinfo"),
        ("cpuset.cpus.effective", "0-\n", "/proc/stat"),
        ("cpu.stat", "user_usec 1\n", "/proc/stat"),
    ] {
        let machine = Machine::new();
        machine.write("proc/cpuinfo", "processor\t: 0\n\n");
        machine.write(&format!("cgroup/pod/app/{file}"), text);
        let error = machine.view(&machine.container(ALL), view).unwrap_err();
        assert!(error.to_string().starts_with(file), "{error}");
    }
}

#[test]
fn limits_above_the_machine_and_past_64_bits_are_no_limits() {
    let machine = Machine::new();
    for limit in ["99999999999999\n", "99999999999999999999999999\n", "max\n"] {
        machine.write("cgroup/pod/app/memory.max", limit);
        machine.write("cgroup/pod/app/memory.current", "1073741824\n");
        let meminfo = machine
            .view(&machine.container(ALL), "/proc/meminfo")
            .unwrap();
        assert_eq!(kib(&meminfo, "MemTotal"), 8_388_608, "{limit}");
        assert_eq!(kib(&meminfo, "MemFree"), 8_388_608 - 1_048_576, "{limit}");
    }
}

#[test]
fn usage_above_the_limit_leaves_nothing_and_never_wraps() {
    let machine = Machine::new();
    machine.write("cgroup/pod/app/memory.max", "4096\n");
    machine.write("cgroup/pod/app/memory.current", "1073741824\n");
    machine.write(
        "cgroup/pod/app/memory.stat",
        "active_file 99999999999999999999\nanon 7340032\n",
    );
    machine.write("cgroup/pod/app/memory.swap.max", "8192\n");
    machine.write("cgroup/pod/app/memory.swap.current", "999999999\n");
    let meminfo = machine
        .view(&machine.container(ALL), "/proc/meminfo")
        .unwrap();
    assert_eq!(kib(&meminfo, "MemTotal"), 4);
    assert_eq!(kib(&meminfo, "MemFree"), 0);
    assert_eq!(kib(&meminfo, "MemAvailable"), 4);
    assert_eq!(kib(&meminfo, "SwapTotal"), 8);
    assert_eq!(kib(&meminfo, "SwapFree"), 0);
}

#[test]
fn a_quota_below_one_tick_leaves_one_cpu_and_the_smallest_of_the_tree_binds() {
    let machine = Machine::new();
    let online = |machine: &Machine| {
        machine
            .view(&machine.container(ALL), "/sys/devices/system/cpu/online")
            .unwrap()
    };
    machine.write("cgroup/pod/cpu.max", "250000 100000\n");
    assert_eq!(online(&machine), "0-2\n");
    machine.write("cgroup/pod/app/cpu.max", "1000 1000000\n");
    assert_eq!(online(&machine), "0\n");
    machine.write("cgroup/pod/app/cpuset.cpus.effective", "1,3,7-9\n");
    assert_eq!(online(&machine), "1\n");
    machine.write("cgroup/pod/app/cpu.max", "max 100000\n");
    assert_eq!(online(&machine), "1,3\n");
    // None of these is online, so the kernel uses the parent's.
    machine.write("cgroup/pod/app/cpuset.cpus.effective", "7-9\n");
    machine.write("cgroup/pod/cpuset.cpus.effective", "2\n");
    assert_eq!(online(&machine), "2\n");
}

#[test]
fn no_counter_falls_when_limits_change() {
    let machine = Machine::new();
    let container = machine.container(ALL);
    machine.write(
        "cgroup/pod/app/cpu.stat",
        "usage_usec 200000000\nsystem_usec 0\n",
    );
    let stat = |quota: &str| {
        machine.write("cgroup/pod/app/cpu.max", quota);
        machine.view(&container, "/proc/stat").unwrap()
    };
    let first = stat("max 100000\n");
    assert!(first.starts_with("cpu  20000 0 0 20000 "), "{first}");
    assert!(first.contains("\ncpu3 5000 0 0 5000 "), "{first}");
    let second = stat("100000 100000\n");
    assert!(second.starts_with("cpu  20000 0 0 20000 "), "{second}");
    assert!(!second.contains("\ncpu1 "), "{second}");
    let third = stat("max 100000\n");
    assert!(third.contains("\ncpu3 5000 0 0 5000 "), "{third}");
}

#[test]
fn limit_files_are_those_of_the_cgroup_and_its_ancestors() {
    let machine = Machine::new();
    let files = limit_files(&machine.container(&[Controller::Memory]).cgroup);
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let own = [
        "cpu.max",
        "cpuset.cpus",
        "cpuset.mems",
        "memory.max",
        "memory.swap.max",
    ];
    assert_eq!(names.len(), 2 * own.len());
    for file in own {
        assert!(names.contains(&file), "{file}");
        assert!(names.contains(&format!("../{file}").as_str()), "{file}");
    }
}

#[test]
fn threads_are_counted_in_all_cgroups_below_and_those_that_ended_are_not() {
    let machine = Machine::new();
    machine.write("cgroup/pod/app/cgroup.threads", "10\n11\n12\n");
    machine.write("cgroup/pod/app/a/b/cgroup.threads", "13\n");
    machine.write("cgroup/pod/app/a/cgroup.threads", "");
    machine.write("cgroup/pod/cgroup.threads", "14\n");
    for (tid, state) in [(10, "S"), (11, "R"), (13, "D"), (14, "R")] {
        machine.write(
            &format!("proc/{tid}/stat"),
            &format!("{tid} (a) b) {state} 1 1\n"),
        );
        let status = format!("State:\t{state} (x)\nNSpid:\t{tid}\t{}\n", tid - 9);
        machine.write(&format!("proc/{tid}/status"), &status);
    }
    let mut container = machine.container(ALL);
    let open = |name: &str| common::open(&machine.path(name));
    let host = Host::from_dirs(open("proc"), open("sys"));
    for (pid_level, last_pid) in [(0, 13), (1, 4)] {
        container.identity.pid_level = pid_level;
        let threads = read_threads(&host, &container).unwrap();
        assert_eq!(
            threads,
            Threads {
                running: 1,
                uninterruptible: 1,
                total: 3,
                last_pid
            }
        );
    }
}

#[test]
fn what_a_row_does_not_name_cannot_be_read() {
    let machine = Machine::new();
    let container = machine.container(ALL);
    let open = |name: &str| common::open(&machine.path(name));
    let host = Host::from_dirs(open("proc"), open("sys"));
    let settings = Settings::default();
    let cx = Context::new(&host, &container, &settings, Duration::from_secs(110))
        .with_cgroup()
        .with_load(Load::default());
    let load: Render = |_, cx, _| cx.load().map(|_| Bound::Exact);
    let cgroup: Render = |_, cx, _| cx.cgroup().map(|_| Bound::Exact);
    for (render, needs) in [(load, Needs::LOAD), (cgroup, Needs::CGROUP)] {
        let view = View::new(16, "/proc/any", render);
        let rendered = |view: View| render_view(&view, &cx, false, &mut Vec::new());
        let error = rendered(view).unwrap_err();
        assert!(matches!(error, Error::Undeclared { .. }), "{error}");
        assert_eq!(error.errno(), 5);
        rendered(view.needs(needs)).unwrap();
        // What a row names and nobody supplies is no zero either.
        let nothing = Context::new(&host, &container, &settings, Duration::ZERO);
        let view = view.needs(needs);
        render_view(&view, &nothing, false, &mut Vec::new()).unwrap_err();
    }
}
