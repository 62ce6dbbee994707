//! lxcfs 6 in the same container on cgroup v2: the table of docs/lxcfs.md about it.
//!
//! `vm-guest beside` hands back what both said of every file that lxcfs serves. Each row of the table is a
//! relation that is found there, and whatever differs without a row is found too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;
mod table;

use std::fs;
use std::path::Path;
use std::time::Duration;

use table::{Table, number, row_of};
use xtask::vm::{Kernel, Outcome, Vm, packages};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lxcfs.md");

/// The heading of the part of the page that this test is about.
const HEADING: &str = "\n## On cgroup v2: lxcfs 6.0.4\n";

/// lxcfs, and what it is linked with.
const PACKAGES: [&str; 4] = ["lxcfs", "libfuse3-4", "libc6", "libgcc-s1"];

/// The files of these that it needs, where it looks for them.
const FILES: [&str; 5] = [
    "/usr/bin/lxcfs",
    "/usr/lib/x86_64-linux-gnu/lxcfs/liblxcfs.so",
    "/usr/lib/x86_64-linux-gnu/libfuse3.so.4",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
];

const MEMINFO: &str = "/proc/meminfo";
const STAT: &str = "/proc/stat";
const CPU: &str = "/sys/devices/system/cpu";

#[test]
fn privileged_lxcfs_on_cgroup_v2_differs_as_its_table_tells() {
    let outcome = run();
    let page = fs::read_to_string(PAGE).unwrap_or_default();
    let section = page.split_once(HEADING).map_or("", |(_, section)| section);
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut table = Table::new(outcome.out(), section);
    memory::rows(&mut table);
    cpus(&mut table);
    cpu_time(&mut table);
    others(&mut table);
    table.differences_have_rows();
    table.rows_are_checked();
    let wrong = table.wrong();
    assert!(wrong.is_empty(), "{wrong}\n{}", outcome.stderr);
}

/// Boots the machine that has both.
#[track_caller]
fn run() -> Outcome {
    let root = packages(Kernel::V6_12, &PACKAGES).unwrap();
    let programs = super::static_programs();
    let loader = "lib64/ld-linux-x86-64.so.2";
    let vm = Vm::new(Kernel::V6_12)
        .memory_mib(768)
        .swap_mib(64)
        .module("loop")
        .timeout(Duration::from_secs(120))
        .file(root.join("usr").join(loader), Path::new("/").join(loader))
        .file(programs.join("eci-fs"), "/bin/eci-fs")
        .file(programs.join("vm-guest"), "/bin/vm-guest");
    let vm = FILES.iter().fold(vm, |vm, file| {
        vm.file(root.join(file.trim_start_matches('/')), file)
    });
    let script = "vm-guest beside; status=$?; cat /lxcfs.log /run/eci-fs/*.log >&2; exit $status";
    let outcome = vm.run(script).unwrap();
    let (said, errors) = (&outcome.stdout, &outcome.stderr);
    assert_eq!(outcome.status, 0, "{said}\n{errors}");
    println!("ended after {:.1} s", outcome.ended_after.as_secs_f64());
    outcome
}

const MACHINE: &str = "the machine's";
const CGROUP: &str = "the cgroup's";

fn cpus(table: &mut Table<'_>) {
    let all = |lxcfs: &str, ours: &str, found: &(String, String)| {
        found.0 == format!("{lxcfs}\n") && found.1 == format!("{ours}\n")
    };
    for (field, lxcfs, ours) in [
        ("online", "0", "1"),
        ("offline", "", "0"),
        ("possible", "0-1", "0-1"),
        ("present", "0-1", "0-1"),
        ("enabled", "0-1", "0-1"),
    ] {
        let found = table.texts(&format!("{CPU}/{field}"));
        let shown = match lxcfs {
            "" => "an empty list",
            lxcfs => lxcfs,
        };
        table.row(
            ["cpu", field, shown, ours],
            all(lxcfs, ours, &found),
            &found,
        );
    }
    for (field, dir) in [
        ("core_siblings_list", "topology"),
        ("die_cpus_list", "topology"),
        ("package_cpus_list", "topology"),
        ("shared_cpu_list", "cache/index3"),
    ] {
        let found = table.texts(&format!("{CPU}/cpu1/{dir}/{field}"));
        table.row(["cpu", field, "0-1", "1"], all("0-1", "1", &found), &found);
    }
    for (field, dir) in [
        ("core_siblings", "topology"),
        ("die_cpus", "topology"),
        ("package_cpus", "topology"),
        ("shared_cpu_map", "cache/index3"),
    ] {
        let found = table.texts(&format!("{CPU}/cpu1/{dir}/{field}"));
        table.row(["cpu", field, "3", "2"], all("3", "2", &found), &found);
    }
    let found = table.texts(&format!("{CPU}/cpu0/topology/core_id"));
    table.row(
        ["cpu", "cpu0/topology", "there", "not there"],
        found == ("0\n".into(), "ENOENT".into()),
        &found,
    );
    for field in ["crash_notes", "crash_notes_size"] {
        let found = table.texts(&format!("{CPU}/cpu1/{field}"));
        let is_a_number = !found.0.is_empty() && !found.0.starts_with('E');
        let cells = ["cpu", field, "the machine's", "not there"];
        table.row(cells, is_a_number && found.1 == "ENOENT", &found);
    }
    let found = table.texts(&format!("{CPU}/cpu1/power/autosuspend_delay_ms"));
    let cells = ["cpu", "autosuspend_delay_ms", "empty", "EIO"];
    table.row(cells, found == (String::new(), "EIO".into()), &found);

    let (lxcfs, ours) = table.texts("/proc/cpuinfo");
    for (key, theirs, own) in [("processor", 0, 1), ("siblings", 2, 1), ("cpu cores", 2, 1)] {
        let found = (number(&lxcfs, key), number(&ours, key));
        table.row(
            ["cpuinfo", key, &theirs.to_string(), &own.to_string()],
            found == (theirs, own),
            found,
        );
    }
}

fn cpu_time(table: &mut Table<'_>) {
    let (lxcfs, ours) = table.texts(STAT);
    let found = (row_of(&lxcfs, "cpu"), row_of(&ours, "cpu"));
    let machine = row_of(&table.text("machine", STAT), "cpu1");
    // In ticks, with some time for what runs between two readings.
    let near = |what: u64, (before, after): (u64, u64)| {
        (before / 10_000).saturating_sub(3) <= what && what <= after / 10_000 + 3
    };
    let (user, system) = (
        table.used(STAT, "user_usec"),
        table.used(STAT, "system_usec"),
    );
    let of_machine = found
        .0
        .iter()
        .zip(&machine)
        .all(|(a, b)| a.abs_diff(*b) <= 50);
    let holds = of_machine && near(found.1[0], user) && near(found.1[2], system);
    table.row(
        ["stat", "cpu", "the machine's CPU 1", CGROUP],
        holds,
        (&found, &machine, user, system),
    );
    let throttled = table.used(STAT, "throttled_usec");
    // Other work on the host can have taken more time.
    let least = (throttled.0 / 10_000).saturating_sub(3);
    let holds = found.0[7] == 0 && least > 0 && found.1[7] >= least;
    table.row(
        ["stat", "steal", MACHINE, "at least the throttled time"],
        holds,
        (&found, throttled),
    );
    let rows = (lxcfs.contains("\ncpu0 "), ours.contains("\ncpu1 "));
    table.row(
        ["stat", "row of CPU 1", "cpu0", "cpu1"],
        rows == (true, true),
        rows,
    );
    for key in ["intr", "ctxt", "softirq"] {
        let found = (number(&lxcfs, key), number(&ours, key));
        table.row(
            ["stat", key, MACHINE, "0"],
            found.0 > 0 && found.1 == 0,
            found,
        );
    }
    let found = (number(&lxcfs, "processes"), number(&ours, "processes"));
    table.row(
        ["stat", "processes", MACHINE, "the container's"],
        found.0 > 100 && found.1 == 1,
        found,
    );
    let found = (
        number(&lxcfs, "procs_running"),
        number(&ours, "procs_running"),
    );
    let threads = number(&table.text("cgroup", "/threads"), "");
    let holds = found.0 > 0 && found.1 <= threads;
    table.row(
        ["stat", "procs_running", MACHINE, "the container's"],
        holds,
        found,
    );

    let path = "/proc/uptime";
    let ticks = |text: &str| -> Vec<u64> {
        let words = text.split_whitespace();
        words
            .filter_map(|word| word.replace('.', "").parse().ok())
            .collect()
    };
    let (lxcfs, ours) = table.texts(path);
    let found = (ticks(&lxcfs), ticks(&ours));
    let sum = |(a, b): (u64, u64), (c, d): (u64, u64)| (a + c, b + d);
    let busy = sum(
        table.used(path, "usage_usec"),
        table.used(path, "throttled_usec"),
    );
    // As for steal, other work on the host can have taken more time.
    let (age, idle) = (found.1[0], found.1[1]);
    let least = (busy.0 / 10_000).saturating_sub(3);
    let holds = found.0[0] == found.0[1] && least > 0 && idle > 0 && age - idle >= least;
    table.row(
        ["uptime", "idle", "its age", "what was not used of it"],
        holds,
        (found, busy),
    );
}

fn others(table: &mut Table<'_>) {
    let threads = table.text("cgroup", "/threads");
    let (lxcfs, ours) = table.texts("/proc/loadavg");
    let holds = lxcfs.contains(" 0/1 ") && ours.contains(&format!("/{threads} "));
    table.row(
        ["loadavg", "threads, at the first read", "1", CGROUP],
        holds,
        (&lxcfs, &ours),
    );
    let last = |text: &str| {
        text.split_whitespace()
            .last()
            .and_then(|pid| pid.parse::<u64>().ok())
    };
    let holds = last(&lxcfs) > Some(100) && last(&ours) == Some(1);
    table.row(
        ["loadavg", "last pid", MACHINE, "the container's"],
        holds,
        (&lxcfs, &ours),
    );

    let found = table.texts("/proc/swaps");
    let machine = table.text("machine", "/proc/swaps");
    let heading = machine.lines().next();
    let holds = found.0.lines().next() != heading && found.1.lines().next() == heading;
    table.row(
        ["swaps", "heading", "its own", "the kernel's"],
        holds,
        &found,
    );
    let word = |text: &str, index| {
        let row = text.lines().nth(1).unwrap_or_default();
        row.split_whitespace()
            .nth(index)
            .unwrap_or_default()
            .to_owned()
    };
    for (index, field, lxcfs, ours) in [
        (1, "type", "virtual", "partition"),
        (4, "priority", "0", "-2"),
    ] {
        let found = (word(&found.0, index), word(&found.1, index));
        table.row(
            ["swaps", field, lxcfs, ours],
            found == (lxcfs.into(), ours.into()),
            &found,
        );
    }

    let path = "/proc/diskstats";
    let found = table.texts(path);
    let disk = row_of(&found.1, " 254       0 vda");
    let read = table.used(path, "254:0 rbytes=");
    let all = found.0.lines().count() == table.text("machine", path).lines().count();
    let holds = all && disk[2] * 512 >= read.0 && disk[2] * 512 <= read.1 && read.0 > 0;
    table.row(
        ["diskstats", "rows", MACHINE, CGROUP],
        holds,
        (&found, read),
    );
    let found = table.texts("/proc/slabinfo");
    let rows = (found.0.lines().count(), found.1.lines().count());
    table.row(
        ["slabinfo", "rows", MACHINE, "none"],
        rows.0 > 100 && rows.1 == 2,
        rows,
    );

    let tries = table.text("", "tries");
    let of = |who: &str, what: &str| {
        let line = tries
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{who} {what} = ")));
        line.unwrap_or_default().to_owned()
    };
    let mut both = |field: &str, cells: [&str; 2], what: &str, start: [&str; 2]| {
        let found = (of("lxcfs", what), of("ours", what));
        let holds = found.0.starts_with(start[0]) && found.1.ends_with(start[1]);
        let file = if what.contains("slabinfo") {
            "slabinfo"
        } else {
            "all"
        };
        table.row([file, field, cells[0], cells[1]], holds, &found);
    };
    let slab = "stat /proc/slabinfo";
    let modes = of("ours", slab).starts_with("400 0 0");
    both(
        "mode",
        ["0444", "0400"],
        slab,
        ["444", if modes { "" } else { "400" }],
    );
    both(
        "pread(2) past the end",
        ["EINVAL", "nothing"],
        "pread-past-end /proc/meminfo",
        ["EINVAL", " 0"],
    );
    both(
        "open(2) for writing",
        ["succeeds", "EROFS"],
        "write /proc/meminfo 1",
        ["EINVAL", "EROFS"],
    );
}
