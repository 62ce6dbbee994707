//! The views in containers of each engine.

use std::collections::BTreeMap;

use support::engines::CommandLine;
use support::{Ran, count_cpus, cpu_list, number_after, uptime};

/// Limits that every engine takes: 128 MiB, half a CPU.
pub(crate) const LIMITS: [&str; 4] = ["--memory=128m", "--memory-swap=128m", "--cpus", "0.5"];

/// Print the views that have a limit in them.
pub(crate) const SHOW: [&str; 3] = [
    "sh",
    "-c",
    "for file in /proc/meminfo /proc/cpuinfo /proc/stat /proc/uptime /sys/devices/system/cpu/online; do \
     echo \"== $file\"; cat $file || exit; done; echo == limit; \
     cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max 2>/dev/null || true",
];

/// The number of CPUs that a container with [`LIMITS`] and these options of its engine sees. One that can measure CPUs sees
/// all of them.
pub(crate) fn cpus_of(options: &[&str]) -> usize {
    let measuring = ["--privileged", "--cap-add=SYS_ADMIN"];
    match options.iter().any(|option| measuring.contains(option)) {
        true => {
            let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
            cpu_list(&online).len()
        }
        false => 1,
    }
}

/// What [`SHOW`] has printed, by file.
fn files(text: &str) -> BTreeMap<&str, &str> {
    let parts = text.split("== ").filter_map(|part| part.split_once('\n'));
    parts.collect()
}

/// Assert that views show a limit of memory and a number of CPUs.
#[track_caller]
pub(crate) fn show_limits(text: &str, mebibytes: u64, cpus: usize) {
    let files = files(text);
    let meminfo = files["/proc/meminfo"];
    assert_eq!(
        number_after(meminfo, "MemTotal:"),
        mebibytes << 10,
        "{text}"
    );
    assert_eq!(number_after(meminfo, "SwapTotal:"), 0, "{text}");
    assert_eq!(count_cpus(files["/proc/cpuinfo"]), cpus, "{text}");
    let online = files["/sys/devices/system/cpu/online"];
    assert_eq!(cpu_list(online).len(), cpus, "{text}");
    let stat = files["/proc/stat"];
    let rows = stat.lines().filter(|line| line.starts_with("cpu")).count();
    assert_eq!(rows, cpus + 1, "{text}");
    assert!(uptime(files["/proc/uptime"]) < 60.0, "{text}");
}

/// Assert that views show the limit that the container's cgroup has at this moment.
#[track_caller]
pub(crate) fn show_the_cgroup(text: &str) {
    let files = files(text);
    let limit: u64 = files["limit"].trim().parse().unwrap();
    assert_eq!(
        number_after(files["/proc/meminfo"], "MemTotal:"),
        limit >> 10,
        "{text}"
    );
}

/// Assert that views are the kernel's files.
#[track_caller]
pub(crate) fn show_the_machine(text: &str) {
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = |text: &str| number_after(text, "MemTotal:");
    assert_eq!(total(files(text)["/proc/meminfo"]), total(&host), "{text}");
}

/// A container that runs in the background until it is stopped.
#[track_caller]
pub(crate) fn start(engine: &impl CommandLine, name: &str, options: &[&str]) {
    let run = ["--detach", "--name", name];
    let sleep = [
        "sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done",
    ];
    let mut command = engine.run_command(&[&run, options].concat(), &sleep);
    Ran::run(&mut command).ok();
}

/// Run fifty containers at once, each with a limit of its own, which its first program reads. On a machine that is so
/// busy that a hook has to give up, that container does not start, and says so.
#[track_caller]
pub(crate) fn fifty_at_once(engine: &impl CommandLine, options: &[&str]) {
    let limits = 64..64 + 50;
    let commands = limits.clone().map(|limit| {
        let limit = format!("--memory={limit}m");
        let read = ["head", "-n", "1", "/proc/meminfo"];
        engine.run_command(&[&["--rm", &limit], options].concat(), &read)
    });
    for (limit, ran) in limits.zip(Ran::all(commands)) {
        if ran.code != Some(0)
            && ["hook", "eci-mountd"]
                .iter()
                .any(|word| ran.stderr.contains(word))
        {
            assert_eq!(ran.stdout, "", "{ran:?}");
            continue;
        }
        assert_eq!(number_after(&ran.ok(), "MemTotal:"), limit << 10);
    }
}
