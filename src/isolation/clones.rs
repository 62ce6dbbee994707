//! Clones of mounts, ID-mapped for one container, and trees of them.

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use eci_fs_mountd::config::UnmappedVolumes;
use eci_fs_mountd::container::mountinfo::Mount;
use eci_fs_mountd::container::open_within;
use eci_fs_protocol::error::{Error, Kind, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::mount_setattr::map_ids;

/// The most mounts below one source. The kernel allows a mount namespace 100,000.
const MAX_MOUNTS: usize = 10_000;

/// File systems of the kernel in which ids have no place on a disk, by their magic number (statfs(2)): they are never
/// ID-mapped, and nothing is wrong with that.
const OF_THE_KERNEL: [u64; 13] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6e73_6673, // nsfs
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0x4249_4e4d, // binfmt_misc
];

/// The maker of clones for one container.
#[derive(Debug)]
pub(super) struct Clones<'a> {
    /// The user namespace whose mapping the clones get.
    pub(super) user_namespace: BorrowedFd<'a>,
    /// The reaction to a volume that cannot be mapped.
    pub(super) unmapped: UnmappedVolumes,
    /// The mounts of this process before the first clone.
    pub(super) mounts: &'a [Mount],
    /// What the administrator should know.
    pub(super) notes: Vec<String>,
}

/// A clone that is attached nowhere.
#[derive(Debug)]
pub(super) struct Detached {
    tree: OwnedFd,
    directory: bool,
}

impl Detached {
    /// Attaches the clone at `path`, where a directory or an empty file is made for it.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn attach(&self, path: &Path) -> Result<()> {
        make_place(path, self.directory)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&self.tree, "", CWD, path, flags).map_err(|e| Error::io("mount at", path, e))
    }
}

/// Makes a place for a mount. One of the same kind that is there already is taken.
fn make_place(path: &Path, directory: bool) -> Result<()> {
    let made = if directory {
        rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map(drop)
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(Error::io("create", path, e)),
    }
}

impl Clones<'_> {
    /// Returns an ID-mapped clone of the mount at `source`, without the mounts below it.
    ///
    /// # Errors
    /// When there is nothing, or its file system cannot be mapped.
    pub(super) fn mapped(&self, source: &Path) -> Result<Detached> {
        let clone = clone(source)?;
        map_ids(&clone.tree, self.user_namespace).map_err(|e| cannot_map(source, &clone, e))?;
        Ok(clone)
    }

    /// Returns a clone of the mount at `source`, mapped if its file system can be, and reports it if not.
    fn mapped_or_noted(&mut self, source: &Path) -> Result<Detached> {
        let clone = clone(source)?;
        match map_ids(&clone.tree, self.user_namespace) {
            Ok(()) => {}
            Err(_) if is_of_the_kernel(&clone.tree) => {}
            Err(e) => {
                let error = cannot_map(source, &clone, e);
                if self.unmapped == UnmappedVolumes::Refuse {
                    return Err(error.remedy(
                        "put it on another file system, or set unmapped-volumes to \"pass\" in [isolation]",
                    ));
                }
                self.notes.push(format!(
                    "{error}; its files belong to nobody in the container"
                ));
            }
        }
        Ok(clone)
    }

    /// Attaches a volume at `place`: clones of `source` and, if it is `recursive`, of all mounts below it. What cannot be
    /// mapped is passed or refused. Returns false, and attaches nothing, if `source` is a device, a file system of the
    /// kernel or is not there: then the runtime binds it as it is.
    ///
    /// # Errors
    /// The kernel's, and those of volumes that are refused.
    pub(super) fn volume(&mut self, source: &Path, place: &Path, recursive: bool) -> Result<bool> {
        // The runtime reports a source that is not there.
        let Ok(real) = std::fs::canonicalize(source) else {
            return Ok(false);
        };
        if is_device(&real) {
            return Ok(false);
        }
        let top = self.mapped_or_noted(&real)?;
        if is_of_the_kernel(&top.tree) {
            return Ok(false);
        }
        top.attach(place)?;
        if recursive && top.directory {
            self.mounts_below(&real, place)?;
        }
        Ok(true)
    }

    /// Attaches clones of all mounts below `source` at the same places below `place`.
    ///
    /// # Errors
    /// As [`Self::volume`].
    pub(super) fn mounts_below(&mut self, source: &Path, place: &Path) -> Result<()> {
        let points: BTreeSet<PathBuf> = self
            .mounts
            .iter()
            .filter(|mount| !mount.is_deleted())
            .map(|mount| PathBuf::from(&mount.point))
            .filter(|point| point != source && point.starts_with(source))
            .collect();
        if points.len() > MAX_MOUNTS {
            return Err(Error::refused(format!(
                "there are more than {MAX_MOUNTS} mounts below {}",
                source.display()
            )));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = rustix::fs::open(place, flags, Mode::empty())
            .map_err(|e| Error::io("open", place, e))?;
        // A path comes before those below it.
        for point in points {
            let Ok(below) = point.strip_prefix(source) else {
                continue;
            };
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve =
                ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH;
            // A mount that another one covers has no place, here or there.
            let Ok(at) = open_within(&base, below, flags, resolve) else {
                continue;
            };
            let clone = match self.mapped_or_noted(&point) {
                Err(error) if error.kind == Kind::NotFound => continue,
                clone => clone?,
            };
            let flags =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&clone.tree, "", &at, "", flags)
                .map_err(|e| Error::io("mount again", &point, e))?;
        }
        Ok(())
    }
}

fn clone(source: &Path) -> Result<Detached> {
    // All mounts of this namespace are slaves, and so are their clones: what is mounted on a clone appears nowhere else.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, source, flags).map_err(|e| Error::io("clone", source, e))?;
    let stat = rustix::fs::fstat(&tree).map_err(|e| Error::io("stat", source, e))?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(Detached { tree, directory })
}

fn magic(tree: &OwnedFd) -> Option<u64> {
    let stat = rustix::fs::fstatfs(tree).ok()?;
    u64::try_from(stat.f_type).ok()
}

fn is_of_the_kernel(tree: &OwnedFd) -> bool {
    magic(tree).is_some_and(|magic| OF_THE_KERNEL.contains(&(magic & 0xffff_ffff)))
}

/// Returns whether the file is a device node, or lies in the host's /dev. A node of the host belongs to the host, whatever
/// it is mounted on.
fn is_device(path: &Path) -> bool {
    let in_dev = path == Path::new("/dev") || path.starts_with("/dev");
    let kind = rustix::fs::stat(path).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let node = [FileType::CharacterDevice, FileType::BlockDevice];
    (in_dev && !path.starts_with("/dev/shm")) || kind.is_ok_and(|kind| node.contains(&kind))
}

fn cannot_map(source: &Path, clone: &Detached, errno: Errno) -> Error {
    let kind = magic(&clone.tree).unwrap_or_default();
    let error = Error::io("map the ids of", source, errno);
    match errno {
        Errno::NOSYS => error.remedy("isolation needs Linux 5.19"),
        _ => error.context(format!(
            "a file system of type {kind:#x} cannot be ID-mapped here"
        )),
    }
}
