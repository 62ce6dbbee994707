//! System calls by their numbers.

#![allow(
    unsafe_code,
    reason = "calls by number, with memory that the table describes"
)]

use std::ffi::CStr;

use nix::libc::{self, c_long};
use rustix::io::Errno;

/// The words of a structure that a call is given at least. The kernel may write to them.
const ROOM: usize = 64;

/// An argument of a system call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument<'a> {
    /// A number.
    Number(i64),
    /// The address of a string.
    Text(&'a CStr),
    /// The address of a structure, which is zero after these words.
    Struct(&'a [Word]),
}

/// A word of a structure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word {
    /// Two numbers of 32 bits, the one at the lower address first.
    Pair(u32, u32),
    /// A number of 64 bits.
    Long(u64),
    /// The address of bytes that the kernel only reads.
    Bytes(&'static [u8]),
}

impl Word {
    fn value(self) -> u64 {
        match self {
            Self::Pair(first, second) => {
                let mut bytes = [0; 8];
                bytes[..4].copy_from_slice(&first.to_ne_bytes());
                bytes[4..].copy_from_slice(&second.to_ne_bytes());
                u64::from_ne_bytes(bytes)
            }
            Self::Long(number) => number,
            Self::Bytes(bytes) => bytes.as_ptr().expose_provenance() as u64,
        }
    }
}

/// Makes a system call. Returns its result, and what the structures are then, each with at least [`ROOM`] words.
pub(super) fn call(
    number: c_long,
    arguments: &[Argument<'_>],
) -> Result<(i64, Vec<Vec<u64>>), Errno> {
    let mut structures: Vec<Vec<u64>> = Vec::new();
    let mut values = [0i64; 6];
    for (value, argument) in values.iter_mut().zip(arguments) {
        *value = match argument {
            Argument::Number(number) => *number,
            Argument::Text(text) => text.as_ptr().expose_provenance() as i64,
            Argument::Struct(words) => {
                let mut memory: Vec<u64> = words.iter().map(|word| word.value()).collect();
                memory.resize(memory.len() + ROOM, 0);
                let at = memory.as_mut_ptr().expose_provenance() as i64;
                structures.push(memory);
                at
            }
        };
    }
    let [first, second, third, fourth, fifth, sixth] = values;
    // SAFETY: the calls of the tables take the addresses of strings and structures that live for the call. No structure of
    // these calls is longer than the memory that it has here, and none of the calls maps or frees memory.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) };
    if result < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok((result, structures))
}
