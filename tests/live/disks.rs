//! /proc/diskstats against blkio, and /proc/partitions, which is the kernel's.

use std::fs;

use crate::source::{Verdict, equal, file, join, keys, steady};
use crate::{LIMITS, Live};

pub(crate) const VIEWS: &[&str] = &["/proc/diskstats"];

#[test]
fn privileged_diskstats_of_a_container_without_a_cgroup_of_blkio_is_empty() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    assert_eq!(live.seen("/proc/diskstats").trim(), "");
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
    let judge = |(bytes, counts): &(String, String), view: &str| -> Verdict {
        let mut expected = Vec::new();
        for disk in &disks {
            let number = format!("{}:{}", disk[0], disk[1]);
            if !bytes.contains(&format!("{number} Total")) {
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
