//! /proc/diskstats: what the container read from disks and wrote to them.
//!
//! Format: diskstats_show, block/genhd.c; as many columns as the running kernel prints.
//! Virtual: reads, writes, discards and their sectors; only disks that the container used.
//! Passed through: the names of the disks.
//! Invented: nothing; merges, times and flushes are 0.

use crate::cgroup::io::{DeviceIo, read_devices};
use crate::text::{fields, lines, parse_u64, put, trimmed};
use crate::{Bound, Context, Controller, Error, Facts, Needs, View};

/// /proc/diskstats.
pub const VIEW: View = View::new(33, "/proc/diskstats", render_view)
    .sources(
        "blkio.throttle.io_service_bytes_recursive, blkio.throttle.io_serviced_recursive",
        "io.stat",
    )
    .needs(Needs::CGROUP)
    .resizing();

/// There is no bound, because a disk gets a row with its first use.
fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let devices = match cx.cgroup()?.of(Controller::Io) {
        Some(hierarchy) => read_devices(hierarchy)?,
        None => Vec::new(),
    };
    render(&cx.host.read(facts.path)?, &devices, out);
    Ok(Bound::None)
}

/// Appends the rows in the host's order. A device that is gone, or has no statistics, has no row.
fn render(host: &[u8], devices: &[DeviceIo], out: &mut Vec<u8>) {
    for line in lines(host) {
        let mut row = fields(line);
        let numbers = (
            row.next().and_then(parse_u64),
            row.next().and_then(parse_u64),
        );
        let (Some(major), Some(minor)) = numbers else {
            continue;
        };
        let Some(name) = row.next().map(trimmed) else {
            continue;
        };
        let Some(io) = devices
            .iter()
            .find(|device| device.device == (major, minor))
        else {
            continue;
        };
        put(out, format_args!("{major:4} {minor:7} {name}"));
        for (column, _) in row.enumerate() {
            let value = match column {
                0 => io.reads,
                2 => io.read_bytes / 512,
                4 => io.writes,
                6 => io.written_bytes / 512,
                11 => io.discards,
                13 => io.discarded_bytes / 512,
                _ => 0,
            };
            put(out, format_args!(" {value}"));
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
        render(host, &[device], &mut out);
        assert_eq!(out, b" 254      16 vdb 1 0 2 0 3 0 8 0 0 0 0 5 0 1 0 0 0\n");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            render(&bytes, &[DeviceIo::default()], &mut Vec::new());
        }
    }
}
