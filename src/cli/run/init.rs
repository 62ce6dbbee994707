//! The init: pid 1 of the container. It mounts /proc, starts the command, and reaps orphans.

use std::process::{Child, Command, ExitCode};

use eci_fs_mountd::container::mountinfo::{Mount, parse_mountinfo};
use eci_fs_mountd::output::print_error;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::error::{Error, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use super::super::PROGRAM;
use super::{ChildMessage, ChildOptions, FAILED, inherited, report, signals, wait_for_parent};

/// Runs the init process.
pub(in super::super) fn init(options: ChildOptions) -> ExitCode {
    let channel = match inherited::take(options.channel) {
        Ok(fd) => Channel::new(fd),
        Err(error) => {
            print_error(PROGRAM, error);
            return ExitCode::from(FAILED);
        }
    };
    let signals = match prepare(&channel) {
        Ok(signals) => signals,
        Err(error) => return report(&channel, error),
    };
    drop(channel);
    let command = Command::new("/proc/self/exe")
        .args(["run-exec", "--"])
        .args(&options.command)
        .spawn();
    match command {
        Ok(child) => ExitCode::from(reap(&signals, &child)),
        Err(error) => {
            print_error(PROGRAM, Error::io("start", "/proc/self/exe", error));
            ExitCode::from(FAILED)
        }
    }
}

fn prepare(channel: &Channel) -> Result<signals::Signals> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Error::io("set", "the death signal", e))?;
    wait_for_parent(channel)?;
    let signals = signals::Signals::block_with(&[nix::sys::signal::Signal::SIGCHLD])?;
    // Later mounts of the host must appear here, and mounts made here must not appear on the host.
    let downstream = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    mount_change("/", downstream).map_err(|e| Error::io("make", "the mounts private", e))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None)
        .map_err(|e| Error::io("mount", "proc on /proc", e))?;
    mount_cgroups();
    // In a user namespace the caller's directory may be unreachable.
    if std::env::current_dir().and_then(std::fs::read_dir).is_err() {
        rustix::process::chdir("/").map_err(|e| Error::io("enter", "/", e))?;
    }
    channel
        .send(&ChildMessage::Ready, &[])
        .map_err(|e| Error::io("speak to", "the parent", e))?;
    wait_for_parent(channel)?;
    Ok(signals)
}

/// Mounts each cgroup hierarchy anew over the host's, so that programs find their own cgroup at its root, as in other
/// engines' containers. Where the kernel refuses that, programs see the host's tree.
fn mount_cgroups() {
    let Ok(text) = std::fs::read_to_string("/proc/self/mountinfo") else {
        return;
    };
    for hierarchy in parse_mountinfo(&text) {
        let of_cgroups = matches!(hierarchy.fstype.as_str(), "cgroup" | "cgroup2");
        if !of_cgroups || !hierarchy.point.starts_with("/sys/fs/cgroup") {
            continue;
        }
        if let Err(error) = mount_hierarchy(&hierarchy) {
            tracing::debug!(%error, point = hierarchy.point, "the host's cgroup tree stays visible");
        }
    }
}

/// Mounts one hierarchy by fsopen(2). mount(2) refuses to mount a file system over itself, even where another part of
/// it shows.
fn mount_hierarchy(hierarchy: &Mount) -> rustix::io::Result<()> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    };
    let context = fsopen(hierarchy.fstype.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    if hierarchy.fstype == "cgroup" {
        for option in hierarchy.super_options.split(',') {
            match option.split_once('=') {
                Some((key, value)) if key == "name" => fsconfig_set_string(&context, key, value)?,
                None if !matches!(option, "rw" | "ro") => fsconfig_set_flag(&context, option)?,
                _ => {}
            }
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // Some programs, as Java, use the first mount of a hierarchy, which must not be the host's. In a user namespace
    // that mount is locked and stays below.
    let _ = unmount(hierarchy.point.as_str(), UnmountFlags::DETACH);
    move_mount(
        &tree,
        "",
        rustix::fs::CWD,
        hierarchy.point.as_str(),
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

/// Passes signals on and reaps children, until the command has ended. The kernel then ends all other processes.
fn reap(signals: &signals::Signals, command: &Child) -> u8 {
    let command = Pid::from_child(command);
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid != command {
                continue;
            }
            if let Some(code) = status.exit_status() {
                return u8::try_from(code & 0xff).unwrap_or(FAILED);
            }
            if let Some(signal) = status.terminating_signal() {
                return u8::try_from(128 + signal).unwrap_or(FAILED);
            }
        }
        let signal_fd = signals.as_fd();
        // This fails with EINTR only, and then a signal has come.
        let _ = rustix::event::poll(&mut [PollFd::new(&signal_fd, PollFlags::IN)], None);
        while let Some(info) = signals.next() {
            let signal = signals::sent_by_a_process(&info);
            if let Some(signal) = signal.and_then(|signal| Signal::from_named_raw(signal as i32)) {
                // This fails only when the command has just ended.
                let _ = kill_process(command, signal);
            }
        }
    }
}
