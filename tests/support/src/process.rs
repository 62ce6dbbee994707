//! Processes: their ends, their children, their mounts.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal};

use crate::PATIENCE;

/// Returns a pidfd of a process that must exist.
///
/// # Panics
/// When there is no such process.
#[track_caller]
pub fn open_pidfd(pid: u32) -> OwnedFd {
    match try_pidfd(pid) {
        Some(pidfd) => pidfd,
        None => panic!("there is no process {pid}"),
    }
}

/// Returns a pidfd of a process, if it exists.
pub fn try_pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Returns whether the process of a pidfd ends within `limit`.
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

/// Returns whether all holders of the other end of a pipe have closed it.
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

/// Waits for the end of a process that is ending.
///
/// # Panics
/// When the process does not end.
#[track_caller]
pub fn wait_for_end(pidfd: &OwnedFd) {
    assert!(end_within(pidfd, PATIENCE), "a process does not end");
}

/// Kills a process, and waits until it is gone.
pub(crate) fn kill(pid: u32) {
    if let Some(pidfd) = try_pidfd(pid) {
        // This fails only when the process has just ended.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        end_within(&pidfd, PATIENCE);
    }
}

/// Sends a signal to a process.
///
/// # Panics
/// When there is no such process.
#[track_caller]
pub fn signal(pid: u32, signal: Signal) {
    let sent = pidfd_send_signal(open_pidfd(pid), signal);
    assert!(sent.is_ok(), "process {pid}: {sent:?}");
}

/// Waits for an orphan that has become a child of this process, and for all children that end before it. Pid 1 of a
/// pid namespace ends only after all its other processes have been waited for.
///
/// # Panics
/// When the process does not end.
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

/// Sleeps. Only tests of time itself may use this, where there is no event to wait for.
pub fn let_time_pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        // After a signal the rest of the time is waited for.
        let _ = poll(&mut [], Some(&timespec(left)));
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

/// Returns the children of a process, without zombies.
pub fn children_of(pid: u32) -> Vec<u32> {
    let all = procfs::process::all_processes().into_iter().flatten();
    // One that ends meanwhile is none of them.
    all.filter_map(|process| process.ok()?.stat().ok())
        .filter(|stat| u32::try_from(stat.ppid) == Ok(pid) && stat.state != 'Z')
        .filter_map(|stat| u32::try_from(stat.pid).ok())
        .collect()
}

/// Returns the value of a line of `/proc/<pid>/status`. Returns none when the process has ended.
pub fn status_field(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().to_owned())
}

/// Returns the mounts of a process from its mountinfo. `thread-self` names the thread of the test.
///
/// # Panics
/// When the mounts cannot be read.
#[track_caller]
pub fn mounts_of(process: impl std::fmt::Display) -> Vec<String> {
    match fs::read(format!("/proc/{process}/mountinfo")) {
        // Mount points of others may be no UTF-8.
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            text.lines().map(str::to_owned).collect()
        }
        Err(error) => panic!("the mounts of {process}: {error}"),
    }
}
