//! The costs of a process: memory, CPU time, and wake-ups.

use std::fs;
use std::time::Duration;

use eci_fs_protocol::error::{Error, Result};

/// Returns the resident memory in KiB.
pub(super) fn resident_kib(pid: u32) -> Result<u64> {
    Ok(status(&format!("/proc/{pid}/status"), "VmRSS:")?.unwrap_or(0))
}

/// Returns the CPU time of all threads.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nsec = 0;
    for task in tasks(pid)? {
        // The first number of schedstat is in nanoseconds; stat only has ticks. A thread may end meanwhile.
        if let Ok(text) = fs::read_to_string(format!("{task}/schedstat")) {
            nsec += text
                .split_ascii_whitespace()
                .next()
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nsec))
}

/// Returns the number of voluntary context switches of all threads: each is a wake-up.
pub(super) fn wake_ups(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in tasks(pid)? {
        // A thread may end meanwhile.
        sum += status(&format!("{task}/status"), "voluntary_ctxt_switches:")
            .ok()
            .flatten()
            .unwrap_or(0);
    }
    Ok(sum)
}

/// Returns the number of open descriptors.
pub(super) fn descriptors(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/fd");
    let count = fs::read_dir(&path)
        .map_err(|e| Error::io("read", &path, e))?
        .count();
    Ok(count as u64)
}

/// Returns the first child of a process. The first child of the daemon is the server.
pub(super) fn child(parent: u32) -> Result<u32> {
    let wanted = u64::from(parent);
    let entries = fs::read_dir("/proc").map_err(|e| Error::io("read", "/proc", e))?;
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if status(&format!("/proc/{pid}/status"), "PPid:")
            .ok()
            .flatten()
            == Some(wanted)
        {
            return Ok(pid);
        }
    }
    Err(Error::not_found(format!("process {parent} has no child")))
}

fn tasks(pid: u32) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).map_err(|e| Error::io("read", &path, e))?;
    Ok(entries
        .flatten()
        .map(|entry| format!("{path}/{}", entry.file_name().display()))
        .collect())
}

/// Returns the number after `key` in a status file.
fn status(path: &str, key: &str) -> Result<Option<u64>> {
    let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    Ok(text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_costs_something() {
        let own = std::process::id();
        assert!(resident_kib(own).unwrap() > 0);
        assert!(descriptors(own).unwrap() > 2);
        assert!(wake_ups(own).is_ok() && cpu_time(own).is_ok());
        assert!(resident_kib(0).is_err());
    }
}
