//! Attempts to mount a procfs or sysfs that has no grafts.

use nix::sched::CloneFlags;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_bind, move_mount, unmount,
};

use super::calls::{self, Call32, Racer};
use super::grafts::{directory, own};
use super::{Attempt, MEMINFO, Try};

/// The number of mounts whose type another process changes meanwhile.
const RACES: usize = 3000;

pub(super) const ATTEMPTS: &[(&str, Attempt)] = &[
    ("proc", |at| at.mounts("/mnt", MountFlags::empty(), None)),
    ("proc-deep", |at| {
        directory("/tmp/a")?;
        directory("/tmp/a/b")?;
        at.mounts("/tmp/a/b", MountFlags::empty(), None)
    }),
    ("proc-fsopen", |at| at.opens("/mnt", None)),
    ("proc-pidns-opt", |at| {
        at.opens("/mnt", Some("/proc/self/ns/pid"))
    }),
    ("proc-over", |at| {
        at.mounts("/proc", MountFlags::empty(), None)
    }),
    ("proc-ro", |at| at.mounts("/mnt", MountFlags::RDONLY, None)),
    ("proc-opt", |at| {
        at.mounts("/mnt", MountFlags::NOSUID, Some(c"hidepid=2"))
    }),
    ("proc-subset", |at| {
        at.mounts("/mnt", MountFlags::empty(), Some(c"subset=pid"))
    }),
    ("proc-32", |at| {
        at.step("mount", calls::call_32(Call32::Mount("proc", "/mnt", 0)));
        Ok(at.shows("/mnt/meminfo"))
    }),
    ("proc-pidns", |at| {
        let both = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        at.step("unshare", own(both));
        at.in_child(|at| {
            at.mounts("/proc", MountFlags::empty(), None)
                .unwrap_or(false)
        })
    }),
    ("proc-pidns2", |at| {
        at.step("unshare", own(CloneFlags::CLONE_NEWPID));
        at.in_child(|at| {
            let both = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
            at.step("unshare", own(both));
            let mounts = |at: &mut Try| at.mounts("/mnt", MountFlags::empty(), None);
            at.in_child(|at| mounts(at).unwrap_or(false))
                .unwrap_or(false)
        })
    }),
    ("proc-userns", |at| {
        let both = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        at.step("user namespace", calls::enter_user_namespace(both));
        at.in_child(|at| {
            at.mounts("/proc", MountFlags::empty(), None)
                .unwrap_or(false)
        })
    }),
    ("proc-userns-fsopen", |at| {
        let both = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        at.step("user namespace", calls::enter_user_namespace(both));
        at.in_child(|at| at.opens("/proc", None).unwrap_or(false))
    }),
    ("proc-chroot", |at| {
        at.chroots()?;
        directory("/tmp/p")?;
        at.mounts("/tmp/p", MountFlags::empty(), None)
    }),
    ("proc-new-umount", |at| {
        at.step("procfs", mount_procfs("/mnt"));
        at.step("umount", unmount("/mnt/meminfo", UnmountFlags::DETACH));
        Ok(at.shows("/mnt/meminfo"))
    }),
    ("proc-new-bind", |at| {
        at.step("procfs", mount_procfs("/mnt"));
        directory("/tmp/p")?;
        at.step("bind", mount_bind("/mnt", "/tmp/p"));
        Ok(at.shows("/tmp/p/meminfo"))
    }),
    ("proc-without-old", |at| {
        at.step("umount", unmount("/proc", UnmountFlags::DETACH));
        at.mounts("/proc", MountFlags::empty(), None)
    }),
    ("proc-race", |at| {
        let racer = Racer::start([b"proc", b"ramfs"])?;
        for _ in 0..RACES {
            if racer.mount("/mnt").is_err() {
                continue;
            }
            if at.is_of_the_kernel("/mnt/meminfo") {
                return Ok(true);
            }
            at.said.clear();
            let _ = unmount("/mnt", UnmountFlags::DETACH);
        }
        Ok(false)
    }),
    ("sysfs", |at| {
        let flags = MountFlags::empty();
        at.step("sysfs", mount("sysfs", "/mnt", "sysfs", flags, None));
        Ok(at.is_of_the_kernel("/mnt/kernel/notes"))
    }),
    ("sysfs-fsopen", |at| {
        let made = detached("sysfs", None);
        Ok(at.step("sysfs", made).is_some())
    }),
];

impl Try {
    fn mounts(
        &mut self,
        path: &str,
        flags: MountFlags,
        options: Option<&std::ffi::CStr>,
    ) -> Result<bool, Errno> {
        self.step("procfs", mount("proc", path, "proc", flags, options));
        // One without these files shows nothing of the host.
        Ok(self.shows(&format!("{path}/meminfo")))
    }

    fn opens(&mut self, path: &str, pid_namespace: Option<&str>) -> Result<bool, Errno> {
        let Some(procfs) = self.step("procfs", detached("proc", pid_namespace)) else {
            return Ok(self.shows(MEMINFO));
        };
        if self.shows_at(&procfs, "meminfo") {
            return Ok(true);
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        self.step("move", move_mount(&procfs, "", CWD, path, flags));
        Ok(self.shows(&format!("{path}/meminfo")))
    }
}

/// Mounts a procfs.
pub(super) fn mount_procfs(path: &str) -> Result<(), Errno> {
    mount("proc", path, "proc", MountFlags::empty(), None)
}

/// Makes a mount that is attached nowhere.
fn detached(kind: &str, pid_namespace: Option<&str>) -> Result<std::os::fd::OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(path) = pid_namespace {
        fsconfig_set_string(&context, "pidns", path)?;
    }
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}
