//! The engine's own overlay of a container, which does not notice what the container's overlay changes.

use std::path::Path;

use eci_fs_protocol::error::{Error, Result};
use rustix::fs::CWD;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};

/// The file system type of an overlay, by its magic number.
const OVERLAY: u64 = 0x794c_7630;

/// Lets the overlay that the engine mounted at `root` forget the names that it knows, so that the engine sees what the
/// container has changed. Other file systems have one view for all.
///
/// # Errors
/// The kernel's.
pub fn refresh(root: &Path) -> Result<()> {
    let stat = rustix::fs::statfs(root).map_err(|e| Error::io("stat", root, e))?;
    if u64::try_from(stat.f_type) != Ok(OVERLAY) {
        return Ok(());
    }
    let trouble = |e| Error::io("refresh the overlay at", root, e);
    // A change of the mount that changes nothing drops all names that nobody uses.
    let overlay = fspick(CWD, root, FsPickFlags::FSPICK_CLOEXEC).map_err(trouble)?;
    fsconfig_reconfigure(&overlay).map_err(trouble)
}
