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

/// More threads than the quota has time for.
fn trigger(container: &mut Container) -> Result<()> {
    container.tell(&["trigger", "/proc/pressure/cpu", TRIGGER])?;
    container.tell(&["spin", "3"])?;
    let seen = container.tell(&["await-trigger", "20000"]);
    container.tell(&["rest"])?;
    equal("events", &seen?.as_str(), &"PollFlags(POLLPRI)")
}
