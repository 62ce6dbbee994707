//! Monitoring programs: sysstat's mpstat and sar, and Prometheus' node_exporter.

use std::net::TcpListener;

use support::cpu_list;

use crate::Means::{Container, Machine, Zero};
use crate::{Program, Said, Seen, case};

/// The ids in the column "CPU" of what mpstat prints.
fn rows(said: &Said) -> Vec<u64> {
    let cell = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    let cells: Vec<String> = said.text.lines().filter_map(cell).collect();
    cells
        .iter()
        .filter(|cell| cell.chars().all(|c| c.is_ascii_digit()))
        .flat_map(|cell| cpu_list(cell))
        .collect()
}

/// The "(2 CPU)" of the heading.
fn heading(said: &Said) -> usize {
    let (_, rest) = said.text.split_once("\t(").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn privileged_mpstat_reports_the_cpus_of_the_container() {
    let seen = Seen::of(
        "mpstat -P ALL",
        "sysstat",
        "export S_TIME_FORMAT=ISO; mpstat -P ALL",
    );
    seen.row(
        "CPUs in the heading",
        Machine,
        Machine,
        "/sys/devices/system/cpu/cpuN",
        |said, means| {
            said.is_count(heading(said), means);
        },
    );
    seen.row(
        "CPUs, one by one",
        Machine,
        Container,
        "/proc/stat",
        |said, means| {
            said.is_list(&rows(said), means);
        },
    );
}

#[test]
fn privileged_mpstat_reports_no_interrupts_of_the_machine() {
    let seen = Seen::of(
        "mpstat -I SUM",
        "sysstat",
        "export S_TIME_FORMAT=ISO; mpstat -I SUM",
    );
    seen.row("interrupts", Machine, Zero, "/proc/stat", |said, means| {
        let last = said.text.trim_end().rsplit(' ').next().unwrap();
        said.is_counter((last.parse::<f64>().unwrap() * 100.0) as u64, means);
    });
}

/// The averages of sar over a second, in its last line.
fn sar(option: &str) -> String {
    format!("export S_TIME_FORMAT=ISO; sar {option} 1 1 | tail -n 1")
}

#[test]
fn privileged_sar_reports_the_memory_of_the_container() {
    let seen = Seen::of("sar -r", "sysstat", &sar("-r ALL"));
    seen.row(
        "memory free and used",
        Machine,
        Container,
        "/proc/meminfo",
        |said, means| {
            let cells: Vec<&str> = said.text.split_whitespace().collect();
            // kbmemfree kbavail kbmemused %memused kbbuffers kbcached kbcommit %commit kbactive kbinact kbdirty kbanonpg
            // kbslab; sar prints no total.
            let number = |index: usize| cells[index].parse::<u64>().unwrap();
            let sum: u64 = [1, 3, 5, 6, 13].into_iter().map(number).sum();
            said.is_memory(sum << 10, means);
        },
    );
}

#[test]
fn privileged_sar_reports_the_load_of_the_container() {
    let seen = Seen::busy("sar -q", "sysstat", &sar("-q"));
    seen.row(
        "load",
        Machine,
        Container,
        "/proc/loadavg",
        |said, means| {
            let cells: Vec<&str> = said.text.split_whitespace().collect();
            said.is_load(cells[5].parse().unwrap(), means);
        },
    );
}

/// The plugin that Nagios and its descendants run, with thresholds that busy machines have. It fails when it warns.
const CHECK_LOAD: &str = "/usr/lib/nagios/plugins/check_load -w 5,5,5 -c 10,10,10 || true";

#[test]
fn privileged_check_load_reports_the_load_of_the_container() {
    let seen = Seen::busy("check_load", "monitoring-plugins-basic", CHECK_LOAD);
    seen.row(
        "load",
        Machine,
        Container,
        "/proc/loadavg",
        |said, means| {
            let (_, averages) = said.text.split_once("load average: ").unwrap();
            let (averages, _) = averages.split_once('|').unwrap();
            said.is_load(averages.split(", ").nth(2).unwrap().parse().unwrap(), means);
        },
    );
}

#[test]
fn privileged_check_load_is_not_alarmed_by_a_burst_in_a_young_container() {
    let mut shell = case::first().start();
    let burst = "for i in {1..30}; do (while :; do :; done) & done; ";
    let said = shell.run(&format!(
        "{burst} {CHECK_LOAD}; cat /proc/loadavg; kill $(jobs -p)"
    ));
    // All thirty run.
    let running = said.rsplit_once('/').unwrap().0.rsplit_once(' ').unwrap().1;
    assert!(running.parse::<u32>().unwrap() >= 30, "{said}");
    assert!(said.contains("LOAD OK"), "{said}");
}

/// The exporter on a port of the loopback device, which the container shares with the test; killed at the end.
fn exporter() -> String {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    format!(
        r#"
exec 3< <(exec prometheus-node-exporter --web.listen-address=127.0.0.1:{port} 2>&1)
exporter=$!
while read -r line <&3; do [[ $line == *istening\ on* ]] && break; done
exec 4<>/dev/tcp/127.0.0.1/{port}
printf 'GET /metrics HTTP/1.0\r\n\r\n' >&4
grep -E '^node_(boot|context|cpu_seconds|intr_|load15|memory_MemTotal|time|disk_read_bytes|vmstat_pgpgin)' <&4
kill -KILL $exporter
"#
    )
}

/// The value of a metric.
#[track_caller]
fn metric(said: &Said, name: &str) -> f64 {
    match said.text.lines().find_map(|line| line.strip_prefix(name)) {
        Some(value) => value.trim().parse().unwrap(),
        None => panic!("there is no {name:?}: {said:#?}"),
    }
}

#[test]
fn privileged_node_exporter_exports_the_memory_the_cpus_and_the_start_of_the_container() {
    let seen = Seen::of(
        "prometheus-node-exporter",
        "prometheus-node-exporter",
        &exporter(),
    );
    seen.row(
        "`node_memory_MemTotal_bytes`",
        Machine,
        Container,
        "/proc/meminfo",
        |said, means| {
            said.is_memory(metric(said, "node_memory_MemTotal_bytes ") as u64, means);
        },
    );
    seen.row(
        "`node_cpu_seconds_total`",
        Machine,
        Container,
        "/proc/stat",
        |said, means| {
            // A CPU below the highest that /proc/stat lacks is exported all the same, with zeros.
            let counts =
                |line: &&str| line.starts_with("node_cpu_seconds") && !line.ends_with(" 0");
            let lines = said.text.lines().filter(counts);
            let mut ids: Vec<u64> = lines
                .flat_map(|line| cpu_list(line.split('"').nth(1).unwrap()))
                .collect();
            ids.dedup();
            said.is_list(&ids, means);
        },
    );
    seen.row(
        "`node_context_switches_total`",
        Machine,
        Zero,
        "/proc/stat",
        |said, means| {
            said.is_counter(metric(said, "node_context_switches_total ") as u64, means);
        },
    );
    seen.row(
        "`node_intr_total`",
        Machine,
        Zero,
        "/proc/stat",
        |said, means| {
            said.is_counter(metric(said, "node_intr_total ") as u64, means);
        },
    );
    seen.row(
        "`node_vmstat_pgpgin`",
        Machine,
        Zero,
        "/proc/vmstat",
        |said, means| {
            said.is_counter(metric(said, "node_vmstat_pgpgin ") as u64, means);
        },
    );
    seen.row(
        "`node_boot_time_seconds`",
        Container,
        Container,
        "/proc/stat",
        |said, means| {
            let age = metric(said, "node_time_seconds ") - metric(said, "node_boot_time_seconds ");
            said.is_uptime(age, 1.0, means);
        },
    );
}

#[test]
fn privileged_node_exporter_exports_the_load_of_the_container() {
    let seen = Seen::busy(
        "prometheus-node-exporter",
        "prometheus-node-exporter",
        &exporter(),
    );
    seen.row(
        "`node_load15`",
        Machine,
        Container,
        "/proc/loadavg",
        |said, means| {
            said.is_load(metric(said, "node_load15 "), means);
        },
    );
}

/// Each figure in a line: "system.cpu.num        [u|2]".
const ZABBIX: &str = "
for key in vm.memory.size[total] vm.memory.size[available] vm.memory.size[pavailable] system.cpu.num; do
    zabbix_agentd -c /dev/null -t $key
done";

#[test]
fn privileged_zabbix_divides_what_is_available_by_the_memory_of_the_machine() {
    let [seen] = Seen::each([Program::new(
        "zabbix_agentd",
        ("zabbix_agentd", "zabbix-agent"),
        ZABBIX,
    )]);
    let figure = |said: &Said, key: &str| -> f64 {
        let line = said.text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.trim_end().trim_end_matches(']').rsplit('|').next());
        value.unwrap().parse().unwrap()
    };
    seen.row(
        "`vm.memory.size[total]`",
        Machine,
        Machine,
        "sysinfo(2)",
        |said, means| said.is_memory(figure(said, "vm.memory.size[total]") as u64, means),
    );
    seen.row(
        "`vm.memory.size[available]`",
        Machine,
        Container,
        "/proc/meminfo",
        |said, means| {
            let available = figure(said, "vm.memory.size[available]");
            let of_container = available <= said.case.memory as f64;
            assert_eq!(of_container, means == Container, "{said:#?}");
            // Two sources in one figure: docs/conformance.md tells about it.
            let percent = 100.0 * available / figure(said, "vm.memory.size[total]");
            let shown = figure(said, "vm.memory.size[pavailable]");
            assert!((shown / percent - 1.0).abs() < 0.1, "{percent}: {said:#?}");
        },
    );
    let online = "/sys/devices/system/cpu/online";
    seen.row(
        "`system.cpu.num`",
        Machine,
        Container,
        online,
        |said, means| said.is_count(figure(said, "system.cpu.num") as usize, means),
    );
}
