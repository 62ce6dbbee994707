//! The I/O of the container on block devices, for the files that show it.

use crate::cgroup::io::{self, DeviceIo};
use crate::{Context, Controller, Error};

/// Reads the I/O of the container on each device that it has used. The kernel accounts for whole disks only, so no
/// partition is among them.
pub(crate) fn read(cx: &Context<'_>) -> Result<Vec<DeviceIo>, Error> {
    match cx.cgroup()?.of(Controller::Io) {
        Some(hierarchy) => io::read_devices(hierarchy),
        None => Ok(Vec::new()),
    }
}

/// Returns the figure in a column of /proc/diskstats, counted from 0 after the name. The columns of
/// /sys/block/DISK/stat are the same (Documentation/admin-guide/iostats.rst).
pub(crate) fn figure(io: &DeviceIo, column: usize) -> u64 {
    const SECTOR: u64 = 512;
    match column {
        0 => io.reads,
        2 => io.read_bytes / SECTOR,
        4 => io.writes,
        6 => io.written_bytes / SECTOR,
        11 => io.discards,
        13 => io.discarded_bytes / SECTOR,
        // Merges, times and flushes: a cgroup has no such figures.
        _ => 0,
    }
}
