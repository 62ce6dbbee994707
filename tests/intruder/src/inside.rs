//! A thread of another process, which makes system calls for the test.

use std::io::IoSlice;

use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Bytes of the memory for arguments.
const ROOM: u64 = 64 << 10;

/// A thread of the server, stopped in a system call. It makes system calls for the test, and goes on with its own when
/// this is dropped.
#[derive(Debug)]
pub struct Inside {
    process: u32,
    /// The thread.
    pid: Pid,
    before: user_regs_struct,
    /// The memory for arguments, and the number of its bytes that are in use.
    room: u64,
    used: u64,
}

impl Inside {
    /// Stops a thread of the server that waits for what a container sets. All others go on, so that the watchdog of the daemon
    /// finds a server that answers.
    ///
    /// # Errors
    /// When the process cannot be traced, or its memory cannot be written.
    pub fn of(pid: u32) -> Result<Self, String> {
        let process = pid;
        let pid = thread(process).ok_or_else(|| format!("process {process} has no such thread"))?;
        let failed = |what: &str, error: Errno| format!("{what}: {error}");
        ptrace::seize(pid, Options::empty()).map_err(|e| failed("seize", e))?;
        ptrace::interrupt(pid).map_err(|e| failed("interrupt", e))?;
        waitpid(pid, Some(WaitPidFlag::__WALL)).map_err(|e| failed("wait", e))?;
        let before = ptrace::getregs(pid).map_err(|e| failed("registers", e))?;
        let mut inside = Self {
            process,
            pid,
            before,
            room: 0,
            used: 0,
        };
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        let arguments = [0, ROOM, access as u64, kind as u64, u64::MAX, 0];
        let room = inside.call(libc::SYS_mmap, &arguments);
        inside.room = room.map_err(|e| failed("memory for arguments", e))?;
        Ok(inside)
    }

    /// Makes a system call in the process, and returns its result.
    ///
    /// # Errors
    /// The errno of the call.
    ///
    /// # Panics
    /// When the thread can no longer be traced.
    pub fn call(&mut self, number: libc::c_long, arguments: &[u64]) -> Result<u64, Errno> {
        let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
        let mut registers = self.before;
        registers.rax = number as u64;
        // There is no call of the thread's own that would have to be begun again.
        registers.orig_rax = u64::MAX;
        registers.rdi = argument(0);
        registers.rsi = argument(1);
        registers.rdx = argument(2);
        registers.r10 = argument(3);
        registers.r8 = argument(4);
        registers.r9 = argument(5);
        // The thread waits in a system call, so the instruction before the next one is the one that makes them.
        registers.rip -= 2;
        let done = ptrace::setregs(self.pid, registers)
            .and_then(|()| self.step())
            .and_then(|()| ptrace::getregs(self.pid));
        let result = match done {
            Ok(registers) => registers.rax as i64,
            Err(error) => panic!("the thread is gone: {error}"),
        };
        match i32::try_from(-result) {
            Ok(errno @ 1..=4095) => Err(Errno::from_raw(errno)),
            _ => Ok(result as u64),
        }
    }

    /// Has the thread execute one instruction. Signals that come meanwhile are passed over.
    fn step(&self) -> Result<(), Errno> {
        loop {
            ptrace::step(self.pid, None)?;
            match waitpid(self.pid, Some(WaitPidFlag::__WALL))? {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => return Ok(()),
                WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..) => {}
                _ => return Err(Errno::ESRCH),
            }
        }
    }

    /// Copies bytes to the process, and returns their address there. They stay until [`Self::forget`].
    ///
    /// # Panics
    /// When there is no more room.
    pub fn bytes(&mut self, bytes: &[u8]) -> u64 {
        let at = self.room + self.used;
        self.used += (bytes.len() as u64).next_multiple_of(16);
        assert!(self.used <= ROOM, "too many arguments");
        let remote = RemoteIoVec {
            base: at as usize,
            len: bytes.len(),
        };
        let written = process_vm_writev(self.pid, &[IoSlice::new(bytes)], &[remote]);
        assert_eq!(written, Ok(bytes.len()), "an argument");
        at
    }

    /// Copies a text with a 0 at its end to the process, and returns its address there.
    pub fn text(&mut self, text: &str) -> u64 {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(&bytes)
    }

    /// Returns the address of room for an answer.
    pub fn answer(&mut self) -> u64 {
        self.bytes(&[0; 4096])
    }

    /// Gives all arguments up.
    pub fn forget(&mut self) {
        self.used = 0;
    }

    /// Returns the pid of the process.
    pub fn pid(&self) -> u64 {
        u64::from(self.process)
    }
}

/// Returns the thread of a server that waits for what containers set.
fn thread(process: u32) -> Option<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let is_one = |task: &std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.trim() == "host-sysctls")
    };
    let task = tasks.flatten().find(is_one)?;
    Some(Pid::from_raw(task.file_name().to_str()?.parse().ok()?))
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.room != 0 {
            // Both can only fail because the process is gone.
            let _ = self.call(libc::SYS_munmap, &[self.room, ROOM]);
        }
        let _ = ptrace::setregs(self.pid, self.before);
        let _ = ptrace::detach(self.pid, None);
    }
}
