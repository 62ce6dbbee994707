//! The stage: a small mount in the runtime directory, below which wrappers put together the files of containers, each in
//! a mount namespace of its own. On the host it is nearly empty: it has the directory `root`, which runtimes want to find
//! where a container's root is.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

use crate::runtime_dir::RuntimeDir;
use eci_fs_protocol::error::{Error, Result};

/// The source of the mount, in mountinfo.
pub const SOURCE: &str = "eci-fs-stage";

/// The directory in it that is a container's root.
pub const ROOT: &str = "root";

/// Returns the path of the stage of a runtime directory.
pub fn path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("stage")
}

/// Returns the path of the stage of a runtime directory without symbolic links, as runtimes see it.
pub fn real_path(runtime_dir: &Path) -> PathBuf {
    let real = std::fs::canonicalize(runtime_dir);
    path(real.as_deref().unwrap_or(runtime_dir))
}

/// Mounts the stage if it is not there. Returns its path.
///
/// # Errors
/// When it cannot be mounted.
pub(super) fn ensure(runtime: &RuntimeDir) -> Result<PathBuf> {
    let path = path(runtime.path());
    let root = path.join(ROOT);
    if is_mounted(&path) && root.is_dir() {
        return Ok(path);
    }
    // Root of a container has the rights of others on the way to its files. Nothing is listed to them.
    let mode = std::fs::metadata(runtime.path())
        .map_err(|e| Error::io("stat", runtime.path(), e))?
        .permissions()
        .mode();
    set_mode(&runtime.mounts(), 0o700)?;
    set_mode(runtime.path(), mode & 0o7777 | 0o011)?;
    make_dir(&path)?;
    if !is_mounted(&path) {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(
            SOURCE,
            &path,
            "tmpfs",
            flags,
            c"mode=0711,size=64k,nr_inodes=16",
        )
        .map_err(|e| Error::io("mount a tmpfs on", &path, e))?;
    }
    let private = mount_change(&path, MountPropagationFlags::PRIVATE)
        .map_err(|e| Error::io("make private", &path, e))
        .and_then(|()| make_dir(&root));
    if let Err(error) = private {
        remove(runtime);
        return Err(error);
    }
    Ok(path)
}

/// Takes the stage away, if there is one and nobody is in it. Containers have mounts of their own there.
pub(super) fn remove(runtime: &RuntimeDir) {
    let path = path(runtime.path());
    if is_mounted(&path)
        && let Err(error) = unmount(&path, UnmountFlags::NOFOLLOW)
    {
        tracing::warn!(%error, path = %path.display(), "the stage stays");
        return;
    }
    // It is there only if there was a stage.
    let _ = std::fs::remove_dir(&path);
}

fn make_dir(path: &Path) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::from(0o711)) {
        Ok(()) | Err(Errno::EXIST) => set_mode(path, 0o711),
        Err(e) => Err(Error::io("create", path, e)),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let set = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    match set {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        set => set.map_err(|e| Error::io("set the mode of", path, e)),
    }
}

/// Returns true if something is mounted at `path`.
fn is_mounted(path: &Path) -> bool {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS);
    // STATX_ATTR_MOUNT_ROOT, from Linux 5.8 on.
    stat.is_ok_and(|stat| {
        stat.stx_attributes
            .contains(rustix::fs::StatxAttributes::MOUNT_ROOT)
    })
}
