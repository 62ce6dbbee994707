//! The file of the journal: supervisors have the kernel write requests into it. The daemon never looks into it.

use std::os::fd::{BorrowedFd, OwnedFd};

use eci_fs_protocol::error::{Error, Result};
use eci_fs_protocol::vet::{LISTENERS, SLOT_BYTES};
use rustix::fs::{MemfdFlags, SealFlags};

/// Bytes of the file. Pages that were never written take no memory.
const SIZE: u64 = LISTENERS as u64 * SLOT_BYTES as u64;

/// Returns the seals: the size never changes, so that no supervisor can be made to fail by a smaller file.
fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

/// Returns a new file, which is empty.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn create() -> Result<OwnedFd> {
    let trouble = |e| Error::io("make", "the journal of system calls", e);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("eci-fs-calls", flags).map_err(trouble)?;
    rustix::fs::ftruncate(&file, SIZE).map_err(trouble)?;
    rustix::fs::fcntl_add_seals(&file, seals()).map_err(trouble)?;
    Ok(file)
}

/// Returns the file that was handed over, or a new one where that is none of ours.
///
/// # Errors
/// As [`create`].
pub(super) fn or_new(handed_over: OwnedFd) -> Result<OwnedFd> {
    let sealed = rustix::fs::fcntl_get_seals(&handed_over).is_ok_and(|has| has == seals());
    let sized =
        rustix::fs::fstat(&handed_over).is_ok_and(|stat| u64::try_from(stat.st_size) == Ok(SIZE));
    if sealed && sized {
        return Ok(handed_over);
    }
    tracing::warn!("what was handed over as the journal of system calls is not it");
    create()
}

/// Empties a slot.
pub(super) fn clear(journal: BorrowedFd<'_>, slot: u32) {
    let at = u64::from(slot) * SLOT_BYTES as u64;
    if let Err(error) = rustix::io::pwrite(journal, &[0; SLOT_BYTES], at) {
        tracing::warn!(%error, "the journal cannot be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_journal_of_ours_is_gone_on_with() {
        let ours = create().unwrap();
        rustix::io::pwrite(&ours, b"x", 300).unwrap();
        let kept = or_new(ours).unwrap();
        let mut byte = [0];
        rustix::io::pread(&kept, &mut byte, 300).unwrap();
        assert_eq!(&byte, b"x");
        clear(kept.as_fd(), 1);
        rustix::io::pread(&kept, &mut byte, 300).unwrap();
        assert_eq!(byte, [0]);
        let other = or_new(OwnedFd::from(tempfile::tempfile().unwrap())).unwrap();
        assert_eq!(rustix::fs::fstat(&other).unwrap().st_size, 1 << 20);
    }

    use std::os::fd::AsFd;
}
