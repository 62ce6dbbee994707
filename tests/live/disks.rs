//! /proc/diskstats against blkio, the statistics in /sys/block beside it, and /proc/partitions, which is the kernel's.

use std::collections::BTreeSet;
use std::fs;

use crate::source::{Verdict, equal, file, join, keys, steady};
use crate::{LIMITS, Live};

pub(crate) const VIEWS: &[&str] = &["/proc/diskstats", "/sys/devices"];

/// The links to all disks and partitions.
const CLASS: &str = "/sys/class/block";

/// The numbers of the devices that hold the mounts of a container, "8:1", and of the disks that these are parts of.
fn mounted(live: &Live) -> BTreeSet<String> {
    let mounts = file(format!("/proc/{}/mountinfo", live.container.pid()));
    let mut all: BTreeSet<String> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .filter(|device| !device.starts_with("0:"))
        .map(str::to_owned)
        .collect();
    for device in all.clone() {
        let dir = format!("/sys/dev/block/{device}");
        if fs::metadata(format!("{dir}/partition")).is_ok() {
            all.insert(file(format!("{dir}/../dev")).trim().to_owned());
        }
    }
    all
}

/// The rows of diskstats by the number of the device, without the columns that name it.
fn by_device(diskstats: &str) -> Vec<(String, Vec<String>)> {
    let row = |row: &str| {
        let words: Vec<String> = row.split_whitespace().map(str::to_owned).collect();
        (format!("{}:{}", words[0], words[1]), words[3..].to_vec())
    };
    diskstats.lines().map(row).collect()
}

#[test]
fn privileged_diskstats_has_a_row_of_zeros_for_each_device_of_a_mount() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    let kernel = by_device(&file("/proc/diskstats"));
    let seen = by_device(&live.seen("/proc/diskstats"));
    let mounted = mounted(&live);
    let expected: Vec<(String, Vec<String>)> = kernel
        .into_iter()
        .filter(|(device, _)| mounted.contains(device))
        .map(|(device, columns)| (device, vec!["0".to_owned(); columns.len()]))
        .collect();
    assert!(!expected.is_empty(), "{mounted:?}");
    assert_eq!(seen, expected);
}

#[test]
fn privileged_the_statistics_of_a_device_are_its_row_of_diskstats_or_zeros() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    let rows = by_device(&live.seen("/proc/diskstats"));
    let grafts = live.container.grafts();
    let mut compared = 0;
    for entry in fs::read_dir(CLASS).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let dir = fs::canonicalize(format!("{CLASS}/{name}")).unwrap();
        let is_grafted = |file: &str| grafts.contains(&dir.join(file).display().to_string());
        let has_size = file(dir.join("size")).trim() != "0";
        let is_used = file(dir.join("stat")).contains(|c: char| ('1'..='9').contains(&c));
        let tells = has_size || is_used;
        assert_eq!(is_grafted("stat"), tells, "{name}: {grafts:?}");
        assert_eq!(is_grafted("inflight"), tells, "{name}: {grafts:?}");
        if !tells {
            continue;
        }
        compared += 1;
        let number = file(dir.join("dev")).trim().to_owned();
        let kernel = file(dir.join("stat"));
        let columns = kernel.split_whitespace().count();
        let zeros = vec!["0".to_owned(); columns];
        let row = rows.iter().find(|(device, _)| *device == number);
        let row = row.map_or(&zeros, |(_, row)| row);
        let line = |row: &[String]| {
            let padded: Vec<String> = row.iter().map(|word| format!("{word:>8}")).collect();
            padded.join(" ") + "\n"
        };
        // By each of the links that lead to it.
        for link in [
            CLASS.to_owned() + "/" + &name,
            format!("/sys/dev/block/{number}"),
        ] {
            assert_eq!(live.seen(&format!("{link}/stat")), line(row), "{link}");
            let inflight = line(&zeros[..2]);
            assert_eq!(live.seen(&format!("{link}/inflight")), inflight, "{link}");
            let size = format!("{link}/size");
            assert_eq!(live.seen(&size), file(&size));
        }
        assert_eq!(
            line(
                &kernel
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            ),
            kernel
        );
    }
    assert!(compared > 0);
}

#[test]
fn privileged_diskstats_has_a_row_for_each_disk_of_the_cgroup() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    let kernel = file("/proc/diskstats");
    let used = |row: &&str| row.split_whitespace().nth(3) != Some("0");
    let disks: Vec<Vec<&str>> = kernel
        .lines()
        .filter(used)
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert!(!disks.is_empty(), "no disk was ever read from: {kernel}");
    let dir = join(&live.cgroup, "blkio", live.container.pid());
    for disk in &disks {
        // The kernel counts for a cgroup once it throttles, however loosely.
        let loose = format!("{}:{} {}", disk[0], disk[1], 1u64 << 40);
        fs::write(dir.join("blkio.throttle.read_bps_device"), loose).unwrap();
    }
    // The container was described before it had this cgroup.
    live.scene.detach(&live.container);
    live.scene.attach(&live.container);
    let path = live.scene.dir().join("on-a-disk").display().to_string();
    let (input, output) = (format!("if={path}"), format!("of={path}"));
    let mut dd = |arguments: &[&str]| {
        let size = ["dd", "bs=64k", "count=4"];
        live.container.busybox(&[&size, arguments].concat())
    };
    dd(&["if=/dev/zero", &output, "conv=fsync"]);
    dd(&[&input, "of=/dev/null", "iflag=direct"]);
    let counters = |name: &str| file(dir.join(format!("blkio.throttle.{name}_recursive")));
    let sources = || (counters("io_service_bytes"), counters("io_serviced"));
    let mounted = mounted(&live);
    let judge = |(bytes, counts): &(String, String), view: &str| -> Verdict {
        let mut expected = Vec::new();
        for disk in &disks {
            let number = format!("{}:{}", disk[0], disk[1]);
            if !bytes.contains(&format!("{number} Total")) && !mounted.contains(&number) {
                continue;
            }
            let of = |text: &str, operation: &str| {
                let wanted = format!("{number} {operation} ");
                let line = text.lines().find_map(|line| line.strip_prefix(&wanted));
                line.map_or(0, |count| count.parse::<u64>().unwrap())
            };
            let mut row = vec![0; disk.len() - 3];
            let operations = [("Read", 0, 2), ("Write", 4, 6), ("Discard", 11, 13)];
            for (operation, count, sectors) in operations {
                row[count] = of(counts, operation);
                row[sectors] = of(bytes, operation) / 512;
            }
            let row: Vec<String> = row.iter().map(u64::to_string).collect();
            expected.push(format!(
                "{:>4} {:>7} {} {}",
                disk[0],
                disk[1],
                disk[2],
                row.join(" ")
            ));
        }
        let rows: Vec<&str> = view.trim_end().lines().map(str::trim_end).collect();
        equal("the rows", rows.join("\n"), expected.join("\n"))
    };
    steady(sources, || live.seen("/proc/diskstats"), judge);
    let total = keys(&sources().0)["Total"];
    assert!(total >= 4 * 65536, "{:?}", sources());
    let view = live.seen("/proc/diskstats");
    assert!(!view.trim().is_empty(), "{:?}", sources());
    // The file of the device says the same, also after a server has died.
    let server = live.scene.server_pid().unwrap();
    for turn in 0..2 {
        for (device, row) in by_device(&live.seen("/proc/diskstats")) {
            let stat = live.seen(&format!("/sys/dev/block/{device}/stat"));
            let stat: Vec<&str> = stat.split_whitespace().collect();
            assert_eq!(stat, row, "{device}");
        }
        if turn == 0 {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(i32::try_from(server).unwrap()),
                nix::sys::signal::Signal::SIGKILL,
            )
            .unwrap();
        }
    }
}

#[test]
fn privileged_partitions_and_block_devices_are_left_to_the_kernel() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    assert_eq!(
        live.container.read("/proc/partitions"),
        file("/proc/partitions")
    );
    let listed = live.container.ask(&["list", "/sys/block"]);
    let count = fs::read_dir("/sys/block").unwrap().count();
    assert_eq!(listed["/sys/block"].as_array().unwrap().len(), count);
}
