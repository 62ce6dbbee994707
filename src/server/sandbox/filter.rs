//! The filter of system calls (seccomp): those that serving takes, with the arguments that serving takes, and nothing else.

use std::io;

use crate::confinement::filter::{Filter, clear, equals, is_null};

/// System calls that are allowed with any arguments, by what they are needed for.
const ALLOWED: &[libc::c_long] = &[
    // Requests, kernel files, the link.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    // A message can name an address, which the kernel passes over on a connected socket of packets. There is no other.
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_lseek,
    libc::SYS_getdents64,
    libc::SYS_dup3,
    libc::SYS_shutdown,
    libc::SYS_accept4,
    libc::SYS_ppoll,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_inotify_rm_watch,
    // The permissions of a thread that writes to a tunable.
    libc::SYS_capget,
    // Time.
    libc::SYS_clock_getres,
];

/// Forbids everything else, for this thread and those it starts.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn install() -> io::Result<()> {
    let mut filter = Filter::new(ALLOWED)?;
    // Files are opened for reading only: neither O_WRONLY nor O_RDWR, and nothing is created or cut.
    let write_bits =
        libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);
    filter.allow(libc::SYS_openat, [clear(2, write_bits)])?;
    // The only option of a socket that can be read is the peer.
    let peer = [equals(1, libc::SOL_SOCKET), equals(2, libc::SO_PEERCRED)];
    filter.allow(libc::SYS_getsockopt, peer)?;
    // The only sockets are pairs of packets, which lead to nobody else. None is sent to an address.
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    let pair = [equals(0, libc::AF_UNIX), equals(1, kind), equals(2, 0)];
    filter.allow(libc::SYS_socketpair, pair)?;
    filter.allow(libc::SYS_sendto, [is_null(4)])?;
    // Of a descriptor a copy can be made, and the state can be locked. None can be made to send signals. A build with debug
    // assertions asks whether a descriptor is open before it closes that.
    for command in [libc::F_DUPFD_CLOEXEC, libc::F_SETLK, libc::F_GETFD] {
        filter.allow(libc::SYS_fcntl, [equals(1, command)])?;
    }
    // A thread may give way to others of the server. The priority of no other thread can be changed.
    let own = [equals(0, libc::PRIO_PROCESS as i32), equals(1, 0)];
    filter.allow(libc::SYS_setpriority, own)?;
    // It may also have a shorter or longer time slice. Without capabilities it cannot come before others.
    let own = [equals(0, 0), equals(2, 0)];
    filter.allow(libc::SYS_sched_setattr, own)?;
    filter.install()
}
