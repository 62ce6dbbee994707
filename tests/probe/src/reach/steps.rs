//! Attempts that take several system calls.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};
use rustix::io::Errno;
use rustix::mount::{
    FsOpenFlags, FsPickFlags, fsconfig_create, fsconfig_reconfigure, fsopen, fspick,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Step;
use super::calls::Argument::{Number, Struct, Text};
use super::calls::Word::Pair;
use super::calls::call;

/// The inode number of the host's pid namespace (`PROC_PID_INIT_INO`).
const PIDS_OF_THE_HOST: u64 = 0xEFFF_FFFC;

/// Flags of a file (`FS_IMMUTABLE_FL`).
const IMMUTABLE: rustix::fs::IFlags = rustix::fs::IFlags::IMMUTABLE;

/// A command of quotactl(2) for the users of a file system, `Q_GETQUOTA`, which reads the quota of a user.
const GET_QUOTA: i64 = 0x0080_0007 << 8;

/// `quotactl_fd` (Linux 5.14).
const QUOTACTL_FD: libc::c_long = 443;

/// A directory of the host's disk that the container has.
const VOLUME: &CStr = c"/vol";

/// One to which it may write.
const WRITABLE: &str = "/v";

pub(super) const STEPS: &[Step] = &[
    ("vhangup", || {
        // A session without a terminal: there is nothing to hang up.
        rustix::process::setsid()?;
        call(libc::SYS_vhangup, &[]).map(drop)
    }),
    ("reboot CAD_OFF", || {
        let namespace = std::fs::metadata("/proc/self/ns/pid").map_err(of)?;
        if namespace.ino() == PIDS_OF_THE_HOST {
            // It would be the host's.
            return Err(Errno::CANCELED);
        }
        let command = libc::RB_DISABLE_CAD.into();
        let magic = [libc::LINUX_REBOOT_MAGIC1, libc::LINUX_REBOOT_MAGIC2];
        let [first, second] = magic.map(|number| Number(number.into()));
        call(libc::SYS_reboot, &[first, second, Number(command)]).map(drop)
    }),
    ("new tmpfs", || new("tmpfs")),
    ("new devtmpfs", || new("devtmpfs")),
    ("new debugfs", || new("debugfs")),
    ("new tracefs", || new("tracefs")),
    ("new securityfs", || new("securityfs")),
    ("new ext4", || new("ext4")),
    ("reconfigure /", || {
        let picked = fspick(CWD, "/", FsPickFlags::FSPICK_CLOEXEC)?;
        fsconfig_reconfigure(&picked)
    }),
    ("mknod block", || node(FileType::BlockDevice, (0, 0))),
    ("mknod character", || {
        node(FileType::CharacterDevice, (1, 3))
    }),
    ("setxattr trusted.*", || {
        with_file(|_| setxattr(FILE, "trusted.eci", b"x", XattrFlags::empty()))
    }),
    ("chattr +i", || {
        with_file(|file| {
            rustix::fs::ioctl_setflags(file, IMMUTABLE)?;
            rustix::fs::ioctl_setflags(file, rustix::fs::IFlags::empty())
        })
    }),
    ("fanotify_mark file system", || {
        // FAN_REPORT_FID: the kind that everybody may have.
        let (group, _) = call(libc::SYS_fanotify_init, &[Number(0x200), Number(0)])?;
        // FAN_MARK_ADD and FAN_MARK_FILESYSTEM, for FAN_OPEN
        let mark = [Number(group), Number(0x101), Number(0x20)];
        let file = [Number(libc::AT_FDCWD.into()), Text(VOLUME)];
        call(libc::SYS_fanotify_mark, &[&mark[..], &file].concat()).map(drop)
    }),
    ("quotactl GETQUOTA", || {
        let file = File::open(WRITABLE).map_err(of)?;
        let arguments = [file.as_raw_fd().into(), GET_QUOTA, 1234].map(Number);
        call(QUOTACTL_FD, &[&arguments[..], &[Struct(&[])]].concat()).map(drop)
    }),
    ("raise a limit", || {
        let limit = Rlimit {
            current: Some(64),
            maximum: Some(64),
        };
        setrlimit(Resource::Nofile, limit)?;
        let mut more = getrlimit(Resource::Nofile);
        more.maximum = Some(65);
        setrlimit(Resource::Nofile, more)
    }),
    ("mlock beyond the limit", || {
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Memlock, none)?;
        // MCL_CURRENT
        call(libc::SYS_mlockall, &[Number(1)]).map(drop)
    }),
    ("oom_score_adj -1000", || {
        std::fs::write("/proc/self/oom_score_adj", "-1000").map_err(of)
    }),
    ("SO_RCVBUFFORCE", || {
        let (socket, _) = call(libc::SYS_socket, &[Number(1), Number(2), Number(0)])?;
        let option = [socket, libc::SOL_SOCKET.into(), libc::SO_RCVBUFFORCE.into()].map(Number);
        let value = [Struct(&[Pair(1 << 24, 0)]), Number(4)];
        call(libc::SYS_setsockopt, &[&option[..], &value].concat()).map(drop)
    }),
    ("audit status", audit),
    ("open /proc/sysrq-trigger", || {
        open_to_write("/proc/sysrq-trigger")
    }),
    ("open core_pattern", || {
        open_to_write("/proc/sys/kernel/core_pattern")
    }),
    ("open modprobe", || {
        open_to_write("/proc/sys/kernel/modprobe")
    }),
    ("open drop_caches", || {
        open_to_write("/proc/sys/vm/drop_caches")
    }),
    ("open transparent_hugepage", || {
        open_to_write("/sys/kernel/mm/transparent_hugepage/enabled")
    }),
    ("open /sys/power/state", || {
        open_to_write("/sys/power/state")
    }),
    ("open uevent_helper", || {
        open_to_write("/sys/kernel/uevent_helper")
    }),
    ("open /dev/mem", || open_to_read(Path::new("/dev/mem"))),
    ("open /dev/kmsg", || open_to_read(Path::new("/dev/kmsg"))),
    ("open /dev/kvm", || open_to_read(Path::new("/dev/kvm"))),
    ("open a disk", disks),
];

/// A file of this container that attempts make.
const FILE: &str = "/tmp/reach";

/// Returns the kernel's error.
pub(super) fn of(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Makes a file system of this type that is mounted nowhere, and ends with this process.
fn new(kind: &str) -> Result<(), Errno> {
    fsconfig_create(&fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?)
}

/// Makes a device node, and removes it.
fn node(kind: FileType, (major, minor): (u32, u32)) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, FILE, kind, mode, makedev(major, minor))?;
    rustix::fs::unlink(FILE)
}

/// Does something with a new file, and removes that.
fn with_file(what: impl FnOnce(&File) -> Result<(), Errno>) -> Result<(), Errno> {
    let file = File::create(FILE).map_err(of)?;
    let result = what(&file);
    rustix::fs::unlink(FILE)?;
    result
}

/// Opens a file, and writes nothing.
pub(super) fn open_to_write(path: &str) -> Result<(), Errno> {
    let opened = OpenOptions::new().write(true).open(path);
    opened.map(drop).map_err(of)
}

fn open_to_read(path: &Path) -> Result<(), Errno> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened.map(drop).map_err(of)
}

/// Opens each block device in /dev. A device that answers with another error than EACCES could be opened.
fn disks() -> Result<(), Errno> {
    let mut result = Err(Errno::NOENT);
    for entry in std::fs::read_dir("/dev").map_err(of)? {
        let entry = entry.map_err(of)?;
        let kind = entry.file_type().map_err(of)?;
        if kind.is_block_device() {
            result = open_to_read(&entry.path());
            if result != Err(Errno::ACCESS) {
                break;
            }
        }
    }
    result
}

/// Asks the kernel for the status of its audit (`AUDIT_GET`). It answers with an error, or with the status.
fn audit() -> Result<(), Errno> {
    const AUDIT_GET: u32 = 1000;
    /// `NLM_F_REQUEST`
    const REQUEST: u32 = 1;
    let (socket, _) = call(libc::SYS_socket, &[Number(16), Number(3), Number(9)])?;
    let request = Struct(&[Pair(16, AUDIT_GET | REQUEST << 16)]);
    let nobody = [Number(0), Number(0)];
    let send = [Number(socket), request, Number(16), Number(0)];
    call(libc::SYS_sendto, &[&send[..], &nobody].concat())?;
    let receive = [
        Number(socket),
        Struct(&[]),
        Number(256),
        Number(libc::MSG_DONTWAIT.into()),
    ];
    let (_, answers) = call(libc::SYS_recvfrom, &[&receive[..], &nobody].concat())?;
    let words = answers.first().ok_or(Errno::IO)?;
    let half = |word: u64, place: usize| {
        let bytes = word.to_ne_bytes();
        u32::from_ne_bytes(
            bytes[4 * place..4 * place + 4]
                .try_into()
                .unwrap_or_default(),
        )
    };
    // The type of the message is in its second half word, and the error of an NLMSG_ERROR follows the header.
    match half(words[0], 1) & 0xFFFF {
        2 => match half(words[2], 0).cast_signed() {
            0 => Ok(()),
            errno => Err(Errno::from_raw_os_error(-errno)),
        },
        _ => Ok(()),
    }
}
