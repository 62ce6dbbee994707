//! Clones of mounts, ID-mapped for one container, and trees of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use eci_fs_mountd::config::UnmappedVolumes;
use eci_fs_mountd::container::mountinfo::Mount;
use eci_fs_mountd::container::open_within;
use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::mount_setattr::{Access, forbid_devices, map_ids};
use super::restricted::{HostRules, Wanted};
use crate::oci::isolation::ReadOnly;

/// The most mounts below one source. The kernel allows a mount namespace 100,000.
const MAX_MOUNTS: usize = 10_000;

/// File systems of the kernel in which ids have no place on a disk: they are never ID-mapped, and nothing is wrong with
/// that. Their types in mountinfo, and their magic numbers (statfs(2)).
const OF_THE_KERNEL: [(&str, u64); 13] = [
    ("proc", 0x9fa0),
    ("sysfs", 0x6265_6572),
    ("cgroup", 0x0027_e0eb),
    ("cgroup2", 0x6367_7270),
    ("nsfs", 0x6e73_6673),
    ("devpts", 0x1cd1),
    ("mqueue", 0x1980_0202),
    ("debugfs", 0x6462_6720),
    ("tracefs", 0x7472_6163),
    ("securityfs", 0x7363_6673),
    ("bpf", 0xcafe_4a11),
    ("pstore", 0x6165_676c),
    ("binfmt_misc", 0x4249_4e4d),
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
    /// The rules about files of the host.
    pub(super) rules: &'a HostRules<'a>,
    /// What the administrator should know.
    pub(super) notes: Vec<String>,
}

/// The result of attaching a volume.
#[derive(Debug)]
pub(super) enum Placed {
    /// Clones of it are attached: of the volume, and of the mounts at these paths below it.
    Cloned(Vec<PathBuf>),
    /// Nothing: it is a device, a file system of the kernel, or mapped by the engine. The runtime binds this path, which has
    /// no links.
    AsItIs(PathBuf),
}

/// A clone that is attached nowhere.
#[derive(Debug)]
pub(super) struct Detached {
    tree: OwnedFd,
}

impl Detached {
    /// Attaches the clone at `path`, where a directory or an empty file is made for it.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn attach(&self, path: &Path) -> Result<()> {
        make_place(path, self.is_directory(path)?)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&self.tree, "", CWD, path, flags).map_err(|e| Error::io("mount at", path, e))
    }

    /// Returns whether it is a directory. This asks the file system.
    fn is_directory(&self, path: &Path) -> Result<bool> {
        let stat = rustix::fs::fstat(&self.tree).map_err(|e| Error::io("stat", path, e))?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
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
    /// Returns an ID-mapped clone of the mount of an open file, without the mounts below it. `source` is its name in messages.
    ///
    /// # Errors
    /// When its file system cannot be mapped.
    pub(super) fn mapped(&self, file: &OwnedFd, source: &Path, access: Access) -> Result<Detached> {
        let clone = clone(&path_of(file))?;
        map_ids(&clone.tree, self.user_namespace, access)
            .map_err(|e| cannot_map(source, &kind_of(&clone.tree), e))?;
        Ok(clone)
    }

    /// Returns a clone of the mount at `path`, mapped if its file system can be, and reports it if not. `source` is its name
    /// in messages, and `kind` its type in words. A file system of the kernel stays as it is.
    fn mapped_or_noted(
        &mut self,
        path: &Path,
        source: &Path,
        kind: impl FnOnce(&OwnedFd) -> String,
        is_of_the_kernel: impl FnOnce(&OwnedFd) -> bool,
        access: Access,
    ) -> Result<Detached> {
        let clone = clone(path)?;
        match map_ids(&clone.tree, self.user_namespace, access) {
            Ok(()) => {}
            Err(_) if is_of_the_kernel(&clone.tree) => {}
            Err(e) => {
                let error = cannot_map(source, &kind(&clone.tree), e);
                if self.unmapped == UnmappedVolumes::Refuse {
                    return Err(error.remedy(
                        "put it on another file system, or set unmapped-volumes to \"pass\" in [isolation]",
                    ));
                }
                forbid_devices(&clone.tree, access)
                    .map_err(|e| Error::io("forbid devices on", source, e))?;
                self.notes.push(format!(
                    "{error}; its files belong to nobody in the container"
                ));
            }
        }
        Ok(clone)
    }

    /// Returns a read-only clone of the mount of an open file, mapped if its file system can be, and passed or refused if
    /// not. `source` is its name in messages.
    ///
    /// # Errors
    /// When it is refused.
    pub(super) fn mapped_layer(&mut self, file: &OwnedFd, source: &Path) -> Result<Detached> {
        let access = Access::ReadOnly;
        self.mapped_or_noted(&path_of(file), source, kind_of, is_of_the_kernel, access)
    }

    /// Attaches a volume at `place`: clones of `source` and, if `wanted` is recursive, of all mounts below it. What cannot be
    /// mapped is passed or refused. A device, a file system of the kernel, and a volume with `is_mapped` are left as they are.
    ///
    /// # Errors
    /// The kernel's, and those of volumes that are refused.
    pub(super) fn volume(
        &mut self,
        source: &Path,
        place: &Path,
        wanted: Wanted<'_>,
        is_mapped: bool,
    ) -> Result<Placed> {
        let about = |e| Error::io("find the volume", wanted.written, e);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // The path may lead elsewhere a moment later, so all that follows is about this descriptor.
        let file = rustix::fs::open(source, flags, Mode::empty()).map_err(about)?;
        self.rules.check(&file, wanted)?;
        let own = path_of(&file);
        let real = rustix::fs::readlink(&own, Vec::new()).map_err(about)?;
        let real = PathBuf::from(OsString::from_vec(real.into_bytes()));
        if is_mapped || is_device(&file, &real) {
            return Ok(Placed::AsItIs(real));
        }
        // The kernel locks "ro" when the runtime copies the mount for the user namespace.
        let access = match wanted.read_only {
            ReadOnly::None => Access::Unchanged,
            ReadOnly::Top | ReadOnly::All => Access::ReadOnly,
        };
        let top = self.mapped_or_noted(&own, &real, kind_of, is_of_the_kernel, access)?;
        if is_of_the_kernel(&top.tree) {
            return Ok(Placed::AsItIs(real));
        }
        top.attach(place)?;
        if !wanted.recursive || !top.is_directory(&real)? {
            return Ok(Placed::Cloned(Vec::new()));
        }
        let access = match wanted.read_only {
            ReadOnly::All => Access::ReadOnly,
            ReadOnly::Top | ReadOnly::None => Access::Unchanged,
        };
        let below = self.mounts_below(&real, place, access)?;
        Ok(Placed::Cloned(below))
    }

    /// Attaches clones of all mounts below `source` at the same places below `place`. Returns the paths of these below it, each
    /// before those that are below itself.
    ///
    /// # Errors
    /// As [`Self::volume`].
    pub(super) fn mounts_below(
        &mut self,
        source: &Path,
        place: &Path,
        access: Access,
    ) -> Result<Vec<PathBuf>> {
        // The last one at a place covers the others. Its type is taken from the list: a file system that a user serves may
        // answer root with an error, or never.
        let points: BTreeMap<PathBuf, &Mount> = self
            .mounts
            .iter()
            .filter(|mount| !mount.is_deleted())
            .map(|mount| (PathBuf::from(&mount.point), mount))
            .filter(|(point, _)| point != source && point.starts_with(source))
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
        let mut attached = Vec::new();
        // A path comes before those below it.
        for (point, mount) in points {
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
            // The path may lead elsewhere by now, but what was judged is this mount.
            let Some(file) = open_mount(&point, mount) else {
                continue;
            };
            let is_of_the_kernel = OF_THE_KERNEL.iter().any(|(name, _)| *name == mount.fstype);
            let kind = |_: &OwnedFd| mount.fstype.clone();
            let own = path_of(&file);
            let clone = self.mapped_or_noted(&own, &point, kind, |_| is_of_the_kernel, access)?;
            let flags =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&clone.tree, "", &at, "", flags)
                .map_err(|e| Error::io("mount again", &point, e))?;
            attached.push(below.to_owned());
        }
        Ok(attached)
    }
}

/// Opens the root of `mount`, if it is found at its path.
fn open_mount(point: &Path, mount: &Mount) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(CWD, point, flags, Mode::empty(), resolve).ok()?;
    let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    (stat.stx_mnt_id == mount.id).then_some(file)
}

/// Returns a path of an open file that leads to this file, whatever happens to others.
fn path_of(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn clone(source: &Path) -> Result<Detached> {
    // All mounts of this namespace are slaves, and so are their clones: what is mounted on a clone appears nowhere else.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, source, flags).map_err(|e| Error::io("clone", source, e))?;
    Ok(Detached { tree })
}

fn magic(tree: &OwnedFd) -> Option<u64> {
    let stat = rustix::fs::fstatfs(tree).ok()?;
    u64::try_from(stat.f_type).ok()
}

fn is_of_the_kernel(tree: &OwnedFd) -> bool {
    magic(tree).is_some_and(|magic| {
        let magic = magic & 0xffff_ffff;
        OF_THE_KERNEL.iter().any(|(_, known)| *known == magic)
    })
}

/// Returns the type of a file system, for a message.
fn kind_of(tree: &OwnedFd) -> String {
    format!("{:#x}", magic(tree).unwrap_or_default())
}

/// Returns whether the file is a device node, or lies in the host's /dev. A node of the host belongs to the host, whatever
/// it is mounted on.
fn is_device(file: &OwnedFd, path: &Path) -> bool {
    let in_dev = path.starts_with("/dev");
    let kind = rustix::fs::fstat(file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let node = [FileType::CharacterDevice, FileType::BlockDevice];
    (in_dev && !path.starts_with("/dev/shm")) || kind.is_ok_and(|kind| node.contains(&kind))
}

fn cannot_map(source: &Path, kind: &str, errno: Errno) -> Error {
    let error = Error::io("map the ids of", source, errno);
    match errno {
        Errno::NOSYS => error.remedy("isolation needs Linux 5.19"),
        _ => error.context(format!(
            "a file system of type {kind} cannot be ID-mapped here"
        )),
    }
}
