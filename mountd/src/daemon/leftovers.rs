//! What a daemon that was killed has left: grafts that answer ENOTCONN, and directories that do.
//!
//! They are removed at the next start, so that the containers have the kernel's files again and can be attached
//! anew. Nothing here is fatal: what is gone already needs no removing.

use std::os::fd::AsFd;
use std::path::Path;

use crate::container::mountinfo::parse_mountinfo;
use crate::container::procfs::Proc;
use crate::container::{Described, describe, open_pidfd};
use crate::error::{Error, Result};
use crate::grafts;
use crate::grafts::place::{Grafter, SOURCE};
use crate::protocol::control::CgroupChoice;
use crate::registry::{Saved, SavedContainer};

/// Remove what is left of the containers in `saved`, which was written in the boot `boot_id`.
pub(super) fn remove(proc: &Proc, grafter: &Grafter, saved: &Saved, boot_id: &str) {
    let Saved::V1 {
        boot_id: theirs,
        containers,
        ..
    } = saved;
    if theirs != boot_id {
        return;
    }
    for container in containers {
        match ungraft(proc, grafter, container) {
            Ok(0) => {}
            Ok(grafts) => {
                tracing::info!(id = %container.id, grafts, "removed grafts that a dead daemon left")
            }
            Err(error) => tracing::debug!(%error, id = %container.id, "nothing is left of it"),
        }
        for (dir, created) in &container.mounts {
            if let Err(error) = unmount(proc, dir) {
                tracing::debug!(%error, dir = %dir.display(), "nothing is mounted there");
            } else if *created {
                let _ = std::fs::remove_dir(dir);
            }
        }
    }
}

fn ungraft(proc: &Proc, grafter: &Grafter, container: &SavedContainer) -> Result<usize> {
    let pidfd = open_pidfd(container.pid)?;
    let Described { subject, .. } = describe(proc, pidfd.as_fd(), None, CgroupChoice::Own)?;
    if subject.start_ticks != container.start_ticks || container.grafted.is_empty() {
        return Ok(0);
    }
    let paths = container.grafted.clone();
    grafter.run(move |place| grafts::detach(place, &subject, None, None, &paths))
}

fn unmount(proc: &Proc, dir: &Path) -> Result<()> {
    let mounts = parse_mountinfo(&proc.read("self/mountinfo")?);
    let top = mounts
        .iter()
        .rev()
        .find(|mount| Path::new(&mount.point) == dir);
    if top.is_none_or(|mount| mount.source != SOURCE) {
        return Err(Error::not_found("nothing of ours is mounted there"));
    }
    rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH)
        .map_err(|e| Error::io("unmount", dir, e))
}
