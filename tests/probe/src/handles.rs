//! File handles: name_to_handle_at(2) and open_by_handle_at(2), which no library has in a safe form.

#![allow(
    unsafe_code,
    reason = "name_to_handle_at(2) and open_by_handle_at(2) have no safe form"
)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};

use nix::libc;

/// The type of a handle of FUSE (FILEID_INO64_GEN).
const FUSE: i32 = 0x81;

/// The handle of a file of FUSE (fuse_encode_fh). The layout is that of `struct file_handle`.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    /// The higher half of the node id, the lower one, and the generation.
    words: [u32; 3],
}

impl Handle {
    fn new(words: [u32; 3]) -> Self {
        Self {
            bytes: 12,
            kind: FUSE,
            words,
        }
    }
}

/// Returns the three words of the handle of a file: the higher half of the node id, the lower one, and the generation.
///
/// # Errors
/// The kernel's: EOPNOTSUPP where there are no handles.
pub fn handle(path: &str) -> io::Result<[u32; 3]> {
    let path = CString::new(path)?;
    let mut handle = Handle::new([0; 3]);
    let mut mount = 0i32;
    // SAFETY: all pointers are to values that live for the call. The kernel writes as many bytes as `bytes` says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            0,
        )
    };
    match result {
        0 => Ok(handle.words),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens the file with a handle on the mount of `path`, and returns its text.
///
/// # Errors
/// The kernel's: ESTALE for a handle of no file, and EISDIR for a directory that was opened.
pub fn open(path: &str, words: [u32; 3]) -> io::Result<Vec<u8>> {
    let mount = File::open(path)?;
    let mut handle = Handle::new(words);
    // SAFETY: the pointer is to a value that lives for the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut handle,
            libc::O_RDONLY,
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor, and nobody else has it.
    let mut file = unsafe { File::from_raw_fd(fd) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
