//! /proc/pressure: the files of the cgroup, and triggers.

use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::steady;
use crate::report::{Report, equal};

/// More stalls than this in a window fire a trigger. The window is the shortest that the kernel
/// takes from whoever may not have others.
const TRIGGER: &str = "some 50000 2000000";

pub(super) fn checks(report: &mut Report) {
    report.group("pressure", |report| {
        let cgroup = Cgroup::new("pressure")?;
        cgroup.set("cpu.max", "20000 100000")?;
        let mut container = Container::attach(&cgroup, false)?;
        for resource in ["cpu", "memory", "io", "irq"] {
            file(report, &mut container, resource)?;
        }
        if container.grafts()?.contains("/proc/pressure/cpu") {
            report.check("a trigger fires", trigger(&mut container));
            for wrong in ["some 1", "nonsense 1 2", "some 3000000 2000000"] {
                let result = container.ask(&["trigger", "/proc/pressure/cpu", wrong]);
                report.equal(
                    &format!("the trigger {wrong:?} is refused"),
                    &result.err().as_deref(),
                    &Some("EINVAL"),
                );
            }
        }
        container.end()?;
        let mut container = Container::attach(&cgroup, true)?;
        if container.grafts()?.contains("/proc/pressure/cpu") {
            report.check(
                "a trigger has the privilege of the container",
                unprivileged(&mut container),
            );
        }
        container.end()?;
        cgroup.remove()
    });
}

fn file(report: &mut Report, container: &mut Container, resource: &str) -> Result<()> {
    let path = format!("/proc/pressure/{resource}");
    if !container.grafts()?.contains(&path) {
        report.skip(&path, "no graft");
        return Ok(());
    }
    let file = format!("{resource}.pressure");
    if !container.cgroup.has(&file) {
        report.skip(&path, "this kernel keeps no such figure for a cgroup");
        return Ok(());
    }
    let cgroup = container.cgroup.clone();
    let result = steady(
        || cgroup.read(&file),
        || container.read(&path),
        // Its size is constant: spaces end its last line.
        |source, view| equal("the text", &view.trim_end(), &source.trim_end()),
    );
    report.check(&format!("{path} is the cgroup's"), result);
    Ok(())
}

/// Without CAP_SYS_RESOURCE on the host a trigger has a window of whole two seconds, and no real-time thread of the kernel.
/// Before Linux 6.5 there are none, and Linux 5.10 asks for no privilege.
fn unprivileged(container: &mut Container) -> Result<()> {
    let before = real_time_threads()?;
    let mut set = |trigger| {
        let result = container.ask(&["trigger", "/proc/pressure/cpu", trigger]);
        result.map_or_else(|error| error, |_| "set".to_owned())
    };
    let got = [set("some 50000 1000000"), set(TRIGGER)];
    let got = got.each_ref().map(String::as_str);
    let release = crate::expect::host("/proc/sys/kernel/osrelease")?;
    if release.starts_with("5.") && got == ["set", "set"] {
        return Ok(());
    }
    if !matches!(got, ["EINVAL", "set"] | ["EPERM", "EPERM"]) {
        return Err(format!("windows of one and two seconds: {got:?}"));
    }
    equal("threads psimon", &real_time_threads()?, &before)
}

/// The number of threads of the kernel that watch pressure.
fn real_time_threads() -> Result<usize> {
    let processes = std::fs::read_dir("/proc").map_err(|e| e.to_string())?;
    let names =
        processes.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok());
    Ok(names.filter(|name| name.trim_end() == "psimon").count())
}

/// More threads than the quota has time for.
fn trigger(container: &mut Container) -> Result<()> {
    container.tell(&["trigger", "/proc/pressure/cpu", TRIGGER])?;
    container.tell(&["spin", "3"])?;
    let seen = container.tell(&["await-trigger", "20000"]);
    container.tell(&["rest"])?;
    equal("events", &seen?.as_str(), &"PollFlags(POLLPRI)")
}
