//! File handles (open_by_handle_at(2)), which a process with CAP_DAC_READ_SEARCH on the host can make up: none leads to another
//! container. Since Linux 6.9 there are none at all.

use crate::Result;
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::report::{Report, equal};

/// A cached view, a live one, a tunable, and a directory graft.
const ENTRIES: [&str; 4] = [
    "/proc/meminfo",
    "/proc/vmstat",
    "/proc/sys/vm/swappiness",
    "/sys/devices/system/cpu",
];

/// The entry of a container's top directory in the node id.
const TOP: u64 = 1 << 16;

pub(super) fn checks(report: &mut Report) {
    report.group("file handles", |report| {
        let cgroup = Cgroup::new("handles")?;
        let mut one = Container::attach(&cgroup, false)?;
        let mut other = Container::attach(&cgroup, false)?;
        report.check("a container's own", own(&mut one));
        report.check("another container's", others(&mut one, &mut other));
        one.end()?;
        other.end()?;
        cgroup.remove()
    });
}

/// The slot and the generation of a container, by its own mountinfo.
fn ids(container: &mut Container) -> Result<(u64, u32)> {
    let mounts = container.read("/proc/self/mountinfo")?;
    let line = mounts.lines().find(|line| {
        let point = line.split(' ').nth(4);
        line.contains(" - fuse eci-fs ") && point == Some("/proc/meminfo")
    });
    let root = line.and_then(|line| line.split(' ').nth(3));
    let ids = root.and_then(|root| root.split('/').nth(1)?.split_once('-'));
    let ids = ids.and_then(|(slot, generation)| {
        let generation = u32::from_str_radix(generation, 16).ok()?;
        Some((slot.parse().ok()?, generation))
    });
    ids.ok_or_else(|| format!("no slot and generation in {line:?}"))
}

/// Opens a node on the mount of each entry, and returns what came of it.
fn open(container: &mut Container, node: u64, generation: u32) -> Vec<(String, Result<Vec<u8>>)> {
    let words = [(node >> 32) as u32, node as u32, generation].map(|word| word.to_string());
    let [high, low, generation] = words.each_ref().map(String::as_str);
    let mut open = |mount| container.ask(&["open-handle", mount, high, low, generation]);
    ENTRIES.map(|mount| (mount.to_owned(), open(mount))).into()
}

fn entry(container: &mut Container, path: &str) -> Result<u64> {
    let inode = container.tell(&["inode", path])?;
    inode.parse().map_err(|e| format!("{inode}: {e}"))
}

/// A handle of its own file opens before Linux 6.9, so that the other check can fail. Later there is none.
fn own(one: &mut Container) -> Result<()> {
    let (slot, generation) = ids(one)?;
    let node = slot << 40 | entry(one, "/proc/meminfo")?;
    let opened = open(one, node, generation);
    let opens = |(_, result): &(String, Result<Vec<u8>>)| {
        result
            .as_ref()
            .is_ok_and(|text| text.starts_with(b"MemTotal:"))
    };
    match one.tell(&["handle", "/proc/meminfo"]) {
        Ok(words) => {
            let wanted =
                [(node >> 32) as u32, node as u32, generation].map(|word| word.to_string());
            equal("the handle", &words, &wanted.join(" "))?;
            equal("it opens", &opened.iter().any(opens), &true)
        }
        Err(error) if error.ends_with("EOPNOTSUPP") => nothing(opened),
        Err(error) => Err(error),
    }
}

/// Neither its generation is known, nor does a number lead to the files of another container, nor to the root of a connection.
fn others(one: &mut Container, other: &mut Container) -> Result<()> {
    let (_, own) = ids(one)?;
    let (slot, generation) = ids(other)?;
    equal("a generation of its own", &(own != generation), &true)?;
    let mut entries = vec![TOP];
    for path in ENTRIES {
        // The kernel knows the node, so that a handle could find it.
        let read = other.ask(&["read", path]);
        equal(
            "a file or a directory",
            &read.is_ok(),
            &!path.starts_with("/sys"),
        )?;
        entries.push(entry(other, path)?);
    }
    for entry in entries {
        for guess in [0, 1, own] {
            nothing(open(one, slot << 40 | entry, guess))?;
        }
    }
    for (mount, result) in open(one, 1, 0) {
        // Before Linux 6.9 the root of a connection opens. It is a directory, and lists no container.
        let error = result.err();
        let is_known = matches!(error.as_deref(), Some("ESTALE" | "EISDIR"));
        equal(&format!("the root by {mount}: {error:?}"), &is_known, &true)?;
    }
    Ok(())
}

/// Checks that nothing was opened.
fn nothing(opened: Vec<(String, Result<Vec<u8>>)>) -> Result<()> {
    for (mount, result) in opened {
        equal(&mount, &result.err().as_deref(), &Some("ESTALE"))?;
    }
    Ok(())
}
