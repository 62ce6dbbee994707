//! The overlay of a container, made anew from ID-mapped clones of the layers of its engine's overlay.
//!
//! An overlay cannot be ID-mapped itself, but its layers can. Both overlays write to one upper directory. They have two
//! work directories, because the kernel empties that of a mount that it makes.

mod work_directory;

use std::ffi::CString;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use eci_fs_mountd::container::mountinfo::Mount;
use eci_fs_mountd::container::open_within;
use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::mount::MountFlags;

use super::clones::Clones;
use super::file_owner::with_owner;
use super::mount_setattr::Access;
use super::overlay_options::{Options, base_of, flags_of};
use super::restricted::Use;
use crate::oci::isolation::ReadOnly;
use work_directory::{END_OF_OVERLAY, TEST_SUFFIX, lock, make_work_directory, wait_until_unused};

/// The suffix of our work directory: its name is that of the engine's, and this.
const WORK_SUFFIX: &str = "-eci";

/// The link to the directory above the upper directory, below the stage, while the kernel is asked.
const BESIDE: &str = "beside";

/// The most bytes of the options of a mount: the kernel reads one page.
const MAX_OPTIONS: usize = 4095;

/// An overlay of an engine.
#[derive(Debug)]
pub(super) struct Engines {
    options: Options,
    /// The directory to which relative layers belong.
    base: PathBuf,
    flags: MountFlags,
    /// True if it is a volume: a layer that cannot be mapped is passed or refused as other volumes are.
    is_volume: bool,
}

impl Engines {
    /// Reads an overlay that the engine has mounted.
    ///
    /// # Errors
    /// When its layers are unknown.
    pub(super) fn mounted(mount: &Mount) -> Result<Self> {
        let options = Options::parse(&mount.super_options)?;
        Ok(Self {
            base: base_of(&options, Path::new(&mount.point))?,
            flags: flags_of(&mount.options),
            is_volume: false,
            options,
        })
    }

    /// Reads an overlay that the runtime is to mount with these options. Relative layers belong to `bundle`.
    ///
    /// # Errors
    /// When it names no layers.
    pub(super) fn in_configuration(options: &[String], bundle: &Path) -> Result<Self> {
        Ok(Self {
            flags: flags_of(&options.join(",")),
            options: Options::of_configuration(options)?,
            base: bundle.to_owned(),
            is_volume: true,
        })
    }
}

/// Makes the overlay of `engine` anew at `root` below the `stage`, for a container whose root is `first_id`. The stage must
/// be the current directory. Returns true if the container can write to it.
///
/// # Errors
/// When a layer cannot be mapped, or the kernel refuses the overlay.
pub(super) fn mount_anew(
    engine: &Engines,
    clones: &mut Clones<'_>,
    stage: &Path,
    root: &str,
    first_id: u32,
) -> Result<bool> {
    let Engines { options, base, .. } = engine;
    let at = |path: &Path| base.join(path);
    let mut text = String::from("lowerdir=");
    for (place, layer) in options.lower.iter().enumerate() {
        let name = format!("{place:x}");
        let layer = at(layer);
        let file = open(&layer, OFlags::PATH)?;
        clones
            .rules
            .check_layer(&file, &layer, Use::Layer, ReadOnly::All)?;
        let clone = match engine.is_volume {
            true => clones.mapped_layer(&file, &layer)?,
            false => clones.mapped(&file, &layer, Access::ReadOnly)?,
        };
        clone.attach(&stage.join(&name))?;
        if place > 0 {
            text.push(':');
        }
        text.push_str(&name);
    }
    let upper = match (&options.upper, &options.work) {
        (Some(upper), Some(work)) => Some((at(upper), at(work))),
        _ => None,
    };
    // The lock is let go of when the overlay is mounted: from then on the kernel says that the work directory is in use.
    let mut locked = None;
    if let Some((upper, work)) = &upper {
        let purpose = match engine.is_volume {
            true => Use::Layer,
            false => Use::RootUpper,
        };
        locked = Some(attach_upper(clones, stage, upper, work, root, purpose)?);
        text.push_str(",upperdir=upper,workdir=work,index=off,nfs_export=off");
    }
    for option in &options.others {
        text.push(',');
        text.push_str(option);
    }
    if text.len() > MAX_OPTIONS {
        return Err(Error::refused(format!(
            "its {} layers and options do not fit into the {MAX_OPTIONS} bytes that the kernel reads",
            options.lower.len()
        )));
    }
    // Its layers are the image's: a device node in one would belong to the container's root.
    let flags = engine.flags | MountFlags::NODEV;
    mount_as(first_id, root, flags, &text)?;
    drop(locked);
    let read_only = upper.is_none() || flags.contains(MountFlags::RDONLY);
    let stat = rustix::fs::statvfs(root).map_err(|e| Error::io("stat", root, e))?;
    // The kernel mounts an overlay read-only, and says so in its log alone, when it cannot make its work directory.
    if !read_only && stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(Error::refused("the kernel made it read-only")
            .remedy("see `dmesg`; isolation needs Linux 5.19"));
    }
    Ok(!read_only)
}

/// Attaches the upper and the work directory, which the kernel wants on one mount. Links lead to them, so that their
/// names need no quotation. Returns the descriptors to which they lead, one of which locks the directory above them. `empty` is an empty directory below the stage.
fn attach_upper(
    clones: &Clones<'_>,
    stage: &Path,
    upper: &Path,
    work: &Path,
    empty: &str,
    purpose: Use,
) -> Result<[OwnedFd; 3]> {
    let parts = |path: &Path| Some((path.parent()?.to_owned(), path.file_name()?.to_owned()));
    let apart = || {
        Error::refused(format!(
            "the upper directory {} and the work directory {} lie in different directories",
            upper.display(),
            work.display()
        ))
    };
    let (above, upper_name) = parts(upper).ok_or_else(apart)?;
    let (beside, engines_name) = parts(work).ok_or_else(apart)?;
    if above != beside {
        return Err(apart());
    }
    let with = |suffix: &str| {
        let mut name = engines_name.clone();
        name.push(suffix);
        name
    };
    let (work_name, test_name) = (with(WORK_SUFFIX), with(TEST_SUFFIX));
    let end = Instant::now() + END_OF_OVERLAY;
    // The path may lead elsewhere later, so all that follows is about this descriptor.
    let opened = open(&above, OFlags::RDONLY)?;
    let judged = open_in(&opened, &upper_name, upper)?;
    clones
        .rules
        .check_layer(&judged, upper, purpose, ReadOnly::None)?;
    lock(&opened, &above, end)?;
    let link = stage.join(BESIDE);
    let own = format!("/proc/self/fd/{}", opened.as_raw_fd());
    rustix::fs::symlink(&own, &link).map_err(|e| Error::io("create", &link, e))?;
    let beside = Path::new(BESIDE);
    let (own, test) = (beside.join(&work_name), beside.join(&test_name));
    let unused = wait_until_unused(&own, &test, empty, end);
    unused.map_err(|error| error.context(above.join(&work_name).display()))?;
    make_work_directory(&own)?;
    let layer = stage.join("layer");
    clones
        .mapped(&opened, &above, Access::Unchanged)?
        .attach(&layer)?;
    let layer = open(&layer, OFlags::PATH)?;
    let found = [
        open_in(&layer, &upper_name, upper)?,
        open_in(&layer, &work_name, work)?,
    ];
    if identity(&found[0], upper)? != identity(&judged, upper)? {
        return Err(Error::refused(format!(
            "the upper directory {} was replaced just now",
            upper.display()
        )));
    }
    for (link, file) in ["upper", "work"].into_iter().zip(&found) {
        let link = stage.join(link);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::symlink(path, &link).map_err(|e| Error::io("create", &link, e))?;
    }
    let [upper, work] = found;
    Ok([opened, upper, work])
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path, e))
}

/// Opens the directory `name` in a directory. `path` is its name in messages.
fn open_in(directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH;
    open_within(directory, name, flags, resolve).map_err(|e| Error::io("open", path, e))
}

/// Returns the device and the inode of a file.
fn identity(file: &OwnedFd, path: &Path) -> Result<(u64, u64)> {
    let stat = rustix::fs::fstat(file).map_err(|e| Error::io("stat", path, e))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Mounts the overlay as the container's root: with its ids the kernel later makes work files and whiteouts, and user 0
/// of the host has no id on mapped layers.
fn mount_as(id: u32, root: &str, flags: MountFlags, options: &str) -> Result<()> {
    let options =
        CString::new(options).map_err(|_| Error::refused("a path of a layer has a zero byte"))?;
    let mount = || rustix::mount::mount("overlay", root, "overlay", flags, options.as_c_str());
    let mounted = with_owner(id, mount)?;
    mounted.map_err(|e| {
        Error::io("mount", "it again with mapped layers", e)
            .remedy("see `dmesg`; isolation needs Linux 5.19")
    })
}
