//! Programs that look at disks and at the hardware: iostat, psutil, lsmem, lshw.

use crate::Means::{Container, Machine};
use crate::said::read;
use crate::{Means, Said, Seen};

const DISKSTATS: &str = "/proc/diskstats, /sys/block/DISK/stat";

/// Returns the bytes that the machine has read from disks and written to them.
fn machine_bytes() -> u64 {
    let sectors = |row: &str| -> u64 {
        let columns: Vec<u64> = row
            .split_whitespace()
            .skip(3)
            .map(|column| column.parse().unwrap())
            .collect();
        columns[2] + columns[6]
    };
    read("/proc/diskstats").lines().map(sectors).sum::<u64>() * 512
}

/// Checks bytes that were read and written: those of the machine, or the few of a container that has just begun.
#[track_caller]
fn is_traffic(said: &Said, bytes: u64, means: Means) {
    let machine = machine_bytes();
    assert!(machine > 64 << 20, "the machine has done nothing yet");
    // Partitions count twice on the machine.
    let is_machines = bytes > machine / 4;
    assert_eq!(
        is_machines,
        means == Machine,
        "{bytes} of {machine} bytes are not {}: {said:#?}",
        means.word()
    );
}

#[test]
fn privileged_iostat_reports_the_disks_and_the_traffic_of_the_container() {
    let script = "export S_TIME_FORMAT=ISO; iostat -d -k; iostat -d -k -p ALL > /dev/null";
    let seen = Seen::of("iostat", "sysstat", script);
    seen.row(
        "reads and writes",
        Machine,
        Container,
        DISKSTATS,
        |said, means| {
            let mut lines = said
                .text
                .lines()
                .skip_while(|line| !line.starts_with("Device"));
            let heading: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
            let column = |name: &str| heading.iter().position(|other| *other == name).unwrap();
            let (tps, reads, writes) = (column("tps"), column("kB_read"), column("kB_wrtn"));
            let mut kib = 0.0;
            let mut rows = 0;
            for line in lines.filter(|line| !line.trim().is_empty()) {
                let cells: Vec<&str> = line.split_whitespace().collect();
                let number = |index: usize| cells[index].parse::<f64>().unwrap();
                // The traffic of the host since its boot in the short time of a container gives millions.
                assert!(means == Machine || number(tps) < 1e6, "{said:#?}");
                kib += number(reads) + number(writes);
                rows += 1;
            }
            // iostat leaves out a disk that was never used.
            assert!(rows > 0 || means == Container, "{said:#?}");
            is_traffic(said, (kib * 1024.0) as u64, means);
        },
    );
}

/// Debian's Python, for its psutil is asked for.
const PSUTIL: &str = r#"/usr/bin/python3 -c '
import psutil
io = psutil.disk_io_counters()
print(io.read_bytes + io.write_bytes, len(psutil.disk_io_counters(perdisk=True)))'"#;

#[test]
fn privileged_psutil_finds_the_disks_of_the_container_and_their_traffic() {
    let seen = Seen::of("python3", "python3-psutil", PSUTIL);
    let row = "`psutil.disk_io_counters()`";
    seen.row(row, Machine, Container, "/proc/diskstats", |said, means| {
        let numbers: Vec<u64> = said
            .text
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(numbers[1] > 0, "{said:#?}");
        is_traffic(said, numbers[0], means);
    });
}

#[test]
fn privileged_lsmem_reports_the_memory_of_the_container() {
    let seen = Seen::of("lsmem", "util-linux", "lsmem --summary=only --bytes");
    let blocks = "/sys/devices/system/memory";
    seen.row(
        "online memory",
        Machine,
        Container,
        blocks,
        |said, means| {
            let mut lines = said.text.lines();
            let online = lines.find_map(|line| line.strip_prefix("Total online memory:"));
            let bytes = online.unwrap().trim().parse::<u64>().unwrap();
            said.is_memory(bytes, means);
        },
    );
}

#[test]
fn privileged_lshw_asks_the_kernel_for_the_memory() {
    let script = "lshw -quiet -C memory -json -sanitize";
    let seen = Seen::of("lshw", "lshw", script);
    seen.row(
        "size of the memory",
        Machine,
        Machine,
        "sysinfo(2)",
        |said, means| {
            let size = said.text.split("\"size\" : ").nth(1).unwrap();
            let digits: String = size.chars().take_while(char::is_ascii_digit).collect();
            said.is_memory(digits.parse().unwrap(), means);
        },
    );
}
