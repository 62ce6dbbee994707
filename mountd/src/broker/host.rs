//! Files of the host that only root may read. A server is another user, so the daemon reads them.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use super::as_root::{copy_of, read_text};
use eci_fs_protocol::root_only;

/// The directories that are grafted with what the host has in them.
const DIRECTORIES: [&str; 3] = [
    "/sys/devices/system/cpu/",
    "/sys/devices/system/memory/",
    "/sys/devices/system/node/",
];

/// Returns a copy of the text of a file of the host.
///
/// # Errors
/// EACCES for a path that is neither one of [`root_only::TUNABLES`] nor in [`DIRECTORIES`] or a block device's, and the kernel's.
pub(super) fn read_host(path: &str) -> Result<OwnedFd, Errno> {
    if !may_read(path) {
        return Err(Errno::ACCESS);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = openat2(
        rustix::fs::CWD,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::ACCESS);
    }
    copy_of(&read_text(file)?)
}

fn may_read(path: &str) -> bool {
    let odd = |name: &str| matches!(name, "" | "." | "..") || name.contains('\0');
    if path.split('/').skip(1).any(odd) {
        return false;
    }
    let is_of_block_device = || {
        let below = path.strip_prefix("/sys/devices/");
        below.is_some_and(|below| below.split('/').any(|name| name == "block"))
    };
    root_only::is_tunable(path)
        || DIRECTORIES.iter().any(|dir| path.starts_with(dir))
        || is_of_block_device()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_nothing_read_but_what_is_grafted() {
        for path in [
            "/sys/module/nf_conntrack/parameters/hashsize",
            "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_cur_freq",
            "/sys/devices/pci0000:00/0000:00:01.0/virtio0/block/vda/stat",
        ] {
            assert!(may_read(path), "{path}");
        }
        for path in [
            "",
            "/etc/shadow",
            "/proc/1/environ",
            "/proc/sys/fs/protected_hardlinks/../../net/ipv4/tcp_fastopen_key",
            "/proc/sys/net/ipv4/tcp_fastopen_key",
            "/sys/devices/system/cpu/../../virtual/dmi/id/product_uuid",
            "/sys/devices/system/cpu//x",
            "/sys/devices/system/cpux/y",
            "/sys/devices/virtual/dmi/id/product_uuid",
            "sys/devices/system/cpu/x",
            "/sys/devices/system/cpu/a\0",
        ] {
            assert_eq!(read_host(path).err(), Some(Errno::ACCESS), "{path:?}");
        }
    }
}
