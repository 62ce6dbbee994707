//! No number of the host gets into a view. The test replaces each number of a recorded host by one that occurs
//! nowhere else, which must not be shown.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::Fixture;
use eci_fs_emulators::{Context, DIRECTORIES, Decision, Directory, EMULATORS, render_view};

/// The replacement. It is too large to act as a limit.
const SENTINEL: &str = "31415926535";

/// The constants of the host that are shown: the path of the view, and the first word of the line.
const SHOWN: &[(&str, &str)] = &[
    ("/proc/meminfo", "VmallocTotal:"),
    ("/proc/meminfo", "Hugepagesize:"),
    ("/proc/stat", "btime"),
];

/// Files whose numbers are all replaced.
const FILES: &[&str] = &[
    "proc/buddyinfo",
    "proc/diskstats",
    "proc/interrupts",
    "proc/loadavg",
    "proc/meminfo",
    "proc/pressure/cpu",
    "proc/pressure/io",
    "proc/pressure/irq",
    "proc/pressure/memory",
    "proc/softirqs",
    "proc/stat",
    "proc/swaps",
    "proc/sys/fs/dentry-state",
    "proc/sys/fs/file-nr",
    "proc/sys/fs/inode-nr",
    "proc/sys/fs/inode-state",
    "proc/sys/fs/quota/syncs",
    "proc/sys/kernel/pty/nr",
    "proc/uptime",
    "proc/vmstat",
    "proc/zoneinfo",
    "sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/inflight",
    "sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda/stat",
    "sys/devices/system/memory/block_size_bytes",
    "sys/devices/system/memory/memory0/phys_index",
    "sys/devices/system/node/node0/meminfo",
    "sys/devices/system/node/node0/numastat",
    "sys/devices/system/node/node0/vmstat",
    "sys/fs/ext4/vda/lifetime_write_kbytes",
    "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
    "sys/kernel/mm/ksm/pages_shared",
    "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/stats/anon_fault_alloc",
    "sys/kernel/mm/transparent_hugepage/khugepaged/full_scans",
    "sys/kernel/uevent_seqnum",
];

/// Replaces each number that is a word of its own. Names with digits ("cpu0", "Node 0,", "24:") stay. The numbers of
/// devices and nodes at the beginning of a line stay, too.
fn poison(file: &str, text: &str) -> String {
    let kept = match file {
        "proc/diskstats" | "sys/devices/system/node/node0/meminfo" => 2,
        _ => 0,
    };
    let mut out = String::new();
    for line in text.lines() {
        let mut words = 0;
        for word in line.split_inclusive(|c: char| c.is_whitespace() || "=(,".contains(c)) {
            let trimmed = word.trim_end_matches(|c: char| c.is_whitespace() || "=(,)".contains(c));
            let number = !trimmed.is_empty()
                && trimmed.chars().all(|c| c.is_ascii_digit() || c == '.')
                && !word.ends_with(',');
            words += usize::from(!trimmed.is_empty());
            if number && words > kept && !line.trim_start().starts_with("cpu: ") {
                out.push_str(SENTINEL);
                out.push_str(word.strip_prefix(trimmed).unwrap());
            } else {
                out.push_str(word);
            }
        }
        out.push('\n');
    }
    out
}

fn check(case: &Path, path: &str, text: &[u8]) {
    for line in String::from_utf8_lossy(text).lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if !SHOWN.contains(&(path, first)) {
            assert!(
                !line.contains(&SENTINEL[..8]),
                "{}: {path}: {line}",
                case.display()
            );
        }
    }
}

fn check_directory(case: &Path, directory: &dyn Directory, cx: &Context<'_>, rel: &str) {
    for name in directory.names(cx, rel).unwrap() {
        let below = if rel.is_empty() {
            name
        } else {
            format!("{rel}/{name}")
        };
        match directory.entry(cx, &below).unwrap() {
            Decision::View { .. } => {
                let mut text = Vec::new();
                directory.render(cx, &below, &mut text).unwrap();
                check(case, &below, &text);
            }
            Decision::Passthrough(path) if cx.host.names(&path).is_ok() => {
                check_directory(case, directory, cx, &below);
            }
            Decision::Made => check_directory(case, directory, cx, &below),
            _ => {}
        }
    }
}

#[test]
fn no_number_of_the_machine_is_shown() {
    let with_limits = |case: &&std::path::PathBuf| case.to_string_lossy().ends_with("-limits");
    let cases = common::all();
    assert_eq!(cases.iter().filter(with_limits).count(), 4);
    for case in cases.iter().filter(with_limits) {
        let dir = common::unpack(case);
        // The time of the fixture is that of the host.
        let mut fixture = Fixture::open(case);
        for file in FILES {
            let path = dir.path().join("host").join(file);
            if let Ok(text) = std::fs::read_to_string(&path) {
                let poisoned = poison(file, &text);
                assert!(
                    poisoned.contains(SENTINEL) || file.contains("swaps"),
                    "{file}"
                );
                std::fs::write(path, poisoned).unwrap();
            }
        }
        let cpuinfo = dir.path().join("host/proc/cpuinfo");
        let text = std::fs::read_to_string(&cpuinfo).unwrap();
        let poison_mhz = |line: &str| match line.starts_with("cpu MHz") {
            true => format!("cpu MHz\t\t: {SENTINEL}\n"),
            false => format!("{line}\n"),
        };
        std::fs::write(&cpuinfo, text.lines().map(poison_mhz).collect::<String>()).unwrap();
        fixture.host = eci_fs_emulators::Host::from_dirs(
            common::open(&dir.path().join("host/proc")),
            common::open(&dir.path().join("host/sys")),
        );
        let cx = fixture.context();
        for emulator in EMULATORS.iter().filter(|emulator| emulator.exists(&cx)) {
            let mut text = Vec::new();
            render_view(*emulator, &cx, &mut text).unwrap();
            check(case, emulator.facts().path, &text);
        }
        for directory in DIRECTORIES.iter().filter(|directory| directory.exists(&cx)) {
            check_directory(case, *directory, &cx, "");
        }
    }
}
