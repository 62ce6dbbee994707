//! A root file system that is read-only before the runtime begins, so that the kernel locks it when it copies the mounts of
//! the runtime for the container's user namespace.
//!
//! The runtime can make no mount points in it any more, so they are made here.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use eci_fs_mountd::container::open_within;
use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};

use super::file_owner::with_owner;
use crate::oci::isolation::{Container, clean};

/// The mode of a mount point that is made, as runtimes make it.
const MODE: u32 = 0o755;

/// A mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A directory, with this mode. runc gives a tmpfs the mode of the directory that it finds.
    Directory(u32),
    /// An empty file.
    File,
}

/// Makes the mount points of a container in its root file system, which is mounted at `path`, and then that read-only.
/// `bundle` is the directory to which sources of mounts are relative, and `first_id` the host's id of the container's root.
///
/// # Errors
/// When it cannot be opened or made read-only. A mount point that cannot be made is the runtime's to report.
pub(super) fn make(path: &Path, container: &Container, bundle: &Path, first_id: u32) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path, e))?;
    with_owner(first_id, || {
        for (path, place) in places(container, |source| bundle.join(source).is_dir()) {
            if let Err(error) = make_place(&root, &path, place) {
                tracing::debug!(%error, path = %path.display(), "not made");
            }
        }
    })?;
    let trouble = |e| Error::io("make read-only", path, e);
    let stat = rustix::fs::statvfs(path).map_err(trouble)?;
    let kept = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ];
    let kept = kept
        .into_iter()
        .filter(|(has, _)| stat.f_flag.contains(*has));
    let kept = kept.fold(MountFlags::empty(), |all, (_, flag)| all | flag);
    mount_remount(path, kept | MountFlags::RDONLY | MountFlags::BIND, "").map_err(trouble)
}

/// Returns the paths at which the runtime mounts something on the root file system itself, and its working directory.
fn places(container: &Container, is_directory: impl Fn(&Path) -> bool) -> BTreeMap<PathBuf, Place> {
    let mounts = container.mounts.iter().map(|mount| {
        let is_file = mount
            .source
            .as_deref()
            .is_some_and(|source| !is_directory(source));
        let place = match is_file {
            true => Place::File,
            false => Place::Directory(mount.tmpfs_mode.unwrap_or(MODE)),
        };
        (clean(&mount.destination), place)
    });
    let devices = container
        .devices
        .iter()
        .map(|device| (clean(&device.path), Place::File));
    let all: BTreeMap<PathBuf, Place> = devices
        .chain([(clean(&container.cwd), Place::Directory(MODE))])
        .chain(mounts)
        .collect();
    let is_mount = |path: &Path| {
        let mut mounts = container.mounts.iter();
        mounts.any(|mount| clean(&mount.destination) == path)
    };
    let lies_on_mount = |path: &Path| {
        let mut above = path.ancestors().skip(1);
        above.any(|above| above != Path::new("/") && is_mount(above))
    };
    let is_own = |(path, _): &(PathBuf, Place)| path != Path::new("/") && !lies_on_mount(path);
    all.into_iter().filter(is_own).collect()
}

/// Makes a directory or an empty file, and the directories above it, unless it is there. Links are followed within the root.
fn make_place(root: &OwnedFd, path: &Path, place: Place) -> std::result::Result<(), Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &Path| open_within(root, path, OFlags::PATH | OFlags::CLOEXEC, resolve);
    if !matches!(open(path), Err(Errno::NOENT)) {
        return Ok(());
    }
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    for pair in ancestors.windows(2) {
        let [above, at] = pair else { continue };
        if !matches!(open(at), Err(Errno::NOENT)) {
            continue;
        }
        let (above, name) = (open(above)?, at.file_name().ok_or(Errno::INVAL)?);
        let made = match place {
            _ if *at != path => Place::Directory(MODE),
            place => place,
        };
        match made {
            Place::Directory(mode) => {
                let mode = Mode::from_raw_mode(mode);
                rustix::fs::mkdirat(&above, name, mode)?;
                // Whatever the umask is. Another process may have put a link in its place.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&above, name, flags, Mode::empty())?;
                rustix::fs::fchmod(made, mode)?;
            }
            Place::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&above, name, flags, Mode::from_raw_mode(MODE))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::oci::isolation::{Device, Mount};

    #[test]
    fn places_on_the_root_itself_are_made_and_those_on_mounts_are_not() {
        let mount = |destination: &str, source: Option<&str>| Mount {
            destination: destination.into(),
            source: source.map(PathBuf::from),
            ..Mount::default()
        };
        let device = |path: &str| Device {
            path: path.into(),
            block: false,
            major: 1,
            minor: 3,
            mode: 0,
            uid: 0,
            gid: 0,
            allowed_by_number: true,
        };
        let container = Container {
            cwd: "/work".into(),
            mounts: vec![
                mount("/proc", None),
                mount("/dev", None),
                mount("dev/pts", None),
                mount("/etc/hosts", Some("file")),
                mount("/v", Some("dir")),
                mount("/v/x", Some("dir")),
                Mount {
                    tmpfs_mode: Some(0o750),
                    ..mount("/run", None)
                },
            ],
            devices: vec![device("/dev/null"), device("/null")],
            ..Container::default()
        };
        let places = places(&container, |source| source == Path::new("dir"));
        let wanted = [
            ("/dev", Place::Directory(MODE)),
            ("/etc/hosts", Place::File),
            ("/null", Place::File),
            ("/proc", Place::Directory(MODE)),
            ("/run", Place::Directory(0o750)),
            ("/v", Place::Directory(MODE)),
            ("/work", Place::Directory(MODE)),
        ];
        let wanted: BTreeMap<PathBuf, Place> = wanted
            .into_iter()
            .map(|(path, place)| (path.into(), place))
            .collect();
        assert_eq!(places, wanted);
    }

    #[test]
    fn a_place_is_made_with_the_directories_above_it_and_links_lead_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        std::os::unix::fs::symlink("/run", dir.path().join("var")).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("dangling")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        let place = Place::Directory(0o1777);
        make_place(&root, Path::new("/var/a/b"), place).unwrap();
        make_place(&root, Path::new("/var/f"), Place::File).unwrap();
        make_place(&root, Path::new("/var/f"), place).unwrap();
        assert!(make_place(&root, Path::new("/dangling"), place).is_err());
        let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().mode();
        assert_eq!(mode("run/a") & 0o7777, 0o755);
        assert_eq!(mode("run/a/b") & 0o7777, 0o1777);
        assert!(dir.path().join("run/f").is_file());
    }
}
