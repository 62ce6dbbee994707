//! Processes: their ends, their children, their mounts.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal};

use crate::PATIENCE;

/// A pidfd of a process that must be there.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn open_pidfd(pid: u32) -> OwnedFd {
    match try_pidfd(pid) {
        Some(pidfd) => pidfd,
        None => panic!("there is no process {pid}"),
    }
}

/// A pidfd of a process, if it is there.
pub fn try_pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Whether the process of a pidfd ends within `limit`.
pub fn end_within(pidfd: &OwnedFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(ready) => return ready > 0,
            Err(error) => panic!("a pidfd cannot be polled: {error}"),
        }
    }
}

/// Whether the other end of a pipe is closed, by all who had it.
///
/// # Panics
/// When the descriptor cannot be polled.
#[track_caller]
pub fn has_ended(pipe: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
    match poll(&mut fds, Some(&timespec(Duration::ZERO))) {
        Ok(_) => fds[0].revents().contains(PollFlags::HUP),
        Err(error) => panic!("a pipe cannot be polled: {error}"),
    }
}

/// Wait for the end of a process that is about to end.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn wait_for_end(pidfd: &OwnedFd) {
    assert!(end_within(pidfd, PATIENCE), "a process does not end");
}

/// Kill a process, and wait until it is gone.
pub(crate) fn kill(pid: u32) {
    if let Some(pidfd) = try_pidfd(pid) {
        // It fails only when the process has just ended.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        end_within(&pidfd, PATIENCE);
    }
}

/// Send a process a signal.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn signal(pid: u32, signal: Signal) {
    let sent = pidfd_send_signal(open_pidfd(pid), signal);
    assert!(sent.is_ok(), "process {pid}: {sent:?}");
}

/// Wait for a process that has become a child of ours, and for all that end before: pid 1 of a pid namespace is
/// there until all others of it have been waited for.
///
/// # Panics
/// When it has not.
#[track_caller]
pub fn reap(pid: u32) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((id, _))) if id.as_raw_nonzero().get() == pid as i32 => return,
            Ok(_) => {}
            Err(error) => panic!("process {pid}: {error}"),
        }
    }
}

/// Where time itself is what is tested, and there is nothing to wait for.
pub fn let_time_pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        // A signal is no reason to stop waiting.
        let _ = poll(&mut [], Some(&timespec(left)));
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

/// The children of a process, but for zombies.
pub fn children_of(pid: u32) -> Vec<u32> {
    let all = procfs::process::all_processes().into_iter().flatten();
    // One that ends meanwhile is none of them.
    all.filter_map(|process| process.ok()?.stat().ok())
        .filter(|stat| u32::try_from(stat.ppid) == Ok(pid) && stat.state != 'Z')
        .filter_map(|stat| u32::try_from(stat.pid).ok())
        .collect()
}

/// A line of `/proc/<pid>/status`; none when the process is gone.
pub fn status_field(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().to_owned())
}

/// The mounts of a process, as its mountinfo has them. `thread-self` are those of the test.
///
/// # Panics
/// When they cannot be read.
#[track_caller]
pub fn mounts_of(process: impl std::fmt::Display) -> Vec<String> {
    match fs::read(format!("/proc/{process}/mountinfo")) {
        // What others mount may have any name.
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            text.lines().map(str::to_owned).collect()
        }
        Err(error) => panic!("the mounts of {process}: {error}"),
    }
}
