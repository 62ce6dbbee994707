//! procps, and what busybox has of it: free, top, vmstat, uptime, w, ps.

use support::{Scene, cpu_list, find_program, number_after};

use crate::Means::{Container, Machine, Zero};
use crate::Seen;

/// The number in front of `words`, as `vmstat -s` has it.
fn number_before(text: &str, words: &str) -> u64 {
    let line = text.lines().find(|line| line.ends_with(words)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// What uptime, w and top print after "up": minutes, hours and minutes, or days and either.
fn up(text: &str) -> f64 {
    let (_, rest) = text.split_once(" up ").unwrap();
    let mut seconds = 0.0;
    for part in rest.split(',') {
        let part = part.trim();
        let number = |text: &str| text.trim().parse::<f64>().unwrap();
        if let Some((days, _)) = part.split_once(" day") {
            seconds += number(days) * 86400.0;
        } else if let Some((minutes, _)) = part.split_once(" min") {
            return seconds + number(minutes) * 60.0;
        } else if let Some((hours, minutes)) = part.split_once(':') {
            return seconds + number(hours) * 3600.0 + number(minutes) * 60.0;
        } else {
            return seconds;
        }
    }
    seconds
}

/// The average over 15 minutes, as uptime, w and top print it.
fn load(text: &str) -> f64 {
    let (_, rest) = text.split_once("load average: ").unwrap();
    let line = rest.lines().next().unwrap();
    line.split(", ").nth(2).unwrap().trim().parse().unwrap()
}

#[test]
fn privileged_free_of_busybox_puts_the_available_memory_of_the_container_beside_the_total_of_the_host()
 {
    let seen = Seen::of("busybox free", "busybox", "busybox free -k");
    seen.row(
        "total memory",
        Machine,
        Machine,
        "sysinfo(2)",
        |said, means| said.is_memory(number_after(&said.text, "Mem:") << 10, means),
    );
    seen.row(
        "available memory",
        Machine,
        Container,
        "/proc/meminfo",
        |said, means| {
            let line = said.text.lines().find(|line| line.starts_with("Mem:"));
            let available = line.unwrap().split_whitespace().last().unwrap();
            let available: u64 = available.parse().unwrap();
            let limit = 300 << 10;
            assert_eq!(available <= limit, means == Container, "{said:?}");
        },
    );
}

#[test]
fn privileged_free_reports_the_memory_of_the_container() {
    let seen = Seen::of("free", "procps", "free -k");
    seen.row(
        "total memory",
        Machine,
        Container,
        "/proc/meminfo",
        |said, means| {
            said.is_memory(number_after(&said.text, "Mem:") << 10, means);
            // What the container has used, and not what the machine has.
            let line = said
                .text
                .lines()
                .find(|line| line.starts_with("Mem:"))
                .unwrap();
            let figures: Vec<u64> = line
                .split_whitespace()
                .skip(1)
                .map(|n| n.parse().unwrap())
                .collect();
            let (total, free) = (figures[0], figures[2]);
            assert!(free <= total, "{line}");
            assert!(
                !said.attached || free > total / 2,
                "little runs in it: {line}"
            );
        },
    );
}

#[test]
fn privileged_top_reports_the_memory_and_the_cpus_of_the_container() {
    let seen = Seen::of("top", "procps", "TERM=dumb top -b -n1 -1 -w 200");
    seen.row(
        "total memory",
        Machine,
        Container,
        "/proc/meminfo",
        |said, means| {
            let mebibytes: String = said
                .text
                .split_once("MiB Mem :")
                .unwrap()
                .1
                .trim()
                .to_owned();
            let mebibytes: f64 = mebibytes.split(' ').next().unwrap().parse().unwrap();
            said.is_memory((mebibytes * 1_048_576.0) as u64, means);
        },
    );
    seen.row(
        "CPUs, one by one",
        Machine,
        Container,
        "/proc/stat",
        |said, means| {
            let of = |piece: &str| piece.split_once(':').map(|(id, _)| cpu_list(id));
            let ids: Vec<u64> = said
                .text
                .split("%Cpu")
                .skip(1)
                .filter_map(of)
                .flatten()
                .collect();
            said.is_list(&ids, means);
        },
    );
    seen.row(
        "time since the start",
        Container,
        Container,
        "/proc/uptime",
        |said, means| {
            said.is_uptime(up(&said.text), 60.0, means);
        },
    );
}

#[test]
fn privileged_top_reports_the_load_of_the_container() {
    let seen = Seen::busy("top", "procps", "TERM=dumb top -b -n1");
    seen.row(
        "load",
        Machine,
        Container,
        "/proc/loadavg",
        |said, means| {
            said.is_load(load(&said.text), means);
        },
    );
}

#[test]
fn privileged_vmstat_reports_the_memory_of_the_container_and_no_counter_of_the_machine() {
    let seen = Seen::of("vmstat", "procps", "vmstat -s; vmstat");
    seen.row(
        "total memory",
        Machine,
        Container,
        "/proc/meminfo",
        |said, means| {
            said.is_memory(number_before(&said.text, "total memory") << 10, means);
        },
    );
    seen.row("interrupts", Machine, Zero, "/proc/stat", |said, means| {
        said.is_counter(number_before(&said.text, "interrupts"), means);
    });
    seen.row(
        "context switches",
        Machine,
        Zero,
        "/proc/stat",
        |said, means| {
            said.is_counter(number_before(&said.text, "CPU context switches"), means);
        },
    );
    seen.row(
        "pages read from disks",
        Machine,
        Zero,
        "/proc/vmstat",
        |said, means| {
            said.is_counter(number_before(&said.text, "paged in"), means);
        },
    );
}

#[test]
fn privileged_vmstat_reports_the_threads_that_run_in_the_container() {
    let seen = Seen::busy("vmstat", "procps", "vmstat");
    seen.row(
        "threads that run",
        Machine,
        Container,
        "/proc/stat",
        |said, means| {
            let last = said.text.lines().last().unwrap();
            let running = last.split_whitespace().next().unwrap();
            let running = running.parse::<u64>().unwrap();
            // The three loops and vmstat itself, and perhaps the shell; on the machine whatever else there is.
            let most = if means == Container { 5 } else { u64::MAX };
            assert!((4..=most).contains(&running), "{said:#?}");
        },
    );
}

#[test]
fn privileged_uptime_reports_the_load_and_the_age_of_the_container() {
    let seen = Seen::busy("uptime", "procps", "uptime");
    seen.row(
        "load",
        Machine,
        Container,
        "/proc/loadavg",
        |said, means| {
            said.is_load(load(&said.text), means);
        },
    );
    seen.row(
        "time since the start",
        Container,
        Container,
        "/proc/uptime",
        |said, means| {
            said.is_uptime(up(&said.text), 60.0, means);
        },
    );
}

#[test]
fn privileged_w_reports_the_load_and_the_age_of_the_container() {
    let seen = Seen::busy("w", "procps", "w");
    seen.row(
        "load",
        Machine,
        Container,
        "/proc/loadavg",
        |said, means| {
            said.is_load(load(&said.text), means);
        },
    );
    seen.row(
        "time since the start",
        Container,
        Container,
        "/proc/uptime",
        |said, means| {
            said.is_uptime(up(&said.text), 60.0, means);
        },
    );
}

#[test]
fn privileged_ps_reports_ages_of_processes_that_are_right() {
    // Process 1 is as old as the container: the ages of processes fit the age of their system.
    let seen = Seen::of(
        "ps -o etimes",
        "procps",
        "ps -o etimes= -p 1; cat /proc/uptime",
    );
    seen.row(
        "time since the start",
        Container,
        Container,
        "/proc/1/stat, /proc/uptime",
        |said, means| {
            let age: f64 = said.text.lines().next().unwrap().trim().parse().unwrap();
            said.is_uptime(age, 1.0, means);
        },
    );
    let seen = Seen::of(
        "ps -o lstart",
        "procps",
        "date -d \"$(ps -o lstart= -p 1)\" +%s; date +%s",
    );
    seen.row(
        "when it was started",
        Container,
        Container,
        "/proc/1/stat, /proc/stat, /proc/uptime",
        |said, means| {
            let seconds: Vec<f64> = said
                .text
                .lines()
                .map(|line| line.parse().unwrap())
                .collect();
            said.is_uptime(seconds[1] - seconds[0], 1.0, means);
        },
    );
}

#[test]
fn privileged_ps_reports_starts_that_are_right_where_engines_make_no_time_namespace() {
    // Ages are not: the kernel counts starts from the boot of the machine, and the view of uptime does not.
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    let mut container = scene.container().start();
    scene.attach(&container);
    let ps = find_program("ps").display().to_string();
    let started = container.run(&[&ps, "-o", "lstart=", "-p", "1"]);
    let date = find_program("date").display().to_string();
    let seconds = |text: String| text.trim().parse::<i64>().unwrap();
    let started = seconds(container.run(&[&date, "-d", started.trim(), "+%s"]));
    let now = seconds(container.run(&[&date, "+%s"]));
    assert!((now - started).abs() <= 5, "{started} {now}");
}
