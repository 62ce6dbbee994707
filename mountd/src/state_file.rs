//! The memfd in which servers remember what the next one must know. It is made here. The daemon never looks into it.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};

use eci_fs_protocol::error::{Error, Result};

/// Bytes of the file. It is sparse: pages that were never written take no memory.
pub const SIZE: u64 = 64 << 20;

/// Returns the seals. The size never changes, so that no server can be made to fail by a smaller file.
fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

/// Returns a new file, which is empty.
///
/// # Errors
/// When the kernel refuses.
pub fn create() -> Result<OwnedFd> {
    let trouble = |e| Error::io("make", "the memory file of the state", e);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("eci-fs-state", flags).map_err(trouble)?;
    rustix::fs::ftruncate(&file, SIZE).map_err(trouble)?;
    rustix::fs::fcntl_add_seals(&file, seals()).map_err(trouble)?;
    Ok(file)
}

/// Returns the file that was handed over, or a new one where that is none of ours. Then what it remembered is lost, and
/// the log says so.
///
/// # Errors
/// As [`create`].
pub fn or_new(handed_over: OwnedFd) -> Result<OwnedFd> {
    let sealed = rustix::fs::fcntl_get_seals(&handed_over).is_ok_and(|has| has == seals());
    let sized =
        rustix::fs::fstat(&handed_over).is_ok_and(|stat| u64::try_from(stat.st_size) == Ok(SIZE));
    if sealed && sized {
        return Ok(handed_over);
    }
    tracing::warn!("what was handed over as the state is not it: starting with an empty one");
    create()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_ours_is_gone_on_with() {
        let ours = create().unwrap();
        rustix::io::pwrite(&ours, b"x", 9).unwrap();
        let mut byte = [0];
        rustix::io::pread(or_new(ours).unwrap(), &mut byte, 9).unwrap();
        assert_eq!(&byte, b"x");
        let other = OwnedFd::from(tempfile::tempfile().unwrap());
        rustix::io::pwrite(&other, b"x", 9).unwrap();
        rustix::io::pread(or_new(other).unwrap(), &mut byte, 9).unwrap();
        assert_eq!(byte, [0]);
    }
}
