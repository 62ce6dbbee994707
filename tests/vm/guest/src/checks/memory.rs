//! /proc/meminfo and /proc/swaps.

use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::{Memory, SLACK, host, meminfo, steady};
use crate::report::{Report, between, equal};

const MIB: u64 = 1 << 20;

pub(super) fn checks(report: &mut Report) {
    report.group("memory of `run`", |report| {
        let options = ["--memory", "96M", "--swap", "16M"];
        let mut container = Container::run(&options)?;
        report.equal(
            "MemTotal is the limit",
            &total(&mut container)?,
            &(96 * 1024),
        );
        use_memory(report, &mut container)?;
        container.end()
    });
    report.group("memory below a shared limit", below_a_shared_limit);
    report.group("memory without limits", without_limits);
    report.group("swap", swap);
    report.group("huge pages", huge_pages);
}

fn total(container: &mut Container) -> Result<u64> {
    let lines = meminfo(&container.read("/proc/meminfo")?);
    lines
        .get("MemTotal")
        .copied()
        .ok_or_else(|| "no MemTotal".to_owned())
}

/// Compares every line while the container holds different kinds of memory.
fn use_memory(report: &mut Report, container: &mut Container) -> Result<()> {
    report.check("meminfo of an idle container", same_meminfo(container));
    container.tell(&["hold", &(12 * MIB).to_string()])?;
    report.check("meminfo with anonymous memory", same_meminfo(container));
    container.tell(&["fill", "/dev/shm/of-a-container", &(3 * MIB).to_string()])?;
    report.check("meminfo with shared memory", same_meminfo(container));
    container.tell(&["read-device", "/dev/vda", &(4 * MIB).to_string()])?;
    report.check("meminfo with a page cache", same_meminfo(container));

    swap_out(&container.cgroup)?;
    let swapped = container.cgroup.number("memory.swap.current")?;
    report.check(
        "the kernel has swapped",
        match swapped {
            Some(bytes) if bytes > 0 => Ok(()),
            other => Err(format!("expected some bytes got {other:?}")),
        },
    );
    report.check("meminfo with swap in use", same_meminfo(container));
    report.check("swaps with swap in use", same_swaps(container));
    container.tell(&["drop"])?;
    report.check("meminfo after all was given back", same_meminfo(container));
    std::fs::remove_file("/dev/shm/of-a-container").map_err(|e| e.to_string())
}

/// Has the kernel reclaim some memory of a cgroup, which it does before the write returns. Not by
/// `memory.max`: where too little can be reclaimed, that kills.
pub(super) fn swap_out(cgroup: &Cgroup) -> Result<()> {
    let current = cgroup.number("memory.current")?.unwrap_or(0);
    cgroup.set("memory.high", &(current - 8 * MIB).to_string())?;
    cgroup.set("memory.high", "max")
}

/// Every line of meminfo, against the cgroup.
pub(super) fn same_meminfo(container: &mut Container) -> Result<()> {
    let cgroup = container.cgroup.clone();
    steady(
        || Memory::read(&cgroup),
        || container.read("/proc/meminfo"),
        judge_meminfo,
    )
}

/// Every line of a text of meminfo, against the figures.
pub(crate) fn judge_meminfo(memory: &Memory, view: &str) -> Result<()> {
    let kernel = host("/proc/meminfo")?;
    equal("lines", &view.lines().count(), &kernel.lines().count())?;
    for (ours, theirs) in view.lines().zip(kernel.lines()) {
        let key = theirs.split(':').next().unwrap_or_default();
        let (got, machine) = (meminfo(ours), meminfo(theirs));
        let expected = memory.line(key).or_else(|| machine.get(key).copied());
        let got = got.get(key).copied();
        match (key, got, expected) {
            ("MemFree" | "MemAvailable", Some(got), Some(expected)) => {
                let slack = SLACK / 1024;
                between(key, got, expected.saturating_sub(slack), expected + slack)?;
            }
            _ => equal(key, &got, &expected)?,
        }
        // No number here has more digits than the columns hold.
        equal("the width of a line", &ours.len(), &theirs.len())?;
        let unit = |line: &str| line.trim_end().ends_with(" kB");
        equal("the unit of a line", &unit(ours), &unit(theirs))?;
    }
    Ok(())
}

/// The one row of swaps, and that it agrees with meminfo.
pub(super) fn same_swaps(container: &mut Container) -> Result<()> {
    let cgroup = container.cgroup.clone();
    steady(
        || Memory::read(&cgroup),
        || container.read("/proc/swaps"),
        |memory, view| {
            let kernel = host("/proc/swaps")?;
            equal("the header", &view.lines().next(), &kernel.lines().next())?;
            let rows: Vec<Vec<&str>> = view
                .lines()
                .skip(1)
                .map(|row| row.split_whitespace().collect())
                .filter(|row: &Vec<&str>| !row.is_empty())
                .collect();
            if memory.swap_total == 0 {
                return equal("rows", &rows.len(), &0);
            }
            equal("rows", &rows.len(), &1)?;
            let number = |column: usize| rows.first().and_then(|row| row.get(column)?.parse().ok());
            let used = (memory.swap_total / 1024).saturating_sub(memory.swap_free / 1024);
            equal("Size", &number(2), &Some(memory.swap_total / 1024))?;
            equal("Used", &number(3), &Some(used))?;
            let device = rows.iter().flatten().any(|word| word.starts_with('/'));
            equal("whether it names a device", &device, &false)
        },
    )
}

/// The container's own limit is higher than that of the cgroup above, which it shares with a sibling.
fn below_a_shared_limit(report: &mut Report) -> Result<()> {
    let pod = Cgroup::new("pod-memory")?;
    let app = pod.child("app")?;
    let other = pod.child("other")?;
    pod.set("memory.max", &(80 * MIB).to_string())?;
    app.set("memory.max", &(120 * MIB).to_string())?;
    pod.set("memory.swap.max", &(24 * MIB).to_string())?;
    let mut sibling = Container::plain(&other, false)?;
    let mut container = Container::attach(&app, false)?;
    report.equal(
        "MemTotal is the least limit on the way up",
        &total(&mut container)?,
        &(80 * 1024),
    );
    use_memory(report, &mut container)?;
    let free = |container: &mut Container| -> Result<u64> {
        let lines = meminfo(&container.read("/proc/meminfo")?);
        Ok(lines.get("MemFree").copied().unwrap_or(0))
    };
    let before = free(&mut container)?;
    sibling.tell(&["hold", &(20 * MIB).to_string()])?;
    report.check(
        "meminfo while a sibling uses memory",
        same_meminfo(&mut container),
    );
    let after = free(&mut container)?;
    let taken = before.saturating_sub(after);
    report.check(
        "MemFree is less by what a sibling uses",
        between("KiB", taken, 19 * 1024, 22 * 1024),
    );
    container.end()?;
    sibling.end()?;
    for cgroup in [app, other, pod] {
        cgroup.remove()?;
    }
    Ok(())
}

fn without_limits(report: &mut Report) -> Result<()> {
    let cgroup = Cgroup::new("no-limits")?;
    let mut container = Container::attach(&cgroup, false)?;
    let machine = meminfo(&host("/proc/meminfo")?);
    let of = |lines: &std::collections::BTreeMap<String, u64>, key: &str| {
        lines.get(key).copied().unwrap_or(0)
    };
    for (name, limit) in [
        ("no limit", "max".to_owned()),
        ("a limit above the machine", (1u64 << 40).to_string()),
    ] {
        cgroup.set("memory.max", &limit)?;
        cgroup.set("memory.swap.max", &limit)?;
        let result = crate::expect::within(
            std::time::Duration::from_secs(1),
            || container.read("/proc/meminfo"),
            |view| {
                let view = meminfo(view);
                for key in ["MemTotal", "SwapTotal"] {
                    equal(key, &of(&view, key), &of(&machine, key))?;
                }
                Ok(())
            },
        );
        report.check(&format!("{name}: the totals are the machine's"), result);
        let before = of(&meminfo(&host("/proc/meminfo")?), "MemAvailable");
        let view = meminfo(&container.read("/proc/meminfo")?);
        let after = of(&meminfo(&host("/proc/meminfo")?), "MemAvailable");
        for key in ["MemFree", "MemAvailable"] {
            // The machine's figure moves by what others do, this test among them.
            let slack = 4 * 1024;
            let (least, most) = (before.min(after), before.max(after));
            report.check(
                &format!("{name}: {key} is what the machine has left"),
                between(key, of(&view, key), least - slack, most + slack),
            );
        }
    }
    container.end()?;
    cgroup.remove()
}

fn swap(report: &mut Report) -> Result<()> {
    let cgroup = Cgroup::new("swap")?;
    cgroup.set("memory.max", &(64 * MIB).to_string())?;
    let mut container = Container::attach(&cgroup, false)?;
    for (name, limit) in [
        ("unlimited swap", "max".to_owned()),
        ("limited swap", (20 * MIB).to_string()),
        ("no swap", "0".to_owned()),
        ("more swap than there is", (1u64 << 40).to_string()),
    ] {
        cgroup.set("memory.swap.max", &limit)?;
        report.check(&format!("{name}: meminfo"), same_meminfo(&mut container));
        report.check(&format!("{name}: swaps"), same_swaps(&mut container));
    }
    container.end()?;
    cgroup.remove()
}

fn huge_pages(report: &mut Report) -> Result<()> {
    let reserve = |pages: &str| {
        let path = "/proc/sys/vm/nr_hugepages";
        std::fs::write(path, pages).map_err(|e| format!("{path}: {e}"))
    };
    reserve("6")?;
    let cgroup = Cgroup::new("huge-pages")?;
    cgroup.set("memory.max", &(64 * MIB).to_string())?;
    let mut container = Container::attach(&cgroup, false)?;
    report.check("without a limit", same_meminfo(&mut container));
    if cgroup.has("hugetlb.2MB.max") {
        cgroup.set("hugetlb.2MB.max", &(4 * MIB).to_string())?;
        report.check("with a limit", same_meminfo(&mut container));
    } else {
        report.skip("with a limit", "this kernel has no hugetlb controller");
    }
    container.end()?;
    cgroup.remove()?;
    reserve("0")
}
