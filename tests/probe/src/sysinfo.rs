//! sysinfo(2), as 64-bit and as 32-bit programs call it.

#![allow(
    unsafe_code,
    reason = "a call with a bad pointer, and one of a 32-bit program, have no safe form"
)]

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::answer::Answer;

/// The figures of `struct sysinfo` of 64-bit programs.
pub(crate) fn sysinfo() -> Answer {
    let mut bytes = [0xa5; 112];
    call(bytes.as_mut_ptr() as u64)?;
    let long = |at: usize| number(&bytes, at, 8);
    Ok(figures(
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 72].map(long),
        number(&bytes, 80, 2),
        number(&bytes, 104, 4),
    ))
}

/// The figures of `struct sysinfo` of 32-bit programs.
pub(crate) fn sysinfo32() -> Answer {
    let mut bytes = [0; 64];
    short::call(116, None, &mut bytes)?;
    let short = |at: usize| number(&bytes, at, 4);
    Ok(figures(
        [0, 4, 8, 12, 16, 20, 24, 28, 32, 36].map(short),
        number(&bytes, 40, 2),
        number(&bytes, 52, 4),
    ))
}

/// Calls sysinfo(2) with this pointer. It must lead to no memory that the program uses.
pub(crate) fn at(pointer: u64) -> Answer {
    call(pointer)?;
    Ok(json!(null))
}

/// Makes a socket of this address family. The kernel takes the lower half of the number, and a filter may compare all of it.
pub(crate) fn socket(family: u64) -> Answer {
    use nix::libc::{SOCK_STREAM, SYS_socket, syscall};
    // SAFETY: the arguments are numbers. This process ends soon, and the socket with it.
    let done = unsafe {
        syscall(
            SYS_socket,
            family,
            u64::from(SOCK_STREAM.unsigned_abs()),
            0u64,
        )
    };
    match done {
        0.. => Ok(json!(null)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a socket of this address family as a 32-bit program does: by socketcall(2), whose arguments are in memory.
pub(crate) fn socket32(family: u32) -> Answer {
    const SOCKETCALL: i64 = 102;
    const SOCKET: u64 = 1;
    let mut bytes = [0; 64];
    bytes[..4].copy_from_slice(&family.to_le_bytes());
    bytes[4..8].copy_from_slice(&nix::libc::SOCK_STREAM.to_le_bytes());
    short::call(SOCKETCALL, Some(SOCKET), &mut bytes)?;
    Ok(json!(null))
}

/// Calls sysinfo(2) on this number of threads until the file `stop` is there. Returns how often each answer was given: the size
/// of the memory, or the name of the error.
pub(crate) fn storm(threads: usize, stop: &str) -> Answer {
    let stop = Path::new(stop);
    let one = move || {
        let mut seen = std::collections::BTreeMap::<String, u64>::new();
        loop {
            let mut bytes = [0xa5; 112];
            let answer = match call(bytes.as_mut_ptr() as u64) {
                Ok(()) => number(&bytes, 32, 8).to_string(),
                Err(error) => crate::answer::name(&error).to_string(),
            };
            *seen.entry(answer).or_default() += 1;
            if stop.exists() {
                return seen;
            }
        }
    };
    let mut all = std::collections::BTreeMap::<String, u64>::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        for thread in threads {
            for (answer, count) in thread.join().unwrap_or_default() {
                *all.entry(answer).or_default() += count;
            }
        }
    });
    Ok(json!(all))
}

/// Makes system calls many times. Returns the nanoseconds that one takes, by what it does.
pub(crate) fn time_calls() -> Answer {
    let mut times = serde_json::Map::new();
    let mut time = |name: &str, count: u32, one: &mut dyn FnMut() -> io::Result<()>| {
        let began = Instant::now();
        for _ in 0..count {
            one()?;
        }
        let each = began.elapsed().as_nanos() as f64 / f64::from(count);
        times.insert(name.to_owned(), json!(each));
        io::Result::Ok(())
    };
    time("getppid", 20_000, &mut || {
        std::hint::black_box(rustix::process::getppid());
        Ok(())
    })?;
    time("openat, close", 3000, &mut || File::open("/").map(drop))?;
    let mut bytes = [0; 112];
    // Fewer than the share of a container is for.
    time("sysinfo", 200, &mut || call(bytes.as_mut_ptr() as u64))?;
    Ok(Value::Object(times))
}

fn figures(numbers: [u64; 10], tasks: u64, unit: u64) -> Value {
    let names = [
        "uptime", "load1", "load5", "load15", "total", "free", "shared", "buffers", "swap",
        "swapfree",
    ];
    let mut all: serde_json::Map<String, Value> = names
        .into_iter()
        .zip(numbers)
        .map(|(name, number)| (name.to_owned(), json!(number)))
        .collect();
    all.insert("tasks".to_owned(), json!(tasks));
    all.insert("unit".to_owned(), json!(unit));
    Value::Object(all)
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let mut all = [0; 8];
    all[..length].copy_from_slice(&bytes[at..at + length]);
    u64::from_le_bytes(all)
}

fn call(pointer: u64) -> io::Result<()> {
    // SAFETY: the kernel writes `struct sysinfo` (112 bytes) where the pointer leads to. Callers give one to an array of this
    // size, or to nothing.
    let done = unsafe { nix::libc::syscall(nix::libc::SYS_sysinfo, pointer) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(target_arch = "x86_64")]
mod short {
    use std::io;
    use std::num::NonZero;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    /// Makes the call `number` of a 32-bit program. Its last argument leads to the bytes; `first` is the one before.
    pub(super) fn call(number: i64, first: Option<u64>, bytes: &mut [u8; 64]) -> io::Result<()> {
        let size = NonZero::new(4096).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_32BIT;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping where the kernel finds room.
        let page = unsafe { mmap_anonymous(None, size, access, flags)? };
        // SAFETY: the page is mapped, and has more than 64 bytes.
        unsafe { page.cast::<[u8; 64]>().write_volatile(*bytes) };
        let mut result = number;
        let address = page.as_ptr() as u64;
        // SAFETY: the call of a 32-bit program takes its number in eax and its arguments in ebx, which the compiler keeps for
        // itself, and ecx. The kernel reads and writes 64 bytes of the new page at most, and clears r8 to r11.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {page}",
                "int 0x80",
                "xchg rbx, {page}",
                page = inout(reg) first.unwrap_or(address) => _,
                in("rcx") address,
                inout("rax") result,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        // SAFETY: the page is mapped, and has more than 64 bytes.
        let written = unsafe { page.cast::<[u8; 64]>().read_volatile() };
        // SAFETY: nothing leads to the page any more.
        unsafe { munmap(page, 4096)? };
        *bytes = written;
        match i32::try_from(result) {
            Ok(0..) => Ok(()),
            Ok(error) => Err(io::Error::from_raw_os_error(-error)),
            Err(_) => Err(io::Error::from_raw_os_error(-(result as i32))),
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod short {
    /// There is no such call in a 64-bit program of this architecture.
    pub(super) fn call(_: i64, _: Option<u64>, _: &mut [u8; 64]) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}
