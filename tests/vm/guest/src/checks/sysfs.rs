//! Files below /sys, and identities: directories of CPUs and nodes, the identities of the host, the kernel's own
//! trees, tunables.

use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::expect::{Cpus, Memory, SLACK, host, meminfo, parse_list, steady};
use crate::report::{Report, between, equal};

const CPU: &str = "/sys/devices/system/cpu";
const NODE: &str = "/sys/devices/system/node";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const DMI: &str = "/sys/devices/virtual/dmi/id";

/// Trees of the kernel that are not the container's business, and their modes.
const TREES: &[(&str, &str)] = &[
    ("/sys/kernel/debug", "700"),
    ("/sys/kernel/tracing", "700"),
    ("/sys/kernel/security", "755"),
    ("/sys/kernel/config", "755"),
    ("/sys/firmware", "755"),
    ("/sys/devices/virtual/powercap", "755"),
    ("/sys/devices/virtual/bdi", "755"),
    ("/sys/class/bdi", "755"),
    ("/sys/kernel/slab", "755"),
    ("/sys/kernel/irq", "755"),
    ("/sys/kernel/boot_params", "755"),
    ("/proc/irq", "555"),
    ("/proc/sys/fs/quota", "555"),
];

pub(super) fn checks(report: &mut Report) {
    report.group("sysfs", |report| {
        let cgroup = Cgroup::new("sysfs")?;
        cgroup.set("memory.max", "100000000")?;
        cgroup.set("cpuset.cpus", "1-3")?;
        cgroup.set("cpu.max", "150000 100000")?;
        let mut container = Container::attach(&cgroup, false)?;
        let grafts = container.grafts()?;
        if grafts.contains(CPU) {
            report.check("directories of CPUs", cpus(&mut container));
            report.check("topology and caches", topology(&mut container));
        } else {
            report.skip(CPU, "no graft");
        }
        if grafts.contains(NODE) {
            report.check("all nodes", nodes(&mut container));
            report.check("meminfo of all nodes", node_meminfo(&mut container));
            cgroup.set("cpuset.mems", "1")?;
            report.check("one node", nodes(&mut container));
            report.check("meminfo of one node", node_meminfo(&mut container));
        } else {
            report.skip(NODE, "no graft");
        }
        for (path, mode) in TREES {
            if grafts.contains(*path) {
                report.check(path, empty_tree(&mut container, path, mode));
            } else {
                report.skip(path, "no graft");
            }
        }
        container.end()?;
        cgroup.remove()
    });
    report.group("identity", identity);
}

/// The ids of `cpu0` and the like.
fn ids(names: &[String], family: &str) -> Vec<u32> {
    let ids = names.iter().filter_map(|name| name.strip_prefix(family));
    let mut ids: Vec<u32> = ids.filter_map(|id| id.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

fn cpus(container: &mut Container) -> Result<()> {
    let cpus = Cpus::read(&container.cgroup)?;
    let theirs = ids(&names_of_host(CPU)?, "cpu");
    equal("cpuN", &ids(&container.list(CPU)?, "cpu"), &theirs)?;
    let offline = parse_list(&container.read(&format!("{CPU}/offline"))?)?;
    let hidden = |id: &u32| !cpus.visible.contains(id);
    let possible = parse_list(&host(&format!("{CPU}/possible"))?)?;
    let expected: Vec<u32> = possible.into_iter().filter(hidden).collect();
    equal("offline", &offline, &expected)?;
    for id in &theirs {
        let top = format!("{CPU}/cpu{id}");
        let is_visible = cpus.visible.contains(id);
        // CPU 0 of some machines cannot be taken offline, and has no such file.
        let mut expected = names_of_host(&top)?;
        // They tell an address of the kernel.
        expected.retain(|name| !name.starts_with("crash_notes"));
        if !is_visible && !expected.iter().any(|name| name == "online") {
            expected.push("online".to_owned());
            expected.sort();
        }
        if !cpus.allowed.contains(id) {
            expected.retain(|name| !ONLINE_ONLY.contains(&&**name));
        }
        equal(&top, &container.list(&top)?, &expected)?;
        let path = format!("{top}/online");
        if let Ok(online) = container.read(&path) {
            let visible = u32::from(is_visible).to_string();
            equal(&path, &online.trim(), &visible.as_str())?;
        }
        let path = format!("{top}/uevent");
        equal(&path, &container.read(&path)?, &host(&path)?)?;
    }
    for name in ["kernel_max", "possible", "present"] {
        let path = format!("{CPU}/{name}");
        equal(&path, &container.read(&path)?, &host(&path)?)?;
    }
    Ok(())
}

/// The entries of cpuN that a CPU loses when it goes offline.
const ONLINE_ONLY: &[&str] = &["topology", "cache", "microcode", "thermal_throttle"];

/// The names of a directory of the machine, sorted.
fn names_of_host(path: &str) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(path).map_err(|error| format!("{path}: {error}"))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("{path}: {error}"))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Every list of CPUs is the machine's, as far as the container sees them.
fn topology(container: &mut Container) -> Result<()> {
    let cpus = Cpus::read(&container.cgroup)?;
    let mut lists = 0;
    for id in &cpus.allowed {
        let mut paths = Vec::new();
        for dir in ["topology", "cache"] {
            let top = format!("{CPU}/cpu{id}/{dir}");
            for name in container.list(&top).unwrap_or_default() {
                if name.starts_with("index") {
                    paths.push(format!("{top}/{name}/shared_cpu_list"));
                } else if name.ends_with("_list") {
                    paths.push(format!("{top}/{name}"));
                }
            }
        }
        for path in paths {
            let allowed = |id: &u32| cpus.allowed.contains(id);
            let expected = parse_list(&host(&path)?)?.into_iter().filter(allowed);
            let got = parse_list(&container.read(&path)?)?;
            equal(&path, &got, &expected.collect())?;
            lists += 1;
        }
        let path = format!("{CPU}/cpu{id}/topology/core_id");
        equal(&path, &container.read(&path)?, &host(&path)?)?;
    }
    between("lists", lists, 4, 1000)
}

fn nodes(container: &mut Container) -> Result<()> {
    let allowed = parse_list(&container.cgroup.read("cpuset.mems.effective")?)?;
    let cpus = Cpus::read(&container.cgroup)?;
    equal("nodeN", &ids(&container.list(NODE)?, "node"), &allowed)?;
    for name in ["online", "possible"] {
        let list = parse_list(&container.read(&format!("{NODE}/{name}"))?)?;
        equal(name, &list, &allowed)?;
    }
    for name in ["has_cpu", "has_memory", "has_normal_memory"] {
        let path = format!("{NODE}/{name}");
        let expected = parse_list(&host(&path)?)?.into_iter();
        let expected = expected.filter(|node| allowed.contains(node));
        equal(
            name,
            &parse_list(&container.read(&path)?)?,
            &expected.collect(),
        )?;
    }
    for node in &allowed {
        let path = format!("{NODE}/node{node}/cpulist");
        let expected = parse_list(&host(&path)?)?.into_iter();
        let expected = expected.filter(|id| cpus.visible.contains(id));
        equal(
            &path,
            &parse_list(&container.read(&path)?)?,
            &expected.collect(),
        )?;
        let path = format!("{NODE}/node{node}/distance");
        let distances = container.read(&path)?.split_whitespace().count();
        equal(&path, &distances, &allowed.len())?;
    }
    Ok(())
}

/// The nodes together have what /proc/meminfo says.
fn node_meminfo(container: &mut Container) -> Result<()> {
    let cgroup = container.cgroup.clone();
    let allowed = parse_list(&cgroup.read("cpuset.mems.effective")?)?;
    steady(
        || Memory::read(&cgroup),
        || {
            let texts = allowed
                .iter()
                .map(|node| container.read(&format!("{NODE}/node{node}/meminfo")));
            texts
                .collect::<Result<Vec<String>>>()
                .map(|texts| texts.concat())
        },
        |memory, view| {
            let sum = |key: &str| -> u64 {
                let lines = view.lines().filter_map(|line| {
                    let line = line.splitn(3, ' ').nth(2)?;
                    meminfo(line).get(key).copied()
                });
                lines.sum()
            };
            // Each share is rounded on its own.
            let rounding = allowed.len() as u64;
            for key in ["MemTotal", "AnonPages", "Active(file)", "Slab"] {
                let expected = memory.line(key).unwrap_or(0);
                between(key, sum(key), expected.saturating_sub(rounding), expected)?;
            }
            let free = memory.free / 1024;
            let least = free.saturating_sub(SLACK / 1024 + rounding);
            between("MemFree", sum("MemFree"), least, free + SLACK / 1024)
        },
    )
}

fn empty_tree(container: &mut Container, path: &str, mode: &str) -> Result<()> {
    equal("the listing", &container.list(path)?.len(), &0)?;
    let stat = container.tell(&["stat", path])?;
    equal("the mode", &stat.split(' ').next(), &Some(mode))
}

fn identity(report: &mut Report) -> Result<()> {
    let (first, second) = (Cgroup::new("first")?, Cgroup::new("second")?);
    let mut one = Container::attach(&first, false)?;
    let mut other = Container::attach(&second, false)?;
    let grafts = one.grafts()?;
    for path in [BOOT_ID.to_owned(), format!("{DMI}/product_uuid")] {
        if grafts.contains(&path) {
            report.check(&path, uuid(&mut one, &mut other, &path));
        } else {
            report.skip(&path, "no graft");
        }
    }
    for name in ["product_serial", "board_serial", "chassis_serial"] {
        let path = format!("{DMI}/{name}");
        if grafts.contains(&path) {
            report.equal(&path, &one.read(&path)?.trim(), &"");
            let stat = one.tell(&["stat", &path])?;
            let mode = stat.split(' ').next();
            report.equal(&format!("{path}: mode"), &mode, &Some("400"));
        } else {
            report.skip(&path, "no graft");
        }
    }
    one.end()?;
    other.end()?;
    first.remove()?;
    second.remove()
}

/// Always the same in one container, and another one in each.
fn uuid(one: &mut Container, other: &mut Container, path: &str) -> Result<()> {
    let text = one.read(path)?;
    equal("the second time", &one.read(path)?, &text)?;
    let lengths: Vec<usize> = text.trim_end().split('-').map(str::len).collect();
    equal("the parts of a UUID", &lengths, &vec![8, 4, 4, 4, 12])?;
    equal("the length", &text.len(), &37)?;
    equal(
        "is it that of another",
        &(other.read(path)? == text),
        &false,
    )?;
    equal("is it the machine's", &(host(path)? == text), &false)
}
