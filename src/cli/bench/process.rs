//! The costs of a process: memory, CPU time, and wake-ups.

use std::io;
use std::time::Duration;

use eci_fs_protocol::error::{Error, Result};
use procfs::ProcError;
use procfs::process::{Process, Task, all_processes};
use rustix::io::Errno;

/// Returns the resident memory in KiB.
pub(super) fn resident_kib(pid: u32) -> Result<u64> {
    let status = process(pid)?.status().map_err(|e| trouble(pid, e))?;
    Ok(status.vmrss.unwrap_or(0))
}

/// Returns the CPU time of all threads.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    // schedstat counts in nanoseconds; stat has only ticks. A thread may end meanwhile.
    let of_one = |task: Task| task.schedstat().map_or(0, |stat| stat.sum_exec_runtime);
    Ok(Duration::from_nanos(tasks(pid)?.map(of_one).sum()))
}

/// Returns the number of voluntary context switches of all threads: each is a wake-up.
pub(super) fn wake_ups(pid: u32) -> Result<u64> {
    // A thread may end meanwhile.
    let of_one = |task: Task| task.status().ok()?.voluntary_ctxt_switches;
    Ok(tasks(pid)?.filter_map(of_one).sum())
}

/// Returns the number of open descriptors.
pub(super) fn descriptors(pid: u32) -> Result<u64> {
    let count = process(pid)?.fd_count().map_err(|e| trouble(pid, e))?;
    Ok(count as u64)
}

/// Returns the first child of a process. The first child of the daemon is the server.
pub(super) fn child(parent: u32) -> Result<u32> {
    let all = all_processes().map_err(|e| Error::io("read", "/proc", plain(e)))?;
    // One that ends meanwhile is none of them.
    let mut stats = all.filter_map(|process| process.ok()?.stat().ok());
    stats
        .find(|stat| u32::try_from(stat.ppid) == Ok(parent))
        .and_then(|stat| u32::try_from(stat.pid).ok())
        .ok_or_else(|| Error::not_found(format!("process {parent} has no child")))
}

fn process(pid: u32) -> Result<Process> {
    let number = i32::try_from(pid).unwrap_or(i32::MAX);
    Process::new(number).map_err(|e| trouble(pid, e))
}

fn tasks(pid: u32) -> Result<impl Iterator<Item = Task>> {
    let tasks = process(pid)?.tasks().map_err(|e| trouble(pid, e))?;
    Ok(tasks.flatten())
}

fn trouble(pid: u32, error: ProcError) -> Error {
    Error::io("read", format!("/proc/{pid}"), plain(error))
}

/// The error of the system call, which has the words that other errors have.
fn plain(error: ProcError) -> io::Error {
    match error {
        ProcError::PermissionDenied(_) => Errno::ACCESS.into(),
        ProcError::NotFound(_) => Errno::NOENT.into(),
        ProcError::Io(error, _) => error,
        other => io::Error::other(other.to_string()),
    }
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
