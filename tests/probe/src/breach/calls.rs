//! System calls that no library has in a safe form, and a child.

#![allow(
    unsafe_code,
    reason = "calls by number, of the 32-bit table, and fork(2)"
)]

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use rustix::io::Errno;

/// `open_tree_attr` (Linux 6.15).
const OPEN_TREE_ATTR: libc::c_long = 467;

/// The number of umount2 in the x32 table.
const X32_UMOUNT2: libc::c_long = 166 | 0x4000_0000;

/// Changes of a mount, as mount_setattr(2) takes them.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Attributes {
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) propagation: u64,
    pub(super) user_namespace: u64,
}

impl Attributes {
    /// Takes "ro" away.
    pub(super) const WRITABLE: Self = Self {
        set: 0,
        clear: libc::MOUNT_ATTR_RDONLY,
        propagation: 0,
        user_namespace: 0,
    };
}

fn checked(result: libc::c_long) -> Result<i32, Errno> {
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(last()),
    }
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn text(path: &str) -> Result<CString, Errno> {
    CString::new(path).map_err(|_| Errno::INVAL)
}

/// mount_setattr(2).
pub(super) fn mount_setattr(
    dir: impl AsFd,
    path: &str,
    flags: libc::c_int,
    attributes: Attributes,
) -> Result<(), Errno> {
    let path = text(path)?;
    // SAFETY: the pointers are to values that live for the call, and the size is that of the second.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}

/// open_tree_attr(2), which clones a mount with other attributes.
pub(super) fn open_tree_attr(path: &str, attributes: Attributes) -> Result<OwnedFd, Errno> {
    let path = text(path)?;
    // SAFETY: the pointers are to values that live for the call, and the size is that of the second.
    let opened = checked(unsafe {
        libc::syscall(
            OPEN_TREE_ATTR,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::OPEN_TREE_CLONE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })?;
    // SAFETY: the kernel has made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// umount2(2) by the x32 table.
pub(super) fn umount2_x32(path: &str, flags: libc::c_int) -> Result<(), Errno> {
    let path = text(path)?;
    // SAFETY: the pointer is to a string that lives for the call.
    checked(unsafe { libc::syscall(X32_UMOUNT2, path.as_ptr(), flags) }).map(drop)
}

/// A handle of any file system (`struct file_handle`).
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    content: [u8; 128],
}

/// Opens the file at `path` again by its handle, below the mount of `mount`.
pub(super) fn open_by_handle(
    path: &str,
    mount: impl AsFd,
    flags: libc::c_int,
) -> Result<OwnedFd, Errno> {
    let path = text(path)?;
    let mut handle = Handle {
        bytes: 128,
        kind: 0,
        content: [0; 128],
    };
    let mut id = 0i32;
    // SAFETY: all pointers are to values that live for the call. The kernel writes as many bytes as `bytes` says.
    checked(unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut id,
            0,
        )
    })?;
    // SAFETY: the pointer is to a handle that lives for the call.
    let opened = checked(unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_fd().as_raw_fd(),
            &raw mut handle,
            flags,
        )
    })?;
    // SAFETY: the kernel has made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// A call of the 32-bit table, as a 32-bit program makes it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call32<'a> {
    /// umount(2) with a path.
    Umount(&'a str),
    /// umount2(2) with a path, lazily.
    Umount2(&'a str),
    /// mount(2) with a source and a type, a path, and flags.
    Mount(&'a str, &'a str, u32),
}

/// Makes a call of the 32-bit table.
#[cfg(target_arch = "x86_64")]
pub(super) fn call_32(call: Call32<'_>) -> Result<(), Errno> {
    let mut low = Low::new()?;
    let (number, arguments) = match call {
        Call32::Umount(path) => (22, [low.put(path)?, 0, 0, 0]),
        Call32::Umount2(path) => (52, [low.put(path)?, libc::MNT_DETACH as u32, 0, 0]),
        Call32::Mount(source, path, flags) => {
            let source = low.put(source)?;
            (21, [source, low.put(path)?, source, flags])
        }
    };
    let [first, second, third, fourth] = arguments.map(u64::from);
    let mut result: i64 = number;
    // SAFETY: the kernel reads the strings in low memory, which live for the call, and returns a number. Registers that
    // it may change are named; the first argument's cannot be, so it is put back.
    unsafe {
        std::arch::asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) first => _,
            inout("rax") result,
            in("rcx") second,
            in("rdx") third,
            in("rsi") fourth,
            in("rdi") 0u64,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    // The kernel returns 32 bits.
    match result as i32 {
        errno if errno < 0 => Err(Errno::from_raw_os_error(-errno)),
        _ => Ok(()),
    }
}

/// There is no such table.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn call_32(_: Call32<'_>) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// Memory whose addresses fit into 32 bits.
#[cfg(target_arch = "x86_64")]
struct Low {
    at: *mut u8,
    used: usize,
}

#[cfg(target_arch = "x86_64")]
impl Low {
    const SIZE: usize = 4096;

    fn new() -> Result<Self, Errno> {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: a new private mapping at an address of the kernel's choice aliases nothing.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), Self::SIZE, rights, kind, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(last());
        }
        let at = at.cast();
        Ok(Self { at, used: 0 })
    }

    /// Puts a string there, and returns its address.
    fn put(&mut self, string: &str) -> Result<u32, Errno> {
        let end = self.used + string.len() + 1;
        if end > Self::SIZE {
            return Err(Errno::NOMEM);
        }
        // SAFETY: the bytes up to `end` are in the mapping, and hold zeros that nobody else uses.
        let at = unsafe {
            let at = self.at.add(self.used);
            std::ptr::copy_nonoverlapping(string.as_ptr(), at, string.len());
            at
        };
        self.used = end;
        u32::try_from(at.addr()).map_err(|_| Errno::FAULT)
    }
}

/// Runs `work` in a child, and returns what it returns.
pub(super) fn in_child(work: impl FnOnce() -> (bool, String)) -> Result<(bool, String), Errno> {
    let (mut reader, mut writer) = std::io::pipe().map_err(|_| Errno::NFILE)?;
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let (got, said) = work();
            let _ = writer.write_all(&[u8::from(got)]);
            let _ = writer.write_all(said.as_bytes());
            // SAFETY: it has no requirements.
            unsafe { libc::_exit(0) }
        }
        Ok(ForkResult::Parent { child }) => {
            drop(writer);
            let mut said = Vec::new();
            let read = reader.read_to_end(&mut said);
            let _ = waitpid(child, None);
            match (read, said.split_first()) {
                (Ok(_), Some((got, said))) => {
                    Ok((*got != 0, String::from_utf8_lossy(said).into_owned()))
                }
                _ => Err(Errno::CHILD),
            }
        }
        Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
    }
}

/// A child that changes a byte string in shared memory between two values as fast as it can, until this is dropped.
pub(super) struct Racer {
    memory: *mut u8,
    child: nix::unistd::Pid,
}

impl Racer {
    const SIZE: usize = 4096;

    /// Starts the child. Both values must be shorter than 16 bytes.
    pub(super) fn start(values: [&'static [u8]; 2]) -> Result<Self, Errno> {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), Self::SIZE, rights, kind, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(last());
        }
        let memory: *mut u8 = memory.cast();
        let write = move |value: &[u8], pauses: u32| {
            for (place, byte) in value.iter().chain([&0]).enumerate() {
                // SAFETY: the place is in the mapping. Others read the bytes at any time, which are not Rust's to them.
                unsafe { memory.add(place).write_volatile(*byte) };
            }
            (0..pauses).for_each(|_| std::hint::spin_loop());
        };
        write(values[0], 0);
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                let mut random = 1u32;
                loop {
                    for value in values {
                        random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                        write(value, random >> 8 & 63);
                    }
                }
            }
            Ok(ForkResult::Parent { child }) => Ok(Self { memory, child }),
            Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
        }
    }

    /// mount(2) with the string as the type.
    pub(super) fn mount(&self, path: &str) -> Result<(), Errno> {
        let path = text(path)?;
        // SAFETY: the strings live for the call. That of the type ends within its page, which stays zero at its end.
        checked(libc::c_long::from(unsafe {
            libc::mount(
                c"x".as_ptr(),
                path.as_ptr(),
                self.memory.cast(),
                0,
                std::ptr::null(),
            )
        }))
        .map(drop)
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.child, nix::sys::signal::Signal::SIGKILL);
        let _ = waitpid(self.child, None);
    }
}

/// A child in a mount namespace of its own that does `work` and stays until this is dropped.
pub(super) struct Staying(nix::unistd::Pid);

impl Staying {
    /// Starts the child, and waits until its work is done.
    pub(super) fn start(work: impl FnOnce()) -> Result<Self, Errno> {
        let (mut reader, mut writer) = std::io::pipe().map_err(|_| Errno::NFILE)?;
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                work();
                let _ = writer.write_all(&[0]);
                loop {
                    nix::unistd::pause();
                }
            }
            Ok(ForkResult::Parent { child }) => {
                drop(writer);
                let _ = reader.read(&mut [0]);
                Ok(Self(child))
            }
            Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
        }
    }

    pub(super) fn pid(&self) -> i32 {
        self.0.as_raw()
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// Makes this process root of a user namespace of its own, in which only its own id has a number.
pub(super) fn enter_user_namespace(others: nix::sched::CloneFlags) -> Result<(), Errno> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER | others)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    let write = |path: &str, text: &str| {
        let written = File::options().write(true).open(path);
        written
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    write("/proc/self/uid_map", "0 0 1\n")?;
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/gid_map", "0 0 1\n")
}
