//! The CPUs of a container: all files show the same ones.

use std::time::Duration;

use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::{Cpus, host, parse_list, within};
use crate::report::{Report, equal};

const CPU: &str = "/sys/devices/system/cpu";

/// How soon a static view shows a change of which the kernel sends no event.
const STATIC: Duration = Duration::from_millis(1500);

pub(super) fn checks(report: &mut Report) {
    report.group("cpus of `run`", |report| {
        let mut container = Container::run(&["--cpus", "1.5", "--cpuset", "1-3"])?;
        every_file(report, "a cpuset and a quota", &mut container)?;
        container.end()
    });
    report.group("cpus below a shared quota", |report| {
        let pod = Cgroup::new("pod-cpus")?;
        let app = pod.child("app")?;
        pod.set("cpu.max", "150000 100000")?;
        pod.set("cpuset.cpus", "1-3")?;
        app.set("cpu.max", "500000 100000")?;
        let mut container = Container::attach(&app, false)?;
        every_file(report, "what is above binds", &mut container)?;
        changes(report, &pod, &app, &mut container)?;
        container.end()?;
        app.remove()?;
        pod.remove()
    });
}

fn changes(
    report: &mut Report,
    pod: &Cgroup,
    app: &Cgroup,
    container: &mut Container,
) -> Result<()> {
    pod.set("cpuset.cpus", "3")?;
    every_file(report, "the parent's cpuset changed", container)?;
    pod.set("cpuset.cpus", "1-3")?;
    app.set("cpuset.cpus", "2-3")?;
    every_file(report, "a cpuset of its own", container)?;
    app.set("cpu.max", "1000 100000")?;
    every_file(report, "a quota below one tick", container)?;
    app.set("cpu.max", "max")?;
    pod.set("cpu.max", "max")?;
    every_file(report, "no quota", container)?;
    pod.set("cpuset.cpus", "0-3")?;
    app.set("cpuset.cpus", "0")?;
    every_file(report, "another cpuset", container)?;
    app.set("cpuset.cpus", "0-3")?;
    app.set("cpu.max", "800000 100000")?;
    every_file(report, "all CPUs and a quota above them", container)
}

/// Waits for the change to be seen, then asks every file.
fn every_file(report: &mut Report, when: &str, container: &mut Container) -> Result<()> {
    let cpus = Cpus::read(&container.cgroup)?;
    let online = format!("{CPU}/online");
    let seen = within(
        STATIC,
        || container.read(&online),
        |view| equal("online", &parse_list(view)?, &cpus.visible),
    );
    report.check(&format!("{when}: online"), seen);

    let Cpus {
        allowed, visible, ..
    } = &cpus;
    let mut list = |name: &str, expected: &[u32]| {
        let path = format!("{CPU}/{name}");
        let result = within(
            STATIC,
            || container.read(&path),
            |view| equal(name, &parse_list(view)?, &expected.to_vec()),
        );
        report.check(&format!("{when}: {name}"), result);
    };
    let machine = |name: &str| parse_list(&host(&format!("{CPU}/{name}"))?);
    let possible = machine("possible")?;
    list("possible", &possible);
    list("present", &machine("present")?);
    let hidden = possible.into_iter().filter(|id| !visible.contains(id));
    list("offline", &hidden.collect::<Vec<_>>());

    let mut columns = |path: &str, ids: fn(&str) -> Vec<u32>| {
        let result = within(
            STATIC,
            || container.read(path),
            |view| equal(path, &ids(view), visible),
        );
        report.check(&format!("{when}: {path}"), result);
    };
    columns("/proc/cpuinfo", |view| {
        let blocks = view.lines().filter(|line| line.starts_with("processor"));
        blocks.filter_map(last_number).collect()
    });
    columns("/proc/stat", |view| {
        let rows = view.lines().filter_map(|line| line.strip_prefix("cpu"));
        rows.filter_map(|row| row.split(' ').next()?.parse().ok())
            .collect()
    });
    let affinity = container.tell(&["affinity"])?;
    let affinity: Vec<u32> = affinity
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect();
    report.equal(
        &format!("{when}: sched_getaffinity is the cpuset"),
        &affinity,
        allowed,
    );
    let result = container.read("/proc/cpuinfo");
    report.check(
        &format!("{when}: the blocks of cpuinfo"),
        result.and_then(|view| blocks(&view, visible)),
    );
    Ok(())
}

fn last_number(line: &str) -> Option<u32> {
    line.rsplit(' ').next()?.parse().ok()
}

/// Each block is the machine's, but for what says how many there are.
fn blocks(view: &str, visible: &[u32]) -> Result<()> {
    let kernel = host("/proc/cpuinfo")?;
    let machine: Vec<&str> = kernel.trim_end().split("\n\n").collect();
    let package = |id: u32| {
        let path = format!("{CPU}/cpu{id}/topology/physical_package_id");
        host(&path).map(|text| text.trim().to_owned())
    };
    for (block, id) in view.trim_end().split("\n\n").zip(visible) {
        let theirs = machine.get(*id as usize).copied().unwrap_or_default();
        equal("lines", &block.lines().count(), &theirs.lines().count())?;
        let own = package(*id)?;
        let siblings = visible
            .iter()
            .filter(|id| package(**id).as_ref() == Ok(&own));
        let siblings = siblings.count().to_string();
        for (got, expected) in block.lines().zip(theirs.lines()) {
            let (key, value) = got.split_once(':').ok_or(got)?;
            match key.trim() {
                // Every CPU of these machines is a core.
                "siblings" | "cpu cores" => equal(key, &value.trim(), &siblings.as_str())?,
                "cpu MHz" => {}
                _ => equal(key, &got, &expected)?,
            }
        }
    }
    Ok(())
}
