//! The journal: the kernel writes each request straight into memory that outlives this process.
//!
//! A request that was taken is not sent again. So no moment may lie between the taking of a request and the note of it: the
//! next supervisor finds every request that was taken and not answered in the slot of its listener.

#![allow(
    unsafe_code,
    reason = "to have the kernel write into mapped memory, and to read that, takes raw pointers"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use eci_fs_protocol::vet::{LISTENERS, SLOT_BYTES};
use libc::seccomp_notif;
use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;

/// Bytes of the journal.
const BYTES: usize = LISTENERS as usize * SLOT_BYTES;

const _: () = assert!(size_of::<seccomp_notif>() <= SLOT_BYTES);
const _: () = assert!(SLOT_BYTES.is_multiple_of(align_of::<seccomp_notif>()));

/// The mapped journal.
#[derive(Debug, Clone)]
pub(super) struct Journal(Arc<MmapRaw>);

impl Journal {
    /// Maps the journal. The file never becomes shorter.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub(super) fn of(file: &OwnedFd) -> io::Result<Self> {
        let map = MmapOptions::new().len(BYTES).map_raw(file.as_raw_fd())?;
        Ok(Self(Arc::new(map)))
    }

    /// Returns a slot; none if there is none of this number. The caller has no other value of the same slot.
    pub(super) fn slot(&self, number: u32) -> Option<Slot> {
        let at = usize::try_from(number).ok()? * SLOT_BYTES;
        (number < LISTENERS).then(|| Slot {
            journal: self.clone(),
            at,
        })
    }
}

/// The place of one request: those of one listener are taken one by one.
#[derive(Debug)]
pub(super) struct Slot {
    journal: Journal,
    at: usize,
}

impl Slot {
    /// Takes the next request of a listener, and returns it.
    ///
    /// # Errors
    /// The kernel's; ENOENT when the process does not wait any more.
    pub(super) fn receive(
        &mut self,
        listener: BorrowedFd<'_>,
    ) -> Result<seccomp_notif, rustix::io::Errno> {
        // The kernel refuses memory that is not zero.
        self.clear();
        // SAFETY: the pointer is that of a slot, which is large enough for the value that the kernel writes
        // (`SECCOMP_IOCTL_NOTIF_RECV` has its size), and mapped for writing as long as `self` lives.
        let done = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                self.pointer(),
            )
        };
        match done {
            0 => Ok(self.read()),
            _ => Err(last_error()),
        }
    }

    /// Returns the request that was taken and not answered, if there is one.
    pub(super) fn taken(&self) -> Option<seccomp_notif> {
        let request = self.read();
        (request.id != 0).then_some(request)
    }

    /// Notes that the request was answered.
    pub(super) fn clear(&mut self) {
        // SAFETY: the slot is mapped for writing as long as `self` lives, and zero is a value of the type.
        unsafe { self.pointer().write_volatile(std::mem::zeroed()) };
    }

    fn read(&self) -> seccomp_notif {
        // SAFETY: the slot is mapped as long as `self` lives, is aligned, and every content is a value of the type. No other
        // thread writes to it, because there is one `Slot` for it.
        unsafe { self.pointer().read_volatile() }
    }

    fn pointer(&self) -> *mut seccomp_notif {
        // `at` is that of a slot within the mapping, which is aligned to a page.
        self.journal.0.as_mut_ptr().wrapping_add(self.at).cast()
    }
}

/// Returns the error of the call before.
fn last_error() -> rustix::io::Errno {
    // It always has a number.
    rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

/// The requests of a listener besides the taking: each is one ioctl.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answers<'a>(pub(super) BorrowedFd<'a>);

impl Answers<'_> {
    /// Returns whether the process still waits for the answer to this request. Its id and memory are its own then.
    pub(super) fn is_valid(self, id: u64) -> bool {
        // SAFETY: the kernel reads the number that the pointer leads to.
        let done =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &id) };
        done == 0
    }

    /// Answers a request: the call returns 0, or fails with `error`. A process that does not wait any more hears nothing.
    pub(super) fn send(self, id: u64, error: Option<Errno>) {
        let response = libc::seccomp_notif_resp {
            id,
            val: 0,
            error: error.map_or(0, |error| -(error as i32)),
            flags: 0,
        };
        // SAFETY: the kernel reads the value that the pointer leads to.
        let done = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &response,
            )
        };
        if done != 0 {
            let error = io::Error::last_os_error();
            tracing::debug!(%error, "nobody waits for the answer any more");
        }
    }

    /// Has the kernel run the supervisor at once on the CPU of the process that waits, and the other way round. Kernels before
    /// 6.6 cannot.
    pub(super) fn wake_in_place(self) {
        let flags = libc::c_ulong::from(1u8);
        // SAFETY: the argument is a number.
        let done = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                flags,
            )
        };
        if done != 0 {
            tracing::debug!("calls take longer: the kernel does not hand its CPU over");
        }
    }
}
