//! Locked mounts: the grafts, masks and read-only mounts of a container as the kernel lets nobody in it take them away.
//!
//! The kernel locks mounts when it copies them for another user namespace: a mount that lies on another one cannot be
//! unmounted, moved or uncovered then, and no mount can lose the option "ro". A clone of such a copy keeps the locks, and can
//! be moved into any mount namespace. So while a runtime makes a container:
//!
//! 1. what is hidden and read-only is mounted in the container, below its /proc and /sys (`hidden`);
//! 2. the whole trees at /proc, /sys and read-only volumes are taken out, copied over the border of a user namespace, and
//!    put back (`trees`).
//!
//! Grafts that are locked stay when a container is detached: they are covered then (`covers`).
//!
//! The copy is made in a mount namespace that only the thread of the visit has. It ends with the thread, so nothing stays
//! mounted anywhere if the daemon or the container is killed.

mod covers;
mod hidden;
mod trees;

pub(super) use covers::cover;

use std::path::{Path, PathBuf};

use super::rows::to_be_grafted;
use super::target::Targets;
use super::visits::Visit;
use crate::container::Subject;
use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::link::Row;
use eci_fs_protocol::locks::Locks;

/// The directories whose trees are locked in any case.
const TOPS: [&str; 2] = ["/proc", "/sys"];

/// The directory in the namespace of the source mounts on which trees are put together, in a copy of that namespace.
const STAGE: &str = "/mounts";

/// Returns the path at which the tree with a number is put together.
fn stage_of(number: usize) -> PathBuf {
    Path::new(STAGE).join(number.to_string())
}

/// Makes the paths read-only on which grafts are going to lie. Those that are grafts themselves, or lie in one, are left
/// to [`apply`].
///
/// # Errors
/// As [`Targets::open`], and when a mount is refused.
pub(super) fn prepare(
    visit: &Visit,
    subject: &Subject,
    root: &Path,
    locks: &Locks,
    rows: &[Row],
) -> Result<()> {
    let paths = paths(&locks.read_only)?;
    let early: Vec<&str> = early(&paths, rows).collect();
    let targets = Targets::open(visit, subject, Some(root))?;
    hidden::make_read_only(visit, subject, &targets, &early)
}

/// Hides and makes read-only what is left, and has the kernel lock everything. `targets` know the grafts of `rows`.
///
/// # Errors
/// When a mount is refused. The container may have no /proc then: it must not be started.
pub(super) fn apply(
    visit: &Visit,
    subject: &Subject,
    root: &Path,
    targets: &Targets<'_>,
    locks: &Locks,
    rows: &[Row],
) -> Result<()> {
    let all = paths(&locks.read_only)?;
    let early: Vec<&str> = early(&all, rows).collect();
    let late: Vec<&str> = all
        .into_iter()
        .filter(|path| !early.contains(path))
        .collect();
    hidden::mask(visit, subject, targets, &paths(&locks.masked)?)?;
    hidden::make_read_only(visit, subject, targets, &late)?;
    trees::lock(visit, subject, root, &locks.mounts)
}

/// Returns the paths that neither are nor lie in one of the rows that get a mount.
fn early<'a>(paths: &[&'a str], rows: &[Row]) -> impl Iterator<Item = &'a str> {
    let is_at_graft = |path: &str| {
        to_be_grafted(rows).any(|row| {
            let below = path.strip_prefix(row.path.as_str());
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    paths.iter().copied().filter(move |path| !is_at_graft(path))
}

/// Returns paths as text, those of directories before what is in them.
fn paths(paths: &[PathBuf]) -> Result<Vec<&str>> {
    let mut texts = Vec::with_capacity(paths.len());
    for path in paths {
        let text = path.to_str().unwrap_or_default();
        if !TOPS.iter().any(|top| path.starts_with(top) && text != *top) {
            return Err(Error::refused(format!(
                "{} is not below /proc or /sys",
                path.display()
            )));
        }
        texts.push(text);
    }
    texts.sort_unstable();
    texts.dedup();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use eci_fs_protocol::link::Connection;

    fn row(path: &str, directory: bool) -> Row {
        Row {
            path: path.to_owned(),
            connection: Connection::Live,
            directory,
            writable: false,
        }
    }

    #[test]
    fn read_only_paths_come_before_the_grafts_on_them_and_after_those_that_they_lie_in() {
        let rows = [
            row("/proc/sys/vm/swappiness", false),
            row("/proc/irq", true),
        ];
        let all = ["/proc/sys", "/proc/irq", "/proc/irq/0", "/proc/irqs"].map(PathBuf::from);
        let paths = paths(&all).unwrap();
        assert_eq!(
            paths,
            ["/proc/irq", "/proc/irq/0", "/proc/irqs", "/proc/sys"]
        );
        let early: Vec<_> = early(&paths, &rows).collect();
        assert_eq!(early, ["/proc/irqs", "/proc/sys"]);
    }

    #[test]
    fn only_paths_below_proc_and_sys_are_taken() {
        for path in ["/proc", "/sys", "/etc/x", "proc/x", "/process/x", ""] {
            assert!(paths(&[path.into()]).is_err(), "{path}");
        }
    }
}
