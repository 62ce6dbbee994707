//! The state as memory. A record is written without a system call, so that requests wait less.
//!
//! The pages belong to the file and not to the process, so a write stays when the process is killed.

#![allow(
    unsafe_code,
    reason = "to copy into memory that other processes may map takes a raw pointer"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};

/// The mapped file. Nothing reads from this memory, and no reference to it is ever made.
#[derive(Debug)]
pub(super) struct Memory(MmapRaw);

impl Memory {
    /// Maps the first `length` bytes of the file, which never becomes shorter.
    ///
    /// # Errors
    /// When the file cannot be mapped.
    pub(super) fn of(file: &OwnedFd, length: usize) -> io::Result<Self> {
        // The raw descriptor: closing a copy of it would end the lock.
        MmapOptions::new()
            .len(length)
            .map_raw(file.as_raw_fd())
            .map(Self)
    }

    /// Copies all `parts` to the offset `at`, one behind the other.
    ///
    /// # Errors
    /// When that range is not in the file.
    pub(super) fn write(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let is_in_file = |at: &usize| {
            at.checked_add(length)
                .is_some_and(|end| end <= self.0.len())
        };
        let mut next = usize::try_from(at)
            .ok()
            .filter(is_in_file)
            .ok_or(io::ErrorKind::StorageFull)?;
        for part in parts {
            // SAFETY: `next + part.len() <= at + length <= len`, and the memory is mapped for writing as long as `self` lives.
            // `part` is a reference, so it does not overlap with memory to which there is none. Other threads write to
            // other blocks: each belongs to one record, whose entry is locked. The file cannot be made shorter (its
            // seals, mountd/src/state_file.rs), which would be a signal.
            unsafe {
                let to = self.0.as_mut_ptr().add(next);
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
            }
            next += part.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(length: u64) -> OwnedFd {
        let file = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, length).unwrap();
        file
    }

    #[test]
    fn what_is_written_is_in_the_file() {
        let file = file(8192);
        let memory = Memory::of(&file, 8192).unwrap();
        memory.write(&[b"ab", b"", b"cde"], 4094).unwrap();
        drop(memory);
        let mut bytes = [0; 7];
        rustix::io::pread(&file, &mut bytes, 4093).unwrap();
        assert_eq!(&bytes, b"\0abcde\0");
    }

    #[test]
    fn what_is_not_in_the_file_is_refused() {
        let file = file(4096);
        let memory = Memory::of(&file, 4096).unwrap();
        memory.write(&[b"ab"], 4094).unwrap();
        for at in [4095, 4096, u64::MAX] {
            let kind = memory.write(&[b"a", b"b"], at).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::StorageFull);
        }
        let mut bytes = [0; 2];
        rustix::io::pread(&file, &mut bytes, 4094).unwrap();
        assert_eq!(&bytes, b"ab");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_no_memory() {
        let file = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
        Memory::of(&file, 4096).unwrap_err();
    }
}
