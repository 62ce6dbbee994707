//! Programs that ask the kernel about possible CPUs, or place threads on CPUs: what they read agrees with what system
//! calls answer.

use crate::Means::{NeedsFirst, NeedsLow, Works};
use crate::case::ended;
use crate::said::machine_cpus;
use crate::{Means, Program, Said, Seen, built};

/// The last CPU on which the script's threads may run.
const CPU: &str = "cpu=$(taskset -cp $$ | sed 's/.*[ ,-]//')";

fn on_cpu(script: &str) -> String {
    ended(&format!("{CPU}\n{script}"))
}

fn succeeds(said: &Said, means: Means) {
    said.is_success(said.succeeded(), means);
}

const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

#[test]
fn privileged_readers_of_per_cpu_maps_get_a_value_for_each_cpu_that_the_kernel_writes() {
    let libbpf = built::with_compiler("gcc", "percpu.c", &["-lbpf"]);
    let cilium = built::with_go("percpu.go");
    let seen = Seen::each([
        Program::built("libbpf", &libbpf),
        Program::built("cilium/ebpf", &cilium),
    ]);
    for seen in seen {
        seen.row("reads a per-CPU map", Works, Works, POSSIBLE, succeeds);
    }
}

#[test]
fn privileged_cyclictest_takes_a_cpu_that_it_may_run_on() {
    let script = "cyclictest -a $cpu -t 1 -l 5 -q --default-system";
    let [seen] = Seen::each([Program::new(
        "cyclictest -a",
        ("cyclictest", "rt-tests"),
        on_cpu(script),
    )]);
    seen.row(
        "takes a CPU of the cpuset",
        Works,
        Works,
        POSSIBLE,
        |said, means| {
            // It reads the option first. Then it asks for a real-time policy, which a cgroup of v1 has no budget for.
            let refused = said.text.contains("Unable to change scheduling policy");
            said.is_success(said.succeeded() || refused, means);
        },
    );
}

/// Runs the program with the guard against CPUs that jemalloc does not count, and prints whether there is an arena for
/// each CPU.
const JEMALLOC: &str = r#"
export LD_PRELOAD=/usr/lib/$(uname -m)-linux-gnu/libjemalloc.so.2 MALLOC_CONF=percpu_arena:percpu
/usr/bin/python3 -c '
import ctypes
name, size = ctypes.c_char_p(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_char_p))
assert ctypes.CDLL(None).mallctl(b"opt.percpu_arena", ctypes.byref(name), ctypes.byref(size), None, 0) == 0
print("arenas:", name.value.decode())'"#;

#[test]
fn privileged_programs_that_place_threads_find_the_cpus_that_they_may_run_on() {
    let fio = "fio --name=one --ioengine=null --size=4k --cpus_allowed=$cpu";
    let numactl = "numactl --physcpubind=$cpu taskset -cp $$";
    let seen = Seen::each([
        Program::new("fio --cpus_allowed", ("fio", "fio"), on_cpu(fio)),
        Program::new(
            "stress-ng --taskset",
            ("stress-ng", "stress-ng"),
            on_cpu("stress-ng --taskset $cpu --cpu 1 --cpu-ops 1"),
        ),
        Program::new(
            "numactl --physcpubind",
            ("numactl", "numactl"),
            on_cpu(numactl),
        ),
    ]);
    for seen in seen {
        seen.row(
            "runs on a CPU of the cpuset",
            Works,
            Works,
            POSSIBLE,
            succeeds,
        );
    }
}

#[test]
fn privileged_jemalloc_has_an_arena_for_each_cpu_only_where_it_knows_them_all() {
    let seen = Seen::each([Program::new(
        "jemalloc",
        ("jeprof", "libjemalloc-dev"),
        ended(JEMALLOC),
    )]);
    let from = "/sys/devices/system/cpu/{possible,online}, sched_getaffinity(2)";
    let [seen] = seen;
    seen.row("`percpu_arena`", Works, Works, from, |said, means| {
        let all = said.cpus(Means::Cpuset) == machine_cpus();
        let expected = match (said.attached, all) {
            // The numbers of possible and of online CPUs differ, or that of CPUs that it may use.
            (true, _) | (_, false) => "arenas: disabled",
            (false, true) => "arenas: percpu",
        };
        let good = said.succeeded() && said.text.contains(expected);
        said.is_success(good, means);
    });
}

#[test]
fn privileged_likwid_topology_needs_ids_below_the_number_of_cpus() {
    let [seen] = Seen::each([Program::new(
        "likwid-topology",
        ("likwid-topology", "likwid"),
        ended("likwid-topology"),
    )]);
    let topology = "/sys/devices/system/cpu/{online,cpuN/topology}";
    seen.row("hardware threads", Works, NeedsLow, topology, succeeds);
}

const PSUTIL: &str = r#"/usr/bin/python3 -c '
import os, psutil
allowed = os.sched_getaffinity(0)
psutil.Process().cpu_affinity([])
assert os.sched_getaffinity(0) == allowed'"#;

#[test]
fn privileged_psutil_can_give_a_thread_all_cpus_again() {
    let [seen] = Seen::each([Program::new(
        "python3",
        ("python3", "python3-psutil"),
        ended(PSUTIL),
    )]);
    seen.row(
        "`psutil.Process().cpu_affinity([])`",
        Works,
        NeedsFirst,
        "/proc/self/status, /proc/stat",
        succeeds,
    );
}
