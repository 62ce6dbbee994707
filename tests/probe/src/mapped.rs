//! Reading through a mapping: the one thing here that needs unsafe code.

#![allow(unsafe_code, reason = "mmap(2) has no safe form")]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Returns the bytes of a file by mmap(2). A file on direct I/O has none: ENODEV.
pub(crate) fn read(file: &File) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let Some(length) = NonZeroUsize::new(size) else {
        return Ok(Vec::new());
    };
    // SAFETY: a new private mapping at an address of the kernel's choice aliases nothing.
    let at = unsafe {
        mmap(
            None,
            length,
            ProtFlags::PROT_READ,
            MapFlags::MAP_PRIVATE,
            file,
            0,
        )?
    };
    // SAFETY: `at` is mapped for `size` bytes until it is unmapped below, and readable. A file that shrinks
    // meanwhile ends this process by SIGBUS, which the caller sees.
    let bytes = unsafe { std::slice::from_raw_parts(at.cast::<u8>().as_ptr(), size) }.to_vec();
    // SAFETY: nothing refers to the mapping any more: the bytes are copied.
    unsafe { munmap(at, size)? };
    Ok(bytes)
}
