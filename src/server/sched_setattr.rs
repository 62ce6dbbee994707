//! The time slices of the server's threads.
//!
//! A thread that wakes up takes the CPU from another one at once if its slice is shorter, and if it has not used more than
//! its part of the CPU lately (EEVDF, Linux 6.12). It gets its part in shorter pieces, and no more than its part. So this
//! needs no privilege, and a container that makes the server work without rest takes no more from others than before.
//!
//! Without short slices, a request waits for whole ticks of the kernel while a worker or a thread of a container has the
//! CPU. Kernels before 6.12 ignore the slice.

use std::io;
use std::time::Duration;

/// The slice of all threads but workers. Requests wait for those that read them. It is the shortest that the kernel gives.
const SHORT: Duration = Duration::from_micros(100);

/// The slice of workers. It is longer than that of the threads that read requests, so that these never wait for them, and
/// shorter than that of other programs, so that readers do not wait for them either.
const WORKER: Duration = Duration::from_micros(200);

/// The niceness of workers.
const NICE: i32 = 5;

/// Gives this thread, and those that it starts, the slice of the threads that read requests.
///
/// # Errors
/// When the kernel refuses. Then requests wait longer on a busy host.
pub fn read_requests() -> io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    set(SHORT, nice)
}

/// Has this thread give way to those that read requests: they answer what is cheap, and sort the rest.
///
/// # Errors
/// When the kernel refuses the niceness. If it refuses the slice, it has refused that of the first thread too, whose error
/// was logged.
pub fn compute() -> io::Result<()> {
    rustix::process::setpriority_process(None, NICE)?;
    let _ = set(WORKER, NICE);
    Ok(())
}

/// Sets the slice of this thread. A policy that an administrator has chosen for the service stays.
#[allow(unsafe_code, reason = "no library has this call with a slice")]
fn set(slice: Duration, nice: i32) -> io::Result<()> {
    // SAFETY: all fields are numbers, of which 0 is one.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = size_of::<libc::sched_attr>() as u32;
    attributes.sched_flags = libc::SCHED_FLAG_KEEP_POLICY as u64;
    attributes.sched_nice = nice;
    attributes.sched_runtime = slice.as_nanos() as u64;
    // SAFETY: the kernel reads as many bytes as `size` says, and keeps no address.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
