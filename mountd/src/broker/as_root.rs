//! What the daemon reads and writes for the server, because the kernel asks at each read and write of some files who that is. It is
//! root without capabilities: a file that takes a capability too is for no container.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// The most bytes of a file that are read: files of sysfs and sysctls are a page, binary attributes a few.
const MOST: u64 = 1 << 20;

/// Returns the content of a file of the kernel.
///
/// # Errors
/// The kernel's.
pub(super) fn read_text(file: OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut file = File::from(file).take(MOST);
    without_capabilities(|| file.read_to_end(&mut text).map_err(errno))?;
    Ok(text)
}

/// Writes to a file of the kernel, and returns the number of bytes that it took.
///
/// # Errors
/// The kernel's.
pub(super) fn write(file: &OwnedFd, offset: u64, bytes: &[u8]) -> Result<u64, Errno> {
    let count = without_capabilities(|| rustix::io::pwrite(file, bytes, offset))?;
    Ok(count as u64)
}

/// Does `work` on this thread without a capability. If they cannot be had again the daemon cannot go on: it aborts.
fn without_capabilities<T>(work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let all = capabilities(None)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        ..all
    };
    set_capabilities(None, none)?;
    let result = work();
    if let Err(error) = set_capabilities(None, all) {
        tracing::error!(%error, "a thread cannot have its capabilities again");
        std::process::abort();
    }
    result
}

/// Returns a descriptor of a file in memory that has `text`.
///
/// # Errors
/// The kernel's.
pub(super) fn copy_of(text: &[u8]) -> Result<OwnedFd, Errno> {
    let mut file = File::from(memfd_create("copy", MemfdFlags::CLOEXEC)?);
    let written = file.write_all(text).and_then(|()| file.rewind());
    written.map_err(errno)?;
    Ok(file.into())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_its_capabilities_again_after_it_has_worked_without_them() {
        let before = capabilities(None).unwrap();
        let within = without_capabilities(|| capabilities(None)).unwrap();
        assert_eq!(within.effective, CapabilitySet::empty());
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn a_copy_has_the_text_of_the_file() {
        let file = OwnedFd::from(File::open("/proc/sys/kernel/ostype").unwrap());
        let copy = copy_of(&read_text(file).unwrap()).unwrap();
        assert_eq!(
            std::io::read_to_string(File::from(copy)).unwrap(),
            "Linux\n"
        );
    }
}
