//! Programs that look at the topology: numactl, lstopo.

use support::cpu_list;

use crate::Means::{Container, Machine};
use crate::Seen;

/// All that stands between `before` and `after`, once in each line that has it.
fn between<'a>(text: &'a str, before: &str, after: char) -> Vec<&'a str> {
    let rest = |line: &'a str| line.split_once(before)?.1.split(after).next();
    text.lines().filter_map(rest).collect()
}

#[test]
fn privileged_numactl_reports_the_cpus_and_the_memory_of_the_container() {
    let seen = Seen::of("numactl -H", "numactl", "numactl -H");
    let cpumap = "/sys/devices/system/node/nodeN/cpumap";
    seen.row(
        "CPUs of the nodes",
        Machine,
        Container,
        cpumap,
        |said, means| {
            let lists = between(&said.text, " cpus: ", '\n');
            let mut ids: Vec<u64> = lists
                .iter()
                .flat_map(|list| cpu_list(&list.trim().replace(' ', ",")))
                .collect();
            ids.sort_unstable();
            said.is_list(&ids, means);
        },
    );
    let meminfo = "/sys/devices/system/node/nodeN/meminfo";
    seen.row(
        "memory of the nodes",
        Machine,
        Container,
        meminfo,
        |said, means| {
            let sizes = between(&said.text, " size: ", ' ');
            let mebibytes: u64 = sizes.iter().map(|size| size.parse::<u64>().unwrap()).sum();
            said.is_memory(mebibytes << 20, means);
        },
    );
}

#[test]
fn privileged_numactl_binds_a_program_to_a_cpu_of_the_container() {
    let seen = Seen::of(
        "numactl",
        "numactl",
        "cpu=$(taskset -cp $$ | sed 's/.*[ ,-]//'); numactl -C $cpu taskset -cp $$; numactl -C $cpu nproc",
    );
    for said in &seen.said {
        assert!(said.text.ends_with("\n1\n"), "{said:#?}");
    }
}

#[test]
fn privileged_lstopo_reports_the_cpus_and_the_memory_of_the_container() {
    // The cpuset's CPUs, which hwloc learns from the cgroup and from sched_getaffinity(2), are left out in both.
    let seen = Seen::of("lstopo", "hwloc", "lstopo --no-io --of console");
    let topology = "/sys/devices/system/cpu/{online,cpuN/topology}";
    seen.row(
        "CPUs",
        crate::Means::Cpuset,
        Container,
        topology,
        |said, means| {
            let ids = said.text.split("PU L#").skip(1);
            let ids: Vec<u64> = ids
                .filter_map(|piece| piece.split_once("(P#")?.1.split(')').next())
                .flat_map(cpu_list)
                .collect();
            said.is_list(&ids, means);
        },
    );
    let meminfo = "/sys/devices/system/node/nodeN/meminfo";
    seen.row("memory", Machine, Container, meminfo, |said, means| {
        let total = between(&said.text, "Machine (", ' ');
        let digits = total[0].trim_end_matches(|c: char| c.is_alphabetic() || c == ')');
        let shift = if total[0].contains("GB") { 30 } else { 20 };
        said.is_memory(digits.parse::<u64>().unwrap() << shift, means);
    });
}
