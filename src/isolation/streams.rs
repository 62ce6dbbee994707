//! The standard streams of a container, which its engine opened.
//!
//! A program opens /dev/stdout again, so a pipe must belong to the container's root; the runtime then gives it to the
//! container's user. A device such as /dev/null must not reach a runtime that gives its standard streams away: crun up to
//! 1.21 changes the owner of the host's own node, and root of the container could then change its mode. It does so with
//! every device that does not answer as a terminal does: also with a console that has none, and with a terminal that was
//! hung up.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use eci_fs_protocol::error::{Error, Result};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fcntl_getfl, fstat, fstatfs,
    mknodat, openat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// The file systems of pipes and of sockets without a name, by their magic number.
const ANONYMOUS: [u64; 2] = [0x5049_5045, 0x534f_434b];

/// Gives the standard streams of this process to a container whose root is `first_id`.
///
/// # Errors
/// When a device node cannot be made. A pipe that cannot be given away can still be read and written.
pub fn give(first_id: u32) -> Result<()> {
    give_all(Some(first_id))
}

/// Puts nodes of its own in the place of the host's devices among the standard streams of this process, for a container of
/// which nothing is known.
///
/// # Errors
/// When a device node cannot be made.
pub fn replace_devices() -> Result<()> {
    give_all(None)
}

fn give_all(first_id: Option<u32>) -> Result<()> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    if let Some(node) = give_one(stdin.as_fd(), first_id)? {
        rustix::stdio::dup2_stdin(node).map_err(|e| Error::io("replace", "standard input", e))?;
    }
    if let Some(node) = give_one(stdout.as_fd(), first_id)? {
        rustix::stdio::dup2_stdout(node).map_err(|e| Error::io("replace", "standard output", e))?;
    }
    if let Some(node) = give_one(stderr.as_fd(), first_id)? {
        rustix::stdio::dup2_stderr(node).map_err(|e| Error::io("replace", "standard error", e))?;
    }
    Ok(())
}

/// Gives one stream away. Returns the node that takes the place of a device.
fn give_one(stream: BorrowedFd<'_>, first_id: Option<u32>) -> Result<Option<OwnedFd>> {
    // A stream may be closed.
    let Ok(stat) = fstat(stream) else {
        return Ok(None);
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo | FileType::Socket => {
            let Some(first_id) = first_id else {
                return Ok(None);
            };
            let magic = fstatfs(stream).ok().map(|stat| stat.f_type);
            let magic = magic.and_then(|magic| u64::try_from(magic).ok());
            // A pipe with a name that belongs to a user stays that user's.
            if stat.st_uid == 0 || magic.is_some_and(|magic| ANONYMOUS.contains(&magic)) {
                let (uid, gid) = (Uid::from_raw(first_id), Gid::from_raw(first_id));
                let _ = fchown(stream, Some(uid), Some(gid));
            }
            Ok(None)
        }
        kind @ (FileType::CharacterDevice | FileType::BlockDevice) if !stream.is_terminal() => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
            node(stream, kind, stat.st_rdev, mode).map(Some)
        }
        _ => Ok(None),
    }
}

/// Returns the device `number`, opened as `stream` is, by a node that has no path.
fn node(stream: BorrowedFd<'_>, kind: FileType, number: u64, mode: Mode) -> Result<OwnedFd> {
    let trouble = |e| {
        let error = Error::io("make", "a device node for a standard stream", e);
        error.remedy("give the container pipes, or /dev/null")
    };
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(trouble)?;
    fsconfig_set_string(&context, "size", "4096").map_err(trouble)?;
    fsconfig_create(&context).map_err(trouble)?;
    // The mount is attached nowhere, and ends with the descriptor of the node.
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = fsmount(&context, flags, MountAttrFlags::empty()).map_err(trouble)?;
    mknodat(&mount, "node", kind, Mode::from_raw_mode(0o600), number).map_err(trouble)?;
    let access = fcntl_getfl(stream).map_err(trouble)? & (OFlags::RWMODE | OFlags::APPEND);
    let flags = access | OFlags::NOCTTY | OFlags::CLOEXEC;
    let node = openat(&mount, "node", flags, Mode::empty()).map_err(trouble)?;
    fchmod(&node, mode).map_err(trouble)?;
    rustix::fs::unlinkat(&mount, "node", AtFlags::empty()).map_err(trouble)?;
    Ok(node)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn privileged_a_device_is_replaced_by_a_node_that_is_not_the_hosts() {
        let null = File::options().write(true).open("/dev/null").unwrap();
        let host = null.metadata().unwrap();
        let node = give_one(null.as_fd(), Some(100_000)).unwrap().unwrap();
        let stat = fstat(&node).unwrap();
        assert_eq!(stat.st_rdev, host.rdev());
        assert_eq!(stat.st_mode, host.mode());
        assert!(stat.st_dev != host.dev(), "another file system");
        assert_eq!(rustix::io::write(&node, b"gone").unwrap(), 4);
        assert_eq!(stat.st_nlink, 0);
    }

    #[test]
    fn privileged_every_device_but_a_terminal_is_replaced() {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let node = give_one(device.as_fd(), Some(100_000)).unwrap().unwrap();
        let (stat, host) = (fstat(&node).unwrap(), device.metadata().unwrap());
        assert_eq!(stat.st_rdev, host.rdev());
        assert!(stat.st_dev != host.dev(), "another file system");
        let terminal = File::options()
            .read(true)
            .write(true)
            .open("/dev/ptmx")
            .unwrap();
        assert!(give_one(terminal.as_fd(), Some(100_000)).unwrap().is_none());
    }

    #[test]
    fn privileged_a_pipe_gets_the_owner_and_a_file_keeps_its_own() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(give_one(reader.as_fd(), Some(100_000)).unwrap().is_none());
        assert_eq!(fstat(&reader).unwrap().st_uid, 100_000);
        let file = tempfile::tempfile().unwrap();
        assert!(give_one(file.as_fd(), Some(100_000)).unwrap().is_none());
        assert_eq!(fstat(&file).unwrap().st_uid, 0);
    }
}
