//! /proc/diskstats: what the container read from disks and wrote to them.
//!
//! Format: diskstats_show, block/genhd.c; as many columns as the running kernel prints.
//! Virtual: reads, writes, discards and their sectors; only disks that the container used, and those of its mounts.
//! Passed through: the names of the disks.
//! Invented: nothing; merges, times and flushes are 0.

use crate::cgroup::io::DeviceIo;
use crate::model::disks::{figure, read};
use crate::text::{fields, lines, parse_u64, put, trimmed};
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /proc/diskstats.
pub const VIEW: View = View::new(33, "/proc/diskstats", render_view)
    .sources(
        "blkio.throttle.io_service_bytes_recursive, blkio.throttle.io_serviced_recursive; the devices of its mounts",
        "io.stat; the devices of its mounts",
    )
    .needs(Needs::CGROUP);

/// There is no bound, because a disk gets a row with its first use.
fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let host = cx.host.read(facts.path)?;
    render(&host, &read(cx)?, &cx.identity().disks, out);
    Ok(Bound::None)
}

/// One row of the host.
struct Row<'a> {
    device: (u64, u64),
    name: &'a str,
    /// The number of columns after the name.
    columns: usize,
    /// True if it is shown though the container has not used it.
    is_mounted: bool,
}

/// Returns the rows of the host, with a mark at each of `mounted` devices, and at the disk of each mounted partition:
/// readers look for the disk of a partition.
fn rows<'a>(host: &'a [u8], mounted: &[(u64, u64)]) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    // The kernel prints a disk before its partitions.
    let mut disk: Option<usize> = None;
    for line in lines(host) {
        let mut columns = fields(line);
        let mut number = || columns.next().and_then(parse_u64);
        let (Some(major), Some(minor)) = (number(), number()) else {
            continue;
        };
        let Some(name) = columns.next().map(trimmed) else {
            continue;
        };
        let device = (major, minor);
        let is_mounted = mounted.contains(&device);
        let whole = disk.and_then(|index| rows.get_mut(index));
        match whole.filter(|disk| is_partition(name, disk.name)) {
            Some(disk) => disk.is_mounted |= is_mounted,
            None => disk = Some(rows.len()),
        }
        rows.push(Row {
            device,
            name,
            columns: columns.count(),
            is_mounted,
        });
    }
    rows
}

/// Returns whether a name is that of a partition of a disk: `sda1`, `nvme0n1p1` (add_partition,
/// block/partitions/core.c).
fn is_partition(name: &str, disk: &str) -> bool {
    let separator = match disk.ends_with(|last: char| last.is_ascii_digit()) {
        true => "p",
        false => "",
    };
    let number = name
        .strip_prefix(disk)
        .and_then(|rest| rest.strip_prefix(separator));
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Appends the rows in the host's order. A device that is gone, or has no statistics, has no row.
fn render(host: &[u8], devices: &[DeviceIo], mounted: &[(u64, u64)], out: &mut Vec<u8>) {
    let unused = DeviceIo::default();
    for row in rows(host, mounted) {
        let used = devices.iter().find(|io| io.device == row.device);
        let Some(io) = used.or_else(|| row.is_mounted.then_some(&unused)) else {
            continue;
        };
        let (major, minor) = row.device;
        put(out, format_args!("{major:4} {minor:7} {}", row.name));
        for column in 0..row.columns {
            put(out, format_args!(" {}", figure(io, column)));
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn disks_that_were_not_used_have_no_row() {
        let host = b" 254       0 vda 98 0 23328 23 0 0 0 0 0 20 23 0 0 0 0 0 0\n 254      16 vdb 3 0 24 1 19 2725 21944 158 0 104 160 0 0 0 0 1 0\n";
        let device = DeviceIo {
            device: (254, 16),
            reads: 1,
            read_bytes: 1024,
            writes: 3,
            written_bytes: 4096,
            discards: 5,
            discarded_bytes: 512,
        };
        let mut out = Vec::new();
        render(host, &[device], &[], &mut out);
        assert_eq!(out, b" 254      16 vdb 1 0 2 0 3 0 8 0 0 0 0 5 0 1 0 0 0\n");
    }

    #[test]
    fn a_mounted_device_and_the_disk_that_it_is_a_part_of_have_rows_of_zeros() {
        let host =
            b"   8       0 sda 1 2 3 4\n   8       1 sda1 5 6 7 8\n   8       2 sda2 5 6 7 8\n\
              65     160 sdaa 1 2 3 4\n   7       1 loop1 1 2 3 4\n   7      10 loop10 1 2 3 4\n";
        let mut out = Vec::new();
        render(host, &[], &[(8, 2), (7, 10), (0, 44)], &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "   8       0 sda 0 0 0 0\n   8       2 sda2 0 0 0 0\n   7      10 loop10 0 0 0 0\n"
        );
    }

    #[test]
    fn a_partition_has_the_name_of_its_disk_and_a_number() {
        for (name, disk) in [
            ("sda1", "sda"),
            ("nvme0n1p12", "nvme0n1"),
            ("loop0p1", "loop0"),
        ] {
            assert!(is_partition(name, disk), "{name}");
        }
        for (name, disk) in [
            ("sda", "sda"),
            ("sdaa", "sda"),
            ("sdb1", "sda"),
            ("loop10", "loop1"),
            ("nvme0n1p", "nvme0n1"),
            ("dm-10", "dm-1"),
        ] {
            assert!(!is_partition(name, disk), "{name}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            render(&bytes, &[DeviceIo::default()], &[(1, 2)], &mut Vec::new());
        }
    }
}
