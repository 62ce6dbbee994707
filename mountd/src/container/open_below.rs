//! Opening a path that a container decides about, which leads to nothing outside of a directory.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// The most tries to walk over a "..".
const TRIES: usize = 256;

/// Opens a path as openat2(2), which leads to nothing outside of `dir` by `resolve`.
///
/// # Errors
/// The kernel's; EAGAIN when somebody mounts or renames all the time.
pub fn open_within(
    dir: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> std::result::Result<OwnedFd, Errno> {
    let open = || rustix::fs::openat2(&dir, path, flags, Mode::empty(), resolve);
    // The kernel refuses a ".." while anything on the host is mounted or renamed: it cannot tell whether that led outside.
    let again = || Some(open()).filter(|result| !matches!(result, Err(Errno::AGAIN)));
    (1..TRIES).find_map(|_| again()).unwrap_or_else(open)
}

/// Opens a path below `dir`, without links of any kind.
pub(crate) fn open_below(
    dir: impl AsFd,
    path: &str,
    flags: OFlags,
) -> std::result::Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH;
    open_within(dir, path, flags, resolve)
}
