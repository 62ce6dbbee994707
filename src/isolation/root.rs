//! The root file system of a container, with mapped ids.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use eci_fs_mountd::container::mountinfo::{Mount, mount_at};
use eci_fs_mountd::container::open_within;
use eci_fs_mountd::isolation::stage::ROOT;
use eci_fs_protocol::error::{Error, Kind, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::clones::Clones;
use super::mount_setattr::Access;
use super::overlay;
use crate::oci::isolation::Container;

/// The name of a link to the root that the engine made, below the stage, if that is an overlay.
const ENGINE: &str = "engine";

/// The most directories that are copied up before the start.
const MAX_COPIED: usize = 4096;

/// The type of an overlay in mountinfo.
const OVERLAY: &str = "overlay";

/// Attaches the container's root at [`ROOT`] below the stage, which must be the current directory. `path` is the root that
/// the engine made, without symbolic links. Returns true if it is an overlay that the container can write to.
///
/// # Errors
/// When its file system cannot be mapped, and the kernel's.
pub(super) fn attach(
    path: &Path,
    clones: &mut Clones<'_>,
    stage: &Path,
    first_id: u32,
) -> Result<bool> {
    let place = stage.join(ROOT);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve)
        .map_err(|e| Error::io("open", path, e))?;
    clones.rules.check_root(&file, path)?;
    let text = path.to_str().unwrap_or_default();
    let mount = mount_at(clones.mounts, text);
    let writable_overlay = match mount {
        Some(mount) if mount.fstype == OVERLAY => {
            check_overlay(mount, path)?;
            rustix::fs::mkdir(&place, Mode::from_raw_mode(0o755))
                .map_err(|e| Error::io("create", &place, e))?;
            let about = |error: Error| error.context(format!("the overlay at {}", mount.point));
            let writable = overlay::Engines::mounted(mount)
                .and_then(|engine| overlay::mount_anew(&engine, clones, stage, ROOT, first_id))
                .map_err(about)?;
            let link = stage.join(ENGINE);
            rustix::fs::symlink(path, &link).map_err(|e| Error::io("create", &link, e))?;
            writable
        }
        _ => {
            let remedy = "isolation needs a root file system that can be ID-mapped: an overlay, or a directory on \
                          ext4, xfs, btrfs or tmpfs";
            let clone = clones.mapped(&file, path, Access::Unchanged);
            clone
                .map_err(|error| error.remedy(remedy))?
                .attach(&place)?;
            false
        }
    };
    clones.mounts_below(path, &place, Access::Unchanged)?;
    Ok(writable_overlay)
}

fn check_overlay(mount: &Mount, path: &Path) -> Result<()> {
    if Path::new(&mount.point) == path && mount.root == "/" {
        return Ok(());
    }
    Err(Error::refused(format!(
        "the root file system {} is a directory in the overlay at {}, which cannot be ID-mapped",
        path.display(),
        mount.point
    ))
    .remedy("put it on ext4, xfs, btrfs or tmpfs, or mount an overlay for it"))
}

/// The two overlays of one container.
#[derive(Debug)]
pub struct Overlays {
    /// The path of the one that its engine has mounted.
    pub path: PathBuf,
    /// The root of that one, open for reading.
    pub engine: OwnedFd,
    /// The root of its own, open for reading.
    pub container: OwnedFd,
}

impl Overlays {
    /// Returns the overlays of the container with the root file system `root`, in the mount namespace of its runtime. Returns
    /// none where the root is no overlay, or is the engine's.
    ///
    /// # Errors
    /// When one of them cannot be opened.
    pub fn below(stage: &Path, root: &Path) -> Result<Option<Self>> {
        if root != stage.join(ROOT) {
            return Ok(None);
        }
        let link = stage.join(ENGINE);
        let path = match std::fs::read_link(&link) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            path => path.map_err(|e| Error::io("read", &link, e))?,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| {
            rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path, e))
        };
        Ok(Some(Self {
            engine: open(&path)?,
            container: open(root)?,
            path,
        }))
    }
}

/// Copies up the directories of the container's overlay that mounts and the working directory hold. A directory that is
/// held in one overlay does not become the one that another overlay makes of it: what an engine copies into it would stay
/// invisible, and nothing could be created in it.
///
/// # Errors
/// When the root cannot be opened. A directory that cannot be copied up is left to the container.
pub(super) fn copy_up(container: &Container) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(ROOT, flags, Mode::empty())
        .map_err(|e| Error::io("open", "the container's root", e))?;
    for directory in held(container) {
        match copy_up_directory(&root, &directory) {
            Ok(()) => {}
            Err(error) if error.kind == Kind::NotFound => {}
            // A loop of links, or a file in the place of a directory, is the container's own affair.
            Err(error) => tracing::debug!(%error, "not copied up"),
        }
    }
    Ok(())
}

/// Returns the directories that are held.
fn held(container: &Container) -> BTreeSet<PathBuf> {
    let parents = container.mounts.iter().map(|mount| {
        let destination = Path::new("/").join(&mount.destination);
        destination.parent().map(Path::to_owned)
    });
    let all = parents
        .flatten()
        .chain([Path::new("/").join(&container.cwd)]);
    let other = ["/dev", "/proc", "/sys"];
    all.filter(|path| path != Path::new("/"))
        .filter(|path| !other.iter().any(|other| path.starts_with(other)))
        .take(MAX_COPIED)
        .collect()
}

fn copy_up_directory(root: &OwnedFd, path: &Path) -> Result<()> {
    let trouble = |e| Error::io("copy up", path, e);
    // The tree is the container's.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let directory = open_within(root, path, flags, resolve).map_err(trouble)?;
    let stat = rustix::fs::fstat(&directory).map_err(trouble)?;
    // A change of the mode to what it is does it.
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(trouble)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::isolation::Mount;

    #[test]
    fn parents_of_mounts_and_the_working_directory_are_held() {
        let mount = |destination: &str| Mount {
            destination: destination.into(),
            ..Mount::default()
        };
        let container = Container {
            cwd: "/work/dir".into(),
            mounts: [
                "/proc",
                "/dev/shm",
                "/etc/hosts",
                "/etc/hostname",
                "/var/lib/x",
                "data/y",
                "/",
            ]
            .map(mount)
            .to_vec(),
            ..Container::default()
        };
        let held: Vec<_> = held(&container).into_iter().collect();
        let wanted = ["/data", "/etc", "/var/lib", "/work/dir"].map(PathBuf::from);
        assert_eq!(held, wanted);
    }
}
