//! The effects on readers when a program dies, hangs or is replaced.
//!
//! From Linux 6.9 on, the kernel resends the requests that a dead server had read, and nothing is lost. On older
//! kernels only the requests that were being answered fail.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::memory::same_meminfo;
use super::stat::nothing_wrong;
use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::within;
use crate::report::{Report, equal};

const MIB: u64 = 1 << 20;

/// How often each is done.
const TIMES: usize = 5;

/// How long a server that hangs is waited for: a second until it is asked, three for its answer, and the machine is
/// an emulated one.
const HANG: Duration = Duration::from_secs(30);

pub(super) fn checks(report: &mut Report) {
    report.group("a server that is killed", killed);
    report.group("a server that hangs", hanging);
    report.group("a daemon that is killed", without_daemon);
    report.group("programs that are replaced", replaced);
    report.group("both killed", both);
}

/// One of the two programs that run, by the file in which the daemon notes it.
pub(super) fn process(file: &str) -> Result<Pid> {
    let path = format!("/run/eci-fs/{file}");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let pid = text
        .split([' ', '\n'])
        .next()
        .and_then(|pid| pid.parse().ok());
    pid.and_then(Pid::from_raw).ok_or(text)
}

/// Send it a signal; if that ends it, wait for that.
pub(super) fn signal(file: &str, signal: Signal) -> Result<()> {
    let pidfd = pidfd_open(process(file)?, PidfdFlags::empty()).map_err(|e| e.to_string())?;
    pidfd_send_signal(&pidfd, signal).map_err(|e| e.to_string())?;
    if signal == Signal::KILL {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        rustix::event::poll(&mut fds, None).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// A container in which views of all kinds are read over and over.
fn watching(name: &str) -> Result<(Cgroup, Container)> {
    let cgroup = Cgroup::new(name)?;
    cgroup.set("memory.max", &(96 * MIB).to_string())?;
    let mut container = Container::attach(&cgroup, false)?;
    let mut command = vec![
        "watch",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/uptime",
        "/proc/loadavg",
    ];
    let grafts = container.grafts()?;
    for live in ["/proc/vmstat", "/proc/pressure/cpu", "/proc/zoneinfo"] {
        if grafts.contains(live) {
            command.push(live);
        }
    }
    container.tell(&command)?;
    Ok((cgroup, container))
}

/// Stop reading: what was seen, and whether all works now.
fn judge(
    report: &mut Report,
    cgroup: Cgroup,
    mut container: Container,
    resent: bool,
) -> Result<()> {
    let watched = container.tell(&["watched"])?;
    if resent {
        let name = "no read is lost, and nothing falls";
        report.check(name, nothing_wrong(&watched));
    } else {
        let name = "only what was being answered fails";
        report.check(name, only_aborted(&watched));
    }
    report.check("meminfo afterwards", same_meminfo(&mut container));
    container.end()?;
    cgroup.remove()
}

/// Errors that say that a request was cut off, and none else. The page cache says EIO.
fn only_aborted(watched: &str) -> Result<()> {
    let others: Vec<&str> = watched
        .lines()
        .skip(1)
        .filter(|line| !line.contains("os error 103") && !line.contains("os error 5)"))
        .collect();
    equal("wrong", &others, &Vec::new())
}

/// A read that must work, now or after the ones that were cut off.
fn works(container: &mut Container, path: &str) -> Result<()> {
    let read = || match container.ask(&["read", path]) {
        Ok(_) => Ok("read".to_owned()),
        Err(error) => Ok(error),
    };
    within(HANG, read, |seen| equal(path, &seen, &"read"))
}

fn killed(report: &mut Report) -> Result<()> {
    let (cgroup, mut container) = watching("killed")?;
    for _ in 0..TIMES {
        signal("server", Signal::KILL)?;
        works(&mut container, "/proc/uptime")?;
        works(&mut container, "/proc/stat")?;
    }
    judge(report, cgroup, container, can_resend()?)
}

fn hanging(report: &mut Report) -> Result<()> {
    let (cgroup, mut container) = watching("hanging")?;
    let before = process("server")?;
    signal("server", Signal::STOP)?;
    works(&mut container, "/proc/uptime")?;
    works(&mut container, "/proc/stat")?;
    report.check(
        "another one answers",
        match process("server")? == before {
            true => Err("it is the same".to_owned()),
            false => Ok(()),
        },
    );
    judge(report, cgroup, container, can_resend()?)
}

fn without_daemon(report: &mut Report) -> Result<()> {
    let (cgroup, mut container) = watching("without-daemon")?;
    for _ in 0..TIMES {
        let server = process("server")?;
        signal("lock", Signal::KILL)?;
        works(&mut container, "/proc/stat")?;
        // A command starts the next daemon, which goes on with the server.
        eci_fs(&["attach", &container.pid.to_string()])?;
        equal("the server", &process("server")?, &server)?;
        works(&mut container, "/proc/stat")?;
    }
    // The server goes on: on no kernel is anything lost.
    judge(report, cgroup, container, true)
}

fn replaced(report: &mut Report) -> Result<()> {
    let (cgroup, mut container) = watching("replaced")?;
    for _ in 0..TIMES {
        let before = (process("lock")?, process("server")?);
        eci_fs(&["upgrade"])?;
        let after = (process("lock")?, process("server")?);
        if before.0 == after.0 || before.1 == after.1 {
            return Err(format!("{before:?} became {after:?}"));
        }
        works(&mut container, "/proc/stat")?;
    }
    // Each request is answered before the next server begins.
    judge(report, cgroup, container, true)
}

fn both(report: &mut Report) -> Result<()> {
    let cgroup = Cgroup::new("both")?;
    cgroup.set("memory.max", &(96 * MIB).to_string())?;
    let mut container = Container::attach(&cgroup, false)?;
    let grafts = container.grafts()?;
    for _ in 0..2 {
        signal("lock", Signal::KILL)?;
        signal("server", Signal::KILL)?;
        let dead = container.ask(&["read", "/proc/meminfo"]);
        report.check(
            "nothing of the host is shown",
            match dead {
                Ok(_) => Err("it can be read".to_owned()),
                Err(_) => Ok(()),
            },
        );
        eci_fs(&["attach", &container.pid.to_string()])?;
        report.check("meminfo is grafted anew", same_meminfo(&mut container));
        let now = container.grafts()?;
        report.equal("all is grafted", &now, &grafts);
    }
    eci_fs(&["detach", &container.pid.to_string()])?;
    report.equal("none of the dead is left", &container.grafts()?.len(), &0);
    container.end()?;
    cgroup.remove()
}

pub(super) fn eci_fs(arguments: &[&str]) -> Result<String> {
    let output = Command::new("/bin/eci-fs")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "eci-fs {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Whether the kernel sends requests again (Linux 6.9).
fn can_resend() -> Result<bool> {
    let release = crate::expect::host("/proc/sys/kernel/osrelease")?;
    let mut parts = release.split(['.', '-']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor) >= (6, 9)),
        _ => Err(release),
    }
}
