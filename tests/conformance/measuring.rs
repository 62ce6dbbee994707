//! Programs that measure CPUs, and open one buffer for each that is online: perf, bpftrace.

use support::cpu_list;

use crate::Means::{Container, Cpuset, Machine, NeedsFirst, Works};
use crate::case::ended;
use crate::{Program, Said, Seen};

const ONLINE: &str = "/sys/devices/system/cpu/online";
/// With a command it ends with that.
const BPFTRACE: &str = "bpftrace -e 'profile:hz:99 { @[cpu] = count(); }' -c '/usr/bin/sleep 0.5'";

fn programs() -> [Program; 2] {
    [
        Program::new(
            "perf stat -a",
            ("perf", "linux-perf"),
            "perf stat -a -A -e cpu-clock true",
        ),
        Program::new("bpftrace", ("bpftrace", "bpftrace"), BPFTRACE),
    ]
}

/// The ids in lines like "CPU1  2.42 msec cpu-clock" and "@[1]: 20".
#[track_caller]
fn measured(said: &Said) -> Vec<u64> {
    let id = |line: &str| {
        let rest = line.strip_prefix("CPU").or(line.strip_prefix("@["))?;
        let digits = rest.split([' ', ']']).next().unwrap();
        Some(cpu_list(digits))
    };
    let mut ids: Vec<u64> = said.text.lines().filter_map(id).flatten().collect();
    ids.sort_unstable();
    ids
}

#[test]
fn privileged_perf_and_bpftrace_measure_the_cpus_that_are_online() {
    for seen in Seen::each(programs()) {
        seen.row(
            "CPUs that it measures",
            Machine,
            Container,
            ONLINE,
            |said, means| said.is_list(&measured(said), means),
        );
    }
}

#[test]
fn privileged_perf_and_bpftrace_measure_all_cpus_of_the_cpuset_where_the_quota_does_not_show() {
    for seen in Seen::measuring(programs()) {
        seen.row(
            "CPUs that it measures, with `--cpu-quota ignore`",
            Machine,
            Cpuset,
            ONLINE,
            |said, means| said.is_list(&measured(said), means),
        );
    }
}

#[test]
fn privileged_bpftrace_has_its_timers_on_the_first_cpu() {
    // Its buffer of that CPU is what it waits for, and where CPU 0 is missing it does so for ever.
    let timer = "timeout --preserve-status -k 1 10 bpftrace -e 'interval:ms:1 { exit(); }'";
    let [seen] = Seen::each([Program::new(
        "bpftrace",
        ("bpftrace", "bpftrace"),
        ended(timer),
    )]);
    seen.row("`interval`", Works, NeedsFirst, ONLINE, |said, means| {
        said.is_success(said.succeeded(), means);
    });
}
