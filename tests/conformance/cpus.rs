//! Programs that count CPUs: nproc, getconf, lscpu.

use support::cpu_list;

use crate::Means::{Container, Cpuset, Machine};
use crate::{Said, Seen};

/// What follows `label` in what lscpu prints.
#[track_caller]
fn field<'a>(said: &'a Said, label: &str) -> &'a str {
    match said
        .text
        .lines()
        .find_map(|line| line.trim().strip_prefix(label))
    {
        Some(rest) => rest.trim(),
        None => panic!("there is no {label:?}: {said:#?}"),
    }
}

fn only(said: &Said) -> usize {
    said.text.trim().parse().unwrap()
}

#[test]
fn privileged_nproc_reports_the_cpus_that_its_threads_may_run_on() {
    // A quota does not show: the kernel itself answers.
    let seen = Seen::of("nproc", "coreutils", "nproc");
    seen.row(
        "CPUs",
        Cpuset,
        Cpuset,
        "sched_getaffinity(2)",
        |said, means| {
            said.is_count(only(said), means);
        },
    );
    let seen = Seen::of("nproc --all", "coreutils", "nproc --all");
    seen.row(
        "CPUs",
        Machine,
        Machine,
        "/sys/devices/system/cpu/possible",
        |said, means| {
            said.is_count(only(said), means);
        },
    );
}

#[test]
fn privileged_getconf_reports_the_cpus_of_the_container() {
    let seen = Seen::of(
        "getconf _NPROCESSORS_ONLN",
        "libc-bin",
        "getconf _NPROCESSORS_ONLN",
    );
    seen.row(
        "CPUs",
        Machine,
        Container,
        "/sys/devices/system/cpu/online",
        |said, means| {
            said.is_count(only(said), means);
        },
    );
    let seen = Seen::of(
        "getconf _NPROCESSORS_CONF",
        "libc-bin",
        "getconf _NPROCESSORS_CONF",
    );
    seen.row(
        "CPUs",
        Machine,
        Machine,
        "/sys/devices/system/cpu/possible",
        |said, means| {
            said.is_count(only(said), means);
        },
    );
}

#[test]
fn privileged_getconf_reports_the_memory_of_the_machine() {
    let script = "echo $(($(getconf _PHYS_PAGES) * $(getconf PAGE_SIZE)))";
    let seen = Seen::of("getconf _PHYS_PAGES", "libc-bin", script);
    seen.row(
        "total memory",
        Machine,
        Machine,
        "sysinfo(2)",
        |said, means| {
            said.is_memory(said.text.trim().parse().unwrap(), means);
        },
    );
}

#[test]
fn privileged_lscpu_reports_the_cpus_of_the_container() {
    let seen = Seen::of("lscpu", "util-linux", "LC_ALL=C lscpu");
    let present = "/sys/devices/system/cpu/{possible,present}";
    seen.row("CPU(s)", Machine, Machine, present, |said, means| {
        said.is_count(field(said, "CPU(s):").parse().unwrap(), means);
    });
    let online = "/sys/devices/system/cpu/online";
    seen.row(
        "On-line CPU(s) list",
        Machine,
        Container,
        online,
        |said, means| {
            said.is_list(&cpu_list(field(said, "On-line CPU(s) list:")), means);
        },
    );
    let node = "/sys/devices/system/node/node0/cpumap";
    seen.row(
        "NUMA node CPU(s)",
        Machine,
        Container,
        node,
        |said, means| {
            let lists = said
                .text
                .lines()
                .filter(|line| line.starts_with("NUMA node") && line.contains("CPU(s):"));
            let mut ids: Vec<u64> = lists
                .flat_map(|line| cpu_list(line.split_once(':').unwrap().1))
                .collect();
            ids.sort_unstable();
            said.is_list(&ids, means);
        },
    );
    let topology = "/sys/devices/system/cpu/cpuN/topology";
    seen.row(
        "cores and threads",
        Machine,
        Cpuset,
        topology,
        |said, means| {
            let number = |label| field(said, label).parse::<usize>().unwrap();
            let of_all = number("Socket(s):")
                * number("Core(s) per socket:")
                * number("Thread(s) per core:");
            said.is_count(of_all, means);
        },
    );
    let seen = Seen::of("lscpu -p", "util-linux", "lscpu -p=CPU | grep -v '^#'");
    seen.row(
        "CPUs, one by one",
        Machine,
        Container,
        online,
        |said, means| {
            let ids: Vec<u64> = said.text.lines().flat_map(cpu_list).collect();
            said.is_list(&ids, means);
        },
    );
}
