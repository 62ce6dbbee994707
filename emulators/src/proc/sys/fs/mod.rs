//! Views in /proc/sys/fs: the table of its tunables.

pub mod inotify;

use crate::directory::Empty;
use crate::text::put;
use crate::tunable::{Handler, HostSysctl, Policy, Tunable};
use crate::{Bound, Context, Error, Facts, View};

/// sysctl_nr_open_max: INT_MAX, rounded down to the bits of a long.
const NR_OPEN_MAX: i32 = i32::MAX & -64;

/// The files of this directory that cannot be set.
pub static VIEWS: &[View] = &[
    View::new(48, "/proc/sys/fs/file-nr", render_file_nr)
        .sources("file-max of the container", "file-max of the container")
        .invented("that no file is open: the kernel keeps no count per cgroup")
        .resizing(),
    // proc_nr_inodes, fs/inode.c: the inodes, and those that nobody uses.
    View::constant(
        61,
        "/proc/sys/fs/inode-nr",
        0o444,
        b"0\t0\n",
        "that there are no inodes: the kernel keeps no count per cgroup",
    ),
    View::constant(
        62,
        "/proc/sys/fs/inode-state",
        0o444,
        b"0\t0\t0\t0\t0\t0\t0\n",
        "that there are no inodes: the kernel keeps no count per cgroup",
    ),
    // proc_nr_dentry, fs/dcache.c: the third number is a constant, the age at which they may be dropped.
    View::constant(
        63,
        "/proc/sys/fs/dentry-state",
        0o444,
        b"0\t0\t45\t0\t0\t0\n",
        "that there are no names: the kernel keeps no count per cgroup",
    ),
];

/// The quotas of all file systems, and how often they were looked up (fs_dqstats_table, fs/quota/dquot.c).
pub static QUOTA: Empty = Empty::new(170, "/proc/sys/fs/quota", 0o555);

/// The tunables of this directory.
pub static TUNABLES: &[Tunable] = &[
    Tunable::new(320, "/proc/sys/fs/protected_hardlinks", Handler::int(0, 1)),
    Tunable::new(321, "/proc/sys/fs/protected_symlinks", Handler::int(0, 1)),
    Tunable::new(322, "/proc/sys/fs/protected_fifos", Handler::int(0, 2)),
    Tunable::new(323, "/proc/sys/fs/protected_regular", Handler::int(0, 2)),
    Tunable::new(324, "/proc/sys/fs/suid_dumpable", Handler::int(0, 2)),
    Tunable::new(
        FILE_MAX,
        "/proc/sys/fs/file-max",
        Handler::ulong(0, i64::MAX as u64),
    )
    .policy(Policy::Raise(HostSysctl::FileMax)),
    Tunable::new(326, "/proc/sys/fs/nr_open", Handler::int(64, NR_OPEN_MAX))
        .policy(Policy::Raise(HostSysctl::NrOpen)),
];

const FILE_MAX: u16 = 325;

/// proc_nr_files (fs/file_table.c): the open files, a 0, and file-max. A process has descriptors, of which several can be
/// of one open file, so a count of these would be another figure. There is no bound, so that a write to file-max shows at
/// once.
fn render_file_nr(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let most = match crate::tunable(FILE_MAX) {
        Some(file_max) => file_max.number(cx)?,
        None => None,
    };
    let most = most.ok_or_else(|| Error::malformed(facts.path, "no file-max"))?;
    put(out, format_args!("0\t0\t{most}\n"));
    Ok(Bound::None)
}
