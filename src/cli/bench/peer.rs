//! lxcfs, mounted only in the bench's own mount namespace.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use eci_fs_protocol::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::{MountFlags, mount, mount_bind};

/// The mount point of lxcfs in that namespace.
const DIR: &str = "/run/eci-fs-bench";

/// The time limit for lxcfs to mount.
const START_LIMIT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Checks that lxcfs is installed.
pub(super) fn check() -> Result<()> {
    Command::new("lxcfs")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map(drop)
        .map_err(|e| Error::io("start", "lxcfs", e).remedy("install lxcfs, or leave --peer out"))
}

/// A running lxcfs. It is killed when this value is dropped.
#[derive(Debug)]
pub(super) struct Lxcfs(Child);

impl Drop for Lxcfs {
    fn drop(&mut self) {
        // Both calls fail only when lxcfs has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts lxcfs and waits until it is mounted. The caller must be in its own mount namespace.
pub(super) fn start() -> Result<Lxcfs> {
    // The files that lxcfs keeps in /run disappear with the namespace.
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)
        .map_err(|e| Error::io("mount", "/run", e))?;
    std::fs::create_dir_all(DIR).map_err(|e| Error::io("create", DIR, e))?;
    let mounts = std::fs::File::open("/proc/self/mounts")
        .map_err(|e| Error::io("open", "/proc/self/mounts", e))?;
    let child = Command::new("lxcfs")
        .args(["-f", "-l", "--enable-cfs", "-p", "/run/lxcfs.pid", DIR])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| Error::io("start", "lxcfs", e))?;
    let running = Lxcfs(child);
    // The kernel reports POLLPRI when the list of mounts has changed.
    while !Path::new(DIR).join("proc/meminfo").exists() {
        let fd = mounts.as_fd();
        let changed =
            rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::PRI)], Some(&START_LIMIT))
                .map_err(|e| Error::io("wait for", "lxcfs", e))?;
        if changed == 0 {
            return Err(Error::refused("lxcfs did not mount within five seconds")
                .remedy("run it by hand to see why"));
        }
    }
    Ok(running)
}

/// Binds the files of lxcfs over those of /proc and /sys, as container engines do.
pub(super) fn bind() -> Result<()> {
    let proc = Path::new(DIR).join("proc");
    let entries = std::fs::read_dir(&proc).map_err(|e| Error::io("read", &proc, e))?;
    let mut files: Vec<(std::path::PathBuf, String)> = entries
        .flatten()
        .map(|entry| {
            (
                entry.path(),
                format!("/proc/{}", entry.file_name().display()),
            )
        })
        .collect();
    let online = "sys/devices/system/cpu/online";
    files.push((Path::new(DIR).join(online), format!("/{online}")));
    for (from, to) in files {
        if from.is_file() && Path::new(&to).exists() {
            mount_bind(&from, to.as_str()).map_err(|e| Error::io("bind over", &to, e))?;
        }
    }
    Ok(())
}
