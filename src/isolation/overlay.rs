//! The overlay of a container, made anew from ID-mapped clones of the layers of its engine's overlay.
//!
//! An overlay cannot be ID-mapped itself, but its layers can. Both overlays write to one upper directory. They have two
//! work directories, because the kernel empties that of a mount that it makes.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use eci_fs_mountd::container::mountinfo::{Mount, unescape};
use eci_fs_protocol::error::{Error, Kind, Result};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, StatVfsMountFlags, Timespec, flock};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountFlags, fsconfig_create, fsconfig_set_string, fsopen};
use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits,
};

use super::clones::Clones;
use super::mount_setattr::Access;

/// The suffix of our work directory: its name is that of the engine's, and this.
const WORK_SUFFIX: &str = "-eci";

/// The suffix of the upper directory of a test overlay, by which the kernel tells whether our work directory is in use.
const TEST_SUFFIX: &str = "-eci-test";

/// The longest time that the overlay of an ended container may need to end: the kernel first writes dirty pages to the
/// disk.
const END_OF_OVERLAY: Duration = Duration::from_secs(10);

/// The pause before the kernel is asked again.
const PAUSE: Duration = Duration::from_millis(5);

/// The link to the directory above the upper directory, below the stage, while the kernel is asked.
const BESIDE: &str = "beside";

/// The most bytes of the options of a mount: the kernel reads one page.
const MAX_OPTIONS: usize = 4095;

/// Options of a superblock that are no options of an overlay, and those that are left out: an index makes the kernel
/// refuse a second overlay on one upper directory.
const LEFT_OUT: [&str; 12] = [
    "rw",
    "ro",
    "index=on",
    "index=off",
    "nfs_export=on",
    "nfs_export=off",
    "seclabel",
    "sync",
    "dirsync",
    "lazytime",
    "mand",
    "nouserxattr",
];

/// The options of an overlay in mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Options {
    /// The lower directories, the topmost first. They may be relative.
    lower: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    /// All options that the new overlay gets too.
    others: Vec<String>,
}

impl Options {
    fn parse(text: &str) -> Result<Self> {
        let mut this = Self::default();
        // The kernel writes a comma in a path as \054.
        for option in text.split(',') {
            let option = unescape(option);
            if let Some(list) = option.strip_prefix("lowerdir=") {
                this.lower.extend(split_layers(list)?);
            } else if let Some(layer) = option.strip_prefix("lowerdir+=") {
                this.lower.push(layer.into());
            } else if option.starts_with("datadir+=") {
                return Err(data_only());
            } else if let Some(path) = option.strip_prefix("upperdir=") {
                this.upper = Some(without_backslashes(path).into());
            } else if let Some(path) = option.strip_prefix("workdir=") {
                this.work = Some(without_backslashes(path).into());
            } else if !LEFT_OUT.contains(&option.as_str()) {
                this.others.push(option);
            }
        }
        if this.lower.is_empty() {
            return Err(Error::refused("the kernel names no lower directory of it"));
        }
        Ok(this)
    }
}

fn data_only() -> Error {
    Error::refused("it has layers of data only, which isolation does not support")
}

/// Splits a list of lower directories at its colons, but for those after a backslash.
fn split_layers(list: &str) -> Result<Vec<PathBuf>> {
    let mut layers = vec![String::new()];
    let mut letters = list.chars();
    while let Some(letter) = letters.next() {
        match (letter, layers.last_mut()) {
            (':', _) => layers.push(String::new()),
            ('\\', Some(layer)) => layer.extend(letters.next()),
            (letter, Some(layer)) => layer.push(letter),
            (_, None) => {}
        }
    }
    if layers.iter().any(String::is_empty) {
        // Two colons stand before layers that only have data.
        return Err(data_only());
    }
    Ok(layers.into_iter().map(PathBuf::from).collect())
}

fn without_backslashes(path: &str) -> String {
    let mut letters = path.chars();
    let mut out = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.extend(letters.next()),
            letter => out.push(letter),
        }
    }
    out
}

/// Makes the overlay of `engine`, the engine's mount, anew at `root` below the `stage`, for a container whose root is
/// `first_id`. The stage must be the current directory. Returns true if the container can write to it.
///
/// # Errors
/// When a layer cannot be mapped, or the kernel refuses the overlay.
pub(super) fn mount_anew(
    engine: &Mount,
    clones: &Clones<'_>,
    stage: &Path,
    root: &str,
    first_id: u32,
) -> Result<bool> {
    let options = Options::parse(&engine.super_options)?;
    let base = base_of(&options, Path::new(&engine.point))?;
    let at = |path: &Path| base.join(path);
    let mut text = String::from("lowerdir=");
    for (place, layer) in options.lower.iter().enumerate() {
        let name = format!("{place:x}");
        clones
            .mapped(&at(layer), Access::ReadOnly)?
            .attach(&stage.join(&name))?;
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
        locked = Some(attach_upper(clones, stage, upper, work, root)?);
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
    let flags = flags_of(&engine.options) | MountFlags::NODEV;
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
/// names need no quotation. Returns the lock of the directory above them. `empty` is an empty directory below the stage.
fn attach_upper(
    clones: &Clones<'_>,
    stage: &Path,
    upper: &Path,
    work: &Path,
    empty: &str,
) -> Result<OwnedFd> {
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
    let locked = lock(&above, end)?;
    let link = stage.join(BESIDE);
    rustix::fs::symlink(&above, &link).map_err(|e| Error::io("create", &link, e))?;
    let beside = Path::new(BESIDE);
    let (own, test) = (beside.join(&work_name), beside.join(&test_name));
    let unused = wait_until_unused(&own, &test, empty, end);
    unused.map_err(|error| error.context(above.join(&work_name).display()))?;
    make_work_directory(&above.join(&work_name))?;
    clones
        .mapped(&above, Access::Unchanged)?
        .attach(&stage.join("layer"))?;
    for (link, name) in [("upper", upper_name), ("work", work_name)] {
        let link = stage.join(link);
        rustix::fs::symlink(Path::new("layer").join(name), &link)
            .map_err(|e| Error::io("create", &link, e))?;
    }
    Ok(locked)
}

/// Locks a directory against other wrappers that make the same overlay, until `end` at most.
fn lock(directory: &Path, end: Instant) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, directory, flags, Mode::empty())
        .map_err(|e| Error::io("open", directory, e))?;
    loop {
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(opened),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => pause(),
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Err(in_use()),
            Err(e) => return Err(Error::io("lock", directory, e)),
        }
    }
}

/// Waits until no overlay has the work directory `work`, until `end` at most. The overlay of a container that has just
/// ended may still be there.
///
/// # Errors
/// When a container that lives has it: it would lose what it is writing.
fn wait_until_unused(work: &Path, test: &Path, empty: &str, end: Instant) -> Result<()> {
    while is_in_use(work, test, empty)? {
        if Instant::now() >= end {
            return Err(in_use());
        }
        pause();
    }
    Ok(())
}

/// Waits for [`PAUSE`]: the kernel tells nobody that an overlay has ended.
fn pause() {
    let time = Timespec::try_from(PAUSE).ok();
    // Nothing is wrong with a pause that a signal ends.
    let _ = rustix::event::poll(&mut [], time.as_ref());
}

fn in_use() -> Error {
    Error::new(
        Kind::Busy,
        "another container that lives has the same root file system, and it can be written to",
    )
    .remedy("give each container a root file system of its own, or delete the other one first")
}

/// Returns whether an overlay has the work directory `work`, in any mount namespace. Only the kernel knows that: it refuses
/// a second overlay with the directory if one of the two has an index. `test` is a directory beside it that is made for
/// this and removed. `empty` is an empty directory.
fn is_in_use(work: &Path, test: &Path, empty: &str) -> Result<bool> {
    if !work.exists() {
        return Ok(false);
    }
    remove(test)?;
    rustix::fs::mkdir(test, Mode::from_raw_mode(0o700))
        .map_err(|e| Error::io("create", test, e))?;
    let mounted = (|| {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "lowerdir", empty)?;
        fsconfig_set_string(&context, "upperdir", test)?;
        fsconfig_set_string(&context, "workdir", work)?;
        fsconfig_set_string(&context, "index", "on")?;
        // It is attached nowhere, and ends here.
        fsconfig_create(&context)
    })();
    remove(test)?;
    // Other errors are about what is in the directory, which is going to be emptied.
    Ok(mounted == Err(Errno::BUSY))
}

fn remove(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", directory, e))
        }
        _ => Ok(()),
    }
}

/// Makes an empty work directory. One of an earlier start is removed: the kernel refuses it after `volatile`, and mounts
/// read-only over one that it cannot empty.
fn make_work_directory(path: &Path) -> Result<()> {
    remove(path)?;
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)).map_err(|e| Error::io("create", path, e))
}

/// Returns the directory to which relative layers belong. The kernel does not name the directory in which the engine was
/// when it mounted: it is the nearest one above the upper directory or the mount at which all layers are.
fn base_of(options: &Options, point: &Path) -> Result<PathBuf> {
    let all = options
        .lower
        .iter()
        .chain(&options.upper)
        .chain(&options.work);
    let relative: Vec<&PathBuf> = all.filter(|path| path.is_relative()).collect();
    if relative.is_empty() {
        return Ok("/".into());
    }
    let climbs = |path: &&PathBuf| path.components().any(|part| part == Component::ParentDir);
    if relative.iter().any(climbs) {
        return Err(Error::refused("a path of a layer leads upwards"));
    }
    let upper = options.upper.as_deref().filter(|upper| upper.is_absolute());
    let known = upper.into_iter().chain([point]);
    let mut above = known.flat_map(|path| path.ancestors().skip(1));
    above
        .find(|base| relative.iter().all(|path| base.join(path).exists()))
        .map(Path::to_owned)
        .ok_or_else(|| {
            Error::not_found(format!(
                "its layer {} is in no directory above it",
                relative[0].display()
            ))
        })
}

/// Returns the flags of a mount from its options in mountinfo.
fn flags_of(options: &str) -> MountFlags {
    let flag = |option| match option {
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        "nosymfollow" => MountFlags::NOSYMFOLLOW,
        _ => MountFlags::empty(),
    };
    options.split(',').map(flag).collect()
}

/// Mounts the overlay as the container's root: with its ids the kernel later makes work files and whiteouts, and user 0
/// of the host has no id on mapped layers.
fn mount_as(id: u32, root: &str, flags: MountFlags, options: &str) -> Result<()> {
    let options =
        CString::new(options).map_err(|_| Error::refused("a path of a layer has a zero byte"))?;
    let trouble = |e| Error::io("change", "the user of file system checks", e);
    let bits = capabilities_secure_bits().map_err(trouble)?;
    // Without this bit a change of the user takes the capabilities that mounting needs.
    set_capabilities_secure_bits(bits | CapabilitiesSecureBits::NO_SETUID_FIXUP)
        .map_err(trouble)?;
    let (uid, gid) = (setfsuid(Uid::from_raw(id)), setfsgid(Gid::from_raw(id)));
    let mounted = rustix::mount::mount("overlay", root, "overlay", flags, options.as_c_str());
    setfsuid(uid);
    setfsgid(gid);
    set_capabilities_secure_bits(bits).map_err(trouble)?;
    mounted.map_err(|e| {
        Error::io("mount", "it again with mapped layers", e)
            .remedy("see `dmesg`; isolation needs Linux 5.19")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(text).unwrap()
    }

    #[test]
    fn layers_of_docker_containerd_and_podman_are_read() {
        let docker = parse(
            "rw,lowerdir=l/AA:l/BB,upperdir=/d/overlay2/x/diff,workdir=/d/overlay2/x/work,index=off",
        );
        assert_eq!(docker.lower, [Path::new("l/AA"), Path::new("l/BB")]);
        assert_eq!(docker.upper, Some("/d/overlay2/x/diff".into()));
        assert_eq!(docker.others, Vec::<String>::new());
        let podman = parse(
            "rw,lowerdir=l/A,upperdir=u/diff,workdir=u/work,redirect_dir=on,metacopy=on,volatile,userxattr,uuid=null,nfs_export=on,index=on",
        );
        assert_eq!(
            podman.others,
            [
                "redirect_dir=on",
                "metacopy=on",
                "volatile",
                "userxattr",
                "uuid=null"
            ]
        );
        let containerd = parse("ro,lowerdir=/s/2/fs:/s/1/fs");
        assert_eq!((containerd.lower.len(), containerd.upper), (2, None));
        let new = parse("rw,lowerdir+=/a,lowerdir+=/b");
        assert_eq!(new.lower, [Path::new("/a"), Path::new("/b")]);
    }

    #[test]
    fn odd_letters_in_paths_are_read_as_the_kernel_writes_them() {
        // As `mount -o 'lowerdir=/a\:b:/c d'` shows, and a comma in the upper directory.
        let odd = parse(r"rw,lowerdir=/a\134:b:/c\040d,upperdir=/u\054x,workdir=/w");
        assert_eq!(odd.lower, [Path::new("/a:b"), Path::new("/c d")]);
        assert_eq!(odd.upper, Some("/u,x".into()));
    }

    #[test]
    fn what_cannot_be_made_anew_is_refused() {
        for text in ["rw", "rw,lowerdir=/a::/b", "rw,lowerdir+=/a,datadir+=/b"] {
            assert!(Options::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn relative_layers_belong_to_the_nearest_directory_that_has_all() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for path in ["o/l/A", "o/l/B", "o/x/diff", "o/x/merged", "o/x/l/A"] {
            std::fs::create_dir_all(top.join(path)).unwrap();
        }
        let point = top.join("o/x/merged");
        let base = |text: &str| base_of(&parse(text), &point);
        assert_eq!(base("lowerdir=l/A:l/B").unwrap(), top.join("o"));
        assert_eq!(base("lowerdir=/a:/b").unwrap(), Path::new("/"));
        assert!(base("lowerdir=l/none").is_err());
        assert!(base("lowerdir=../l/A").is_err());
    }

    #[test]
    fn flags_of_the_mount_are_kept() {
        assert_eq!(
            flags_of("ro,nosuid,relatime"),
            MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::RELATIME
        );
        assert_eq!(flags_of("rw"), MountFlags::empty());
    }
}
