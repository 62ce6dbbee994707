//! Sysctls of a container's namespaces, which are written as its own root would write them.
//!
//! A runtime would write them when locked mounts have made /proc/sys read-only. The kernel decides by the writer which
//! namespaces are meant and which numbers groups have, so a child enters them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use eci_fs_protocol::error::{Error, Result};
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, fork, pipe2};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, openat};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::{
    ThreadNameSpaceType, move_into_thread_name_spaces, set_thread_res_gid, set_thread_res_uid,
};

/// Writes values, by the path of the file below /proc/sys, in the namespaces of the process behind `pidfd`. It must be in a
/// user namespace of its own.
///
/// # Errors
/// The kernel's, with the path.
pub fn write(pidfd: BorrowedFd<'_>, values: &BTreeMap<PathBuf, String>) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let files: Vec<(CString, &[u8])> = values
        .iter()
        .map(|(path, value)| {
            let path = CString::new(path.as_os_str().as_bytes());
            let path = path.map_err(|_| Error::refused("a sysctl has a zero byte"))?;
            Ok((path, value.as_bytes()))
        })
        .collect::<Result<_>>()?;
    let directory = Path::new("/proc/sys");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(CWD, directory, flags, Mode::empty())
        .map_err(|e| Error::io("open", directory, e))?;
    let trouble = |e| Error::io("start", "a child in the namespaces of the container", e);
    let (result, say) =
        pipe2(OFlag::O_CLOEXEC).map_err(|e| trouble(Errno::from_raw_os_error(e as i32)))?;
    let pid = start_child(pidfd, &opened, &files, &say).map_err(trouble)?;
    drop(say);
    let mut said = [0; 8];
    let heard = rustix::io::retry_on_intr(|| rustix::io::read(&result, &mut said));
    // It fails only when it has ended.
    let _ = waitpid(Some(pid), WaitOptions::empty());
    let [a, b, c, d, number @ ..] = said;
    let (errno, number) = (i32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes(number));
    match heard {
        Ok(8) if errno == 0 => Ok(()),
        Ok(8) => {
            let errno = Errno::from_raw_os_error(errno);
            let name = values.keys().nth(number as usize);
            Err(match name {
                Some(name) => Error::io("write the sysctl", directory.join(name), errno),
                None => Error::io("enter", "the namespaces of the container", errno),
            })
        }
        Ok(_) => Err(trouble(Errno::CHILD)),
        Err(errno) => Err(trouble(errno)),
    }
}

/// Starts the child, which writes an errno to `say`, and the index of the file that has failed. The index is beyond all
/// files if the child could not enter the namespaces.
#[allow(
    unsafe_code,
    reason = "only a process with one thread may enter a user namespace, and it cannot come back"
)]
fn start_child(
    pidfd: BorrowedFd<'_>,
    directory: &OwnedFd,
    files: &[(CString, &[u8])],
    say: &OwnedFd,
) -> std::result::Result<Pid, Errno> {
    // SAFETY: the child makes system calls only. It allocates nothing, takes no lock, and ends by `_exit`.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let (errno, number) = match write_inside(pidfd, directory, files) {
                Ok(()) => (0, 0),
                Err((errno, number)) => (errno.raw_os_error(), number),
            };
            let mut said = [0; 8];
            let (first, last) = said.split_at_mut(4);
            first.copy_from_slice(&errno.to_ne_bytes());
            last.copy_from_slice(&number.to_ne_bytes());
            let _ = rustix::io::write(say, &said);
            // SAFETY: it has no requirements.
            unsafe { libc::_exit(0) }
        }
        Ok(ForkResult::Parent { child }) => Pid::from_raw(child.as_raw()).ok_or(Errno::SRCH),
        Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
    }
}

/// Enters the namespaces, becomes their root, and writes. System calls only.
fn write_inside(
    pidfd: BorrowedFd<'_>,
    directory: &OwnedFd,
    files: &[(CString, &[u8])],
) -> std::result::Result<(), (Errno, u32)> {
    let outside = |errno| (errno, u32::MAX);
    let namespaces = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    move_into_thread_name_spaces(pidfd, namespaces).map_err(outside)?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(outside)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(outside)?;
    for (number, (path, value)) in (0u32..).zip(files) {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        openat(directory, path.as_c_str(), flags, Mode::empty())
            .and_then(|file| rustix::io::write(&file, value))
            .map_err(|errno| (errno, number))?;
    }
    Ok(())
}
