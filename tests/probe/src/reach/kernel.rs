//! Attempts that are one system call each.

use nix::libc;

use super::Call;
use super::calls::Argument::{Number, Struct, Text};
use super::calls::Word::{Bytes, Long, Pair};

/// A file that is not there.
const NOWHERE: super::Argument<'static> = Text(c"/nowhere/nothing");

/// No descriptor.
const NONE: super::Argument<'static> = Number(-1);

/// Changes the length of a tick (`ADJ_TICK`). With a length of 0 the kernel refuses that after it has checked the
/// permission.
const ADJ_TICK: u32 = 0x4000;

/// Commands of syslog(2) (`SYSLOG_ACTION_*`).
const READ_ALL: i64 = 3;
const CONSOLE_LEVEL: i64 = 8;

/// More segments than any image may have. None at all would remove the image that is loaded.
const SEGMENTS: i64 = 1000;

/// A flag of kexec_file_load(2) that does not exist.
const NO_FLAG: i64 = 1 << 30;

/// Commands of bpf(2), and the size of its structure.
const MAP_CREATE: i64 = 0;
const PROG_LOAD: i64 = 5;
const PROG_GET_NEXT_ID: i64 = 11;
const MAP_GET_NEXT_ID: i64 = 12;
const BTF_GET_NEXT_ID: i64 = 23;
const LINK_GET_NEXT_ID: i64 = 31;
const BPF_SIZE: super::Argument<'static> = Number(120);

/// A BPF program that returns 0.
const INSTRUCTIONS: &[u8] = &[
    0xb7, 0, 0, 0, 0, 0, 0, 0, //
    0x95, 0, 0, 0, 0, 0, 0, 0,
];

/// Kinds of BPF programs.
const SOCKET_FILTER: u32 = 1;
const KPROBE: u32 = 2;
const CGROUP_DEVICE: u32 = 15;

/// The size of the first version of `perf_event_attr`.
const PERF_SIZE: u32 = 64;

/// Flags of an event: it does not count yet, and not in the kernel.
const DISABLED: u64 = 1;
const NO_KERNEL: u64 = 1 << 5 | 1 << 6;

/// Types of events.
const SOFTWARE: u32 = 1;
const TRACEPOINT: u32 = 2;

macro_rules! program {
    ($kind:expr) => {
        &[
            Number(PROG_LOAD),
            Struct(&[Pair($kind, 2), Bytes(INSTRUCTIONS), Bytes(b"GPL\0")]),
            BPF_SIZE,
        ]
    };
}

macro_rules! event {
    ($kind:expr, $config:expr, $flags:expr, $pid:expr, $cpu:expr) => {
        &[
            Struct(&[
                Pair($kind, PERF_SIZE),
                Long($config),
                Long(0),
                Long(0),
                Long(0),
                Long($flags),
            ]),
            Number($pid),
            Number($cpu),
            NONE,
            Number(0),
        ]
    };
}

#[cfg(target_arch = "x86_64")]
const IOPL: libc::c_long = libc::SYS_iopl;
#[cfg(target_arch = "x86_64")]
const IOPERM: libc::c_long = libc::SYS_ioperm;

/// There are none.
#[cfg(not(target_arch = "x86_64"))]
const IOPL: libc::c_long = -1;
#[cfg(not(target_arch = "x86_64"))]
const IOPERM: libc::c_long = -1;

pub(super) const CALLS: &[Call] = &[
    ("swapon", libc::SYS_swapon, &[NOWHERE, Number(0)]),
    ("swapoff", libc::SYS_swapoff, &[NOWHERE]),
    ("acct", libc::SYS_acct, &[NOWHERE]),
    // Without a time the kernel checks the permission and sets nothing.
    (
        "settimeofday",
        libc::SYS_settimeofday,
        &[Number(0), Number(0)],
    ),
    // The kernel refuses a time of day at which it had not been started yet.
    (
        "clock_settime",
        libc::SYS_clock_settime,
        &[Number(0), Struct(&[Long(0), Long(0)])],
    ),
    (
        "adjtimex",
        libc::SYS_adjtimex,
        &[Struct(&[Pair(ADJ_TICK, 0)])],
    ),
    (
        "syslog READ_ALL",
        libc::SYS_syslog,
        &[Number(READ_ALL), Struct(&[]), Number(64)],
    ),
    // A level of 0 is none.
    (
        "syslog CONSOLE_LEVEL",
        libc::SYS_syslog,
        &[Number(CONSOLE_LEVEL), Number(0), Number(0)],
    ),
    ("iopl", IOPL, &[Number(3)]),
    ("ioperm", IOPERM, &[Number(0x80), Number(1), Number(1)]),
    (
        "init_module",
        libc::SYS_init_module,
        &[Number(0), Number(0), Text(c"")],
    ),
    (
        "finit_module",
        libc::SYS_finit_module,
        &[NONE, Text(c""), Number(0)],
    ),
    (
        "delete_module",
        libc::SYS_delete_module,
        &[Text(c"eci_fs_is_no_module"), Number(0o4000)],
    ),
    (
        "kexec_load",
        libc::SYS_kexec_load,
        &[Number(0), Number(SEGMENTS), Number(0), Number(0)],
    ),
    (
        "kexec_file_load",
        libc::SYS_kexec_file_load,
        &[NONE, NONE, Number(0), Number(0), Number(NO_FLAG)],
    ),
    (
        "bpf MAP_CREATE",
        libc::SYS_bpf,
        &[
            Number(MAP_CREATE),
            Struct(&[Pair(2, 4), Pair(4, 1)]),
            BPF_SIZE,
        ],
    ),
    (
        "bpf PROG_LOAD socket filter",
        libc::SYS_bpf,
        program!(SOCKET_FILTER),
    ),
    ("bpf PROG_LOAD kprobe", libc::SYS_bpf, program!(KPROBE)),
    (
        "bpf PROG_LOAD cgroup device",
        libc::SYS_bpf,
        program!(CGROUP_DEVICE),
    ),
    (
        "bpf MAP_GET_NEXT_ID",
        libc::SYS_bpf,
        &[Number(MAP_GET_NEXT_ID), Struct(&[]), BPF_SIZE],
    ),
    (
        "bpf PROG_GET_NEXT_ID",
        libc::SYS_bpf,
        &[Number(PROG_GET_NEXT_ID), Struct(&[]), BPF_SIZE],
    ),
    (
        "bpf BTF_GET_NEXT_ID",
        libc::SYS_bpf,
        &[Number(BTF_GET_NEXT_ID), Struct(&[]), BPF_SIZE],
    ),
    (
        "bpf LINK_GET_NEXT_ID",
        libc::SYS_bpf,
        &[Number(LINK_GET_NEXT_ID), Struct(&[]), BPF_SIZE],
    ),
    (
        "perf_event_open own process",
        libc::SYS_perf_event_open,
        event!(SOFTWARE, 0, DISABLED | NO_KERNEL, 0, -1),
    ),
    (
        "perf_event_open own process and kernel",
        libc::SYS_perf_event_open,
        event!(SOFTWARE, 0, DISABLED, 0, -1),
    ),
    (
        "perf_event_open CPU",
        libc::SYS_perf_event_open,
        event!(SOFTWARE, 0, DISABLED | NO_KERNEL, -1, 0),
    ),
    (
        "perf_event_open tracepoint",
        libc::SYS_perf_event_open,
        event!(TRACEPOINT, 1, DISABLED, -1, 0),
    ),
    (
        "fanotify_init content",
        libc::SYS_fanotify_init,
        &[Number(4), Number(0)],
    ),
    (
        "sched_setscheduler SCHED_FIFO",
        libc::SYS_sched_setscheduler,
        &[Number(0), Number(1), Struct(&[Pair(1, 0)])],
    ),
    (
        "setpriority -20",
        libc::SYS_setpriority,
        &[Number(0), Number(0), Number(-20)],
    ),
    (
        "ioprio_set real time",
        libc::SYS_ioprio_set,
        &[Number(1), Number(0), Number(1 << 13 | 4)],
    ),
    // 16 bytes of a handle of the first type: no file has it.
    (
        "open_by_handle_at",
        libc::SYS_open_by_handle_at,
        &[
            Number(libc::AT_FDCWD as i64),
            Struct(&[Pair(16, 1), Long(u64::MAX), Long(u64::MAX)]),
            Number(0),
        ],
    ),
    ("userfaultfd", libc::SYS_userfaultfd, &[Number(0)]),
    (
        "io_uring_setup",
        libc::SYS_io_uring_setup,
        &[Number(1), Struct(&[])],
    ),
    (
        "socket AF_VSOCK",
        libc::SYS_socket,
        &[Number(40), Number(1), Number(0)],
    ),
];
