//! Programs that measure CPUs, and open one buffer for each that is online: perf, bpftrace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::nice;
use rustix::thread::{CpuSet, sched_setaffinity};
use support::cpu_list;

use crate::Means::{Container, Cpuset, Machine, NeedsFirst, Works};
use crate::case::ended;
use crate::said::machine_cpus;
use crate::{Program, Said, Seen};

/// Threads that keep every CPU of the host from being idle: an idle one may have no samples.
#[derive(Debug)]
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn on_all_cpus() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        for cpu in machine_cpus() {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                let mut set = CpuSet::new();
                set.set(cpu as usize);
                sched_setaffinity(None, &set).unwrap();
                // Whatever else there is to do comes first.
                nice(19).unwrap();
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(done)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

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
        let rest = line
            .strip_prefix("CPU")
            .or_else(|| line.strip_prefix("@["))?;
        let digits = rest.split([' ', ']']).next().unwrap();
        Some(cpu_list(digits))
    };
    let mut ids: Vec<u64> = said.text.lines().filter_map(id).flatten().collect();
    ids.sort_unstable();
    ids
}

#[test]
fn privileged_perf_and_bpftrace_measure_the_cpus_that_are_online() {
    let _busy = Busy::on_all_cpus();
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
    let _busy = Busy::on_all_cpus();
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
    // The events of that CPU are lost where it is not online. Then it ends with the command.
    let timer =
        r#"bpftrace -e 'interval:ms:1 { printf("timer\n"); exit(); }' -c '/usr/bin/sleep 2'"#;
    let [seen] = Seen::each([Program::new("bpftrace", ("bpftrace", "bpftrace"), timer)]);
    seen.row("`interval`", Works, NeedsFirst, ONLINE, |said, means| {
        said.is_success(said.text.contains("timer\n"), means);
    });
}

#[test]
fn privileged_likwid_finds_all_cpus_that_it_may_run_on_where_the_quota_does_not_show() {
    let [seen] = Seen::measuring([Program::new(
        "likwid-topology",
        ("likwid-topology", "likwid"),
        ended("likwid-topology"),
    )]);
    let topology = "/sys/devices/system/cpu/{online,cpuN/topology}";
    seen.row(
        "hardware threads, with `--cpu-quota ignore`",
        Works,
        Works,
        topology,
        |said, means| said.is_success(said.succeeded(), means),
    );
}
