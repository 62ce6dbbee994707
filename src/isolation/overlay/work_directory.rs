//! The work directory of a container's overlay, which one overlay at a time may have.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use eci_fs_protocol::error::{Error, Kind, Result};
use rustix::fs::{FlockOperation, Mode, Timespec, flock};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};

/// The suffix of the upper directory of a test overlay, by which the kernel tells whether our work directory is in use.
pub(super) const TEST_SUFFIX: &str = "-eci-test";

/// The longest time that the overlay of an ended container may need to end: the kernel first writes dirty pages to the
/// disk.
pub(super) const END_OF_OVERLAY: Duration = Duration::from_secs(10);

/// The pause before the kernel is asked again.
const PAUSE: Duration = Duration::from_millis(5);

/// Links below the stage, by which the kernel is told the two directories: names of an engine may have commas.
const WORK_LINK: &str = "asked-work";

/// See [`WORK_LINK`].
const TEST_LINK: &str = "asked-test";

/// Locks a directory against other wrappers that make the same overlay, until `end` at most.
pub(super) fn lock(opened: &OwnedFd, directory: &Path, end: Instant) -> Result<()> {
    loop {
        match flock(opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
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
pub(super) fn wait_until_unused(work: &Path, test: &Path, empty: &str, end: Instant) -> Result<()> {
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
/// this and removed. `empty` is an empty directory. All paths are relative to the stage, which is the current directory.
fn is_in_use(work: &Path, test: &Path, empty: &str) -> Result<bool> {
    if !work.exists() {
        return Ok(false);
    }
    remove(test)?;
    rustix::fs::mkdir(test, Mode::from_raw_mode(0o700))
        .map_err(|e| Error::io("create", test, e))?;
    for (link, path) in [(WORK_LINK, work), (TEST_LINK, test)] {
        match rustix::fs::symlink(path, link) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::io("create", link, e)),
        }
    }
    let mounted = (|| {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "lowerdir", empty)?;
        fsconfig_set_string(&context, "upperdir", TEST_LINK)?;
        fsconfig_set_string(&context, "workdir", WORK_LINK)?;
        fsconfig_set_string(&context, "index", "on")?;
        // It is attached nowhere, and ends here.
        fsconfig_create(&context)
    })();
    remove(test)?;
    match mounted {
        Err(Errno::BUSY) => Ok(true),
        // The directory has marks of `volatile`, of an overlay that has ended, or the index of a question that was not
        // finished. The kernel looks at them after it has made sure that nobody uses it.
        Ok(()) | Err(Errno::INVAL | Errno::STALE) => Ok(false),
        Err(e) => Err(Error::io("ask the kernel who uses", work, e)),
    }
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
pub(super) fn make_work_directory(path: &Path) -> Result<()> {
    remove(path)?;
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)).map_err(|e| Error::io("create", path, e))
}
