//! lxcfs in the same container: the table of docs/lxcfs.md.
//!
//! Both are read by one program in one container, and each row of the table is a relation that is found there.

use support::{Scene, number_after};

use crate::Shell;
use crate::beside::{Beside, Lxcfs};
use crate::case::BUSY;
use crate::said::read;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lxcfs.md");

/// That the table has a row, and that what it tells holds.
#[track_caller]
fn row(file: &str, field: &str, lxcfs: &str, ours: &str, holds: bool, found: impl std::fmt::Debug) {
    assert!(
        holds,
        "{file}, {field}: not {lxcfs:?} and {ours:?} but {found:?}"
    );
    let line = format!("| {file} | {field} | {lxcfs} | {ours} | ");
    let page = read(PAGE);
    let there = page.lines().any(|has| has.starts_with(&line));
    assert!(there, "docs/lxcfs.md lacks the row:\n{line}... |");
}

const OF_THE_MACHINE: &str = "the machine's";

/// A number is the machine's, as far as that stands still.
#[track_caller]
fn is_of_the_machine(key: &str, number: u64) -> bool {
    let machine = number_after(&read("/proc/meminfo"), key);
    number > 0 && number.abs_diff(machine) <= machine / 2
}

#[test]
fn privileged_lxcfs_differs_in_memory_and_cpus_as_its_table_tells() {
    // In this order, for lxcfs has to end before the look at what is left.
    let (mut shell, lxcfs);
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    lxcfs = Lxcfs::start(&scene);
    shell = Shell::within(
        scene,
        &["--memory", "300M", "--cpus", "1.5", "--cpuset", "1"],
    );
    let both = Beside::read(&mut shell, &lxcfs);

    for key in [
        "KReclaimable",
        "KernelStack",
        "PageTables",
        "VmallocUsed",
        "Percpu",
    ] {
        let found = both.numbers("meminfo", &format!("{key}:"));
        let holds = is_of_the_machine(&format!("{key}:"), found.0) && found.1 == 0;
        row("meminfo", key, OF_THE_MACHINE, "0", holds, found);
    }
    for key in ["DirectMap4k", "DirectMap2M"] {
        let found = both.numbers("meminfo", &format!("{key}:"));
        let holds = is_of_the_machine(&format!("{key}:"), found.0) && found.1 == 0;
        row("meminfo", key, OF_THE_MACHINE, "0", holds, found);
    }
    let found = both.numbers("meminfo", "CommitLimit:");
    let of_the_machine = number_after(&read("/proc/meminfo"), "CommitLimit:");
    let holds = found.0 == of_the_machine && found.1 < 300 << 10;
    row(
        "meminfo",
        "CommitLimit",
        OF_THE_MACHINE,
        "of 300 MB",
        holds,
        found,
    );
    let found = both.numbers("meminfo", "Committed_AS:");
    // The kernel's own count is an estimate, which may even be 0.
    let holds = found.0 != found.1 && found.1 >= 24 << 10;
    row(
        "meminfo",
        "Committed_AS",
        OF_THE_MACHINE,
        "anonymous and shared memory",
        holds,
        found,
    );
    // Corrected in lxcfs 6.
    if Lxcfs::version().starts_with("5.") {
        let found = both.numbers("meminfo", "MemAvailable:");
        let shared = (found.0 - found.1).abs_diff(16 << 10) < 4 << 10;
        row(
            "meminfo",
            "MemAvailable",
            "counts shared memory as free",
            "does not",
            shared,
            found,
        );
    }
    let found = both.numbers("meminfo", "AnonHugePages:");
    row(
        "meminfo",
        "AnonHugePages",
        "0",
        "huge pages",
        found.0 == 0 && found.1 >= 4 << 10,
        found,
    );

    let found = both.texts("online");
    row(
        "cpu/online",
        "CPU 1 alone",
        "0",
        "1",
        found == ("0\n", "1\n"),
        found,
    );
    for file in ["possible", "present"] {
        let found = both.texts(file);
        let kernels = read(&format!("/sys/devices/system/cpu/{file}"));
        let name = format!("cpu/{file}");
        row(
            &name,
            "CPU 1 alone",
            OF_THE_MACHINE,
            OF_THE_MACHINE,
            found == (&*kernels, &*kernels),
            found,
        );
    }
    let found = both.numbers("cpuinfo", "processor\t: ");
    row("cpuinfo", "processor", "0", "1", found == (0, 1), found);
    for key in ["siblings", "cpu cores"] {
        let of_the_machine = number_after(&read("/proc/cpuinfo"), &format!("{key}\t: "));
        let found = both.numbers("cpuinfo", &format!("{key}\t: "));
        let holds = found == (of_the_machine, 1);
        row("cpuinfo", key, OF_THE_MACHINE, "1", holds, found);
    }
    let found = both.texts("stat");
    let rows = found.0.contains("\ncpu0 ") && found.1.contains("\ncpu1 ");
    row("stat", "row of CPU 1", "cpu0", "cpu1", rows, found);
}

#[test]
fn privileged_lxcfs_differs_in_counters_and_reading_as_its_table_tells() {
    let (mut shell, lxcfs);
    let scene = Scene::new(env!("CARGO_BIN_EXE_eci-fs"));
    lxcfs = Lxcfs::start(&scene);
    shell = Shell::within(scene, &["--memory", "300M", "--cpus", "1.5"]);
    shell.run(BUSY);
    let both = Beside::read(&mut shell, &lxcfs);

    let found = both.texts("stat");
    let first = |text: &str| {
        text.lines()
            .next()
            .map(|line| line.contains(" 0 0 0 0 0 0 0 0 0"))
    };
    let zeros = first(found.0) == Some(true) && first(found.1) == Some(false);
    // On cgroup v2 lxcfs shows the counters of the machine here.
    if std::path::Path::new("/sys/fs/cgroup/cpuacct").exists() {
        row(
            "stat",
            "cpu, at the first read",
            "zeros",
            "since the start",
            zeros,
            found,
        );
    }
    for key in ["intr", "ctxt", "softirq"] {
        let found = both.numbers("stat", &format!("{key} "));
        row(
            "stat",
            key,
            OF_THE_MACHINE,
            "0",
            found.0 > 0 && found.1 == 0,
            found,
        );
    }
    let found = both.numbers("stat", "processes ");
    row(
        "stat",
        "processes",
        OF_THE_MACHINE,
        "the container's",
        found.0 > found.1,
        found,
    );
    let found = both.numbers("stat", "btime ");
    let of_the_machine = number_after(&read("/proc/stat"), "btime ");
    let holds = found.0.abs_diff(of_the_machine) <= 1 && found.1 > found.0;
    row(
        "stat",
        "btime",
        "the machine's boot",
        "the container's start",
        holds,
        found,
    );

    let found = both.texts("loadavg");
    let load = |text: &str| text.split(' ').next().unwrap().parse::<f64>().unwrap();
    let loads = (load(found.0), load(found.1));
    row(
        "loadavg",
        "averages, at the first read",
        "0",
        "as a constant load since its start would have made them",
        loads.0 == 0.0 && loads.1 > 0.0,
        found,
    );
    let last = |text: &str| {
        text.split_whitespace()
            .nth(4)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let holds = last(found.0) > last(found.1);
    row(
        "loadavg",
        "last pid",
        OF_THE_MACHINE,
        "the container's",
        holds,
        found,
    );

    let up = format!("cat {}/proc/uptime /proc/uptime", lxcfs.top.display());
    let found = shell.run(&up);
    let seconds: Vec<f64> = found
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    // Three busy threads under a quota of 1.5 CPUs leave some of two CPUs; of one they leave nothing.
    let holds = seconds[2] * 2.0 > seconds[3] && seconds[1] != seconds[3];
    row(
        "uptime",
        "idle",
        "of one CPU",
        "of all its CPUs",
        holds,
        &found,
    );

    let found = both.texts("diskstats");
    let all = found.0.lines().count() == read("/proc/diskstats").lines().count();
    row(
        "diskstats",
        "rows",
        OF_THE_MACHINE,
        "the container's",
        all && found.0 != found.1,
        found,
    );
    let found = both.texts("slabinfo");
    let rows = (found.0.lines().count(), found.1.lines().count());
    row(
        "slabinfo",
        "rows",
        OF_THE_MACHINE,
        "none",
        rows.0 > 100 && rows.1 == 2,
        rows,
    );
    let found = (both.lxcfs["mode"].as_u64(), both.ours["mode"].as_u64());
    row(
        "slabinfo",
        "mode",
        "0444",
        "0400",
        found == (Some(0o444), Some(0o400)),
        found,
    );
    let found = both.texts("swaps");
    let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority";
    let holds = !found.0.starts_with(heading) && found.1.starts_with(heading);
    row("swaps", "heading", "its own", "the kernel's", holds, found);

    let found = both.texts("inside");
    row(
        "all",
        "a first pread(2) at an offset",
        "nothing",
        "the text there",
        found.0.is_empty() && found.1.len() == 30,
        found,
    );
    let found = both.texts("beyond");
    row(
        "all",
        "pread(2) past the end",
        "EINVAL",
        "nothing",
        found == ("EINVAL", ""),
        found,
    );
    let found = (&both.lxcfs["write"], &both.ours["write"]);
    row(
        "all",
        "open(2) for writing",
        "succeeds",
        "EROFS",
        found.0.is_null() && found.1 == "EROFS",
        found,
    );
}

#[test]
fn every_row_about_lxcfs_is_one_that_a_test_checks() {
    let page = read(PAGE);
    // What follows is about another lxcfs, and tests/vm/lxcfs.rs checks it.
    let page = page.split("\n## On cgroup v2").next().unwrap();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.ends_with(" |"))
        .skip(1)
        .collect();
    assert!(rows.len() > 20, "{rows:#?}");
    for row in rows {
        let field = row.split('|').map(str::trim).nth(2).unwrap();
        let quoted = format!("\"{field}\"");
        assert!(
            include_str!("lxcfs.rs").contains(&quoted),
            "no test checks {row}"
        );
    }
}
