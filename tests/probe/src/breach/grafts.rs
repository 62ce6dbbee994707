//! Attempts to take a graft away, or to get at what it covers.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, StatVfsMountFlags, openat2, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    FsPickFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_reconfigure, fsconfig_set_string, fspick, mount, mount_bind, mount_bind_recursive,
    mount_change, mount_move, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, chroot, pivot_root};

use super::calls::{self, Attributes, Call32, Staying};
use super::procfs::mount_procfs;
use super::{Attempt, MEMINFO, Try};

const BENEATH: MoveMountFlags = MoveMountFlags::from_bits_retain(0x200);

pub(super) const ATTEMPTS: &[(&str, Attempt)] = &[
    ("umount", |at| at.unmounts(UnmountFlags::empty())),
    ("umount-detach", |at| at.unmounts(UnmountFlags::DETACH)),
    ("umount-force", |at| at.unmounts(UnmountFlags::FORCE)),
    ("umount-expire", |at| {
        at.unmounts(UnmountFlags::EXPIRE)?;
        at.unmounts(UnmountFlags::EXPIRE)
    }),
    ("umount-32", |at| {
        at.step("umount", calls::call_32(Call32::Umount(MEMINFO)));
        Ok(at.shows(MEMINFO))
    }),
    ("umount2-32", |at| {
        at.step("umount2", calls::call_32(Call32::Umount2(MEMINFO)));
        Ok(at.shows(MEMINFO))
    }),
    ("umount-x32", |at| {
        at.step("umount2", calls::umount2_x32(MEMINFO, 2));
        Ok(at.shows(MEMINFO))
    }),
    ("umount-proc", |at| {
        let proc = place("/proc")?;
        at.step("umount", unmount("/proc", UnmountFlags::DETACH));
        Ok(at.shows_at(proc, "meminfo") || at.shows(MEMINFO))
    }),
    ("umount-proc-again", |at| {
        for _ in 0..4 {
            at.step("umount", unmount("/proc", UnmountFlags::DETACH));
            at.step("umount", unmount("/sys", UnmountFlags::DETACH));
        }
        Ok(at.shows(MEMINFO) || at.is_of_the_kernel("/sys/kernel/notes"))
    }),
    ("move-old", |at| {
        file("/tmp/f")?;
        at.step("move", mount_move(MEMINFO, "/tmp/f"));
        Ok(at.shows(MEMINFO))
    }),
    ("move-new", |at| {
        file("/tmp/f")?;
        let flags = MoveMountFlags::empty();
        at.step("move", move_mount(CWD, MEMINFO, CWD, "/tmp/f", flags));
        Ok(at.shows(MEMINFO))
    }),
    ("move-proc", |at| {
        at.step("move", mount_move("/proc", "/mnt"));
        Ok(at.shows("/mnt/meminfo") || at.shows(MEMINFO))
    }),
    ("bind-proc", |at| {
        at.step("bind", mount_bind("/proc", "/mnt"));
        Ok(at.shows("/mnt/meminfo"))
    }),
    ("open-tree", |at| {
        let tree = at.step("clone", clone("/proc", OpenTreeFlags::empty()));
        Ok(tree.is_some_and(|tree| at.shows_at(tree, "meminfo")))
    }),
    ("bind-sub", |at| {
        at.step("bind", mount_bind("/proc/sys", "/mnt"));
        Ok(at.is_of_the_kernel("/mnt/vm/swappiness"))
    }),
    ("bind-file", |at| {
        file("/tmp/f")?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_XDEV;
        let proc = place("/proc")?;
        let opened = openat2(&proc, "meminfo", flags, Mode::empty(), resolve);
        Ok(at.step("open without crossing", opened).is_some())
    }),
    ("rbind-umount", |at| {
        at.step("bind", mount_bind_recursive("/proc", "/mnt"));
        at.step("umount", unmount("/mnt/meminfo", UnmountFlags::DETACH));
        Ok(at.shows("/mnt/meminfo"))
    }),
    ("open-tree-rec-umount", |at| {
        if let Some(tree) = at.step("clone", clone("/proc", OpenTreeFlags::AT_RECURSIVE)) {
            at.step("move", attach(&tree, "/mnt"));
        }
        at.step("umount", unmount("/mnt/meminfo", UnmountFlags::DETACH));
        Ok(at.shows("/mnt/meminfo"))
    }),
    ("open-tree-rec-move", |at| {
        file("/tmp/f")?;
        let Some(tree) = at.step("clone", clone("/proc", OpenTreeFlags::AT_RECURSIVE)) else {
            return Ok(false);
        };
        let flags = MoveMountFlags::empty();
        let moved = move_mount(&tree, "meminfo", CWD, "/tmp/f", flags);
        at.step("move out of the clone", moved);
        Ok(at.shows_at(tree, "meminfo"))
    }),
    ("beneath", |at| {
        at.puts_beneath()?;
        at.step("umount", unmount(MEMINFO, UnmountFlags::DETACH));
        Ok(at.shows(MEMINFO))
    }),
    ("beneath2", |at| {
        at.puts_beneath()?;
        for _ in 0..2 {
            at.step("umount", unmount(MEMINFO, UnmountFlags::DETACH));
        }
        let got = at.shows(MEMINFO);
        at.step("bind", mount_bind("/proc", "/mnt"));
        directory("/tmp/p")?;
        at.step("procfs", mount_procfs("/tmp/p"));
        Ok(got || at.shows("/mnt/meminfo") || at.shows("/tmp/p/meminfo"))
    }),
    ("over-under", |at| {
        file("/tmp/f")?;
        at.step("bind over", mount_bind("/tmp/f", MEMINFO));
        for _ in 0..2 {
            at.step("umount", unmount(MEMINFO, UnmountFlags::DETACH));
        }
        Ok(at.shows(MEMINFO))
    }),
    ("unshare-umount", |at| {
        at.step("unshare", own(CloneFlags::CLONE_NEWNS));
        at.unmounts(UnmountFlags::DETACH)
    }),
    ("userns-umount", |at| {
        let entered = calls::enter_user_namespace(CloneFlags::CLONE_NEWNS);
        at.step("user namespace", entered);
        at.unmounts(UnmountFlags::DETACH)
    }),
    ("shared-umount", |at| {
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        at.step("make shared", mount_change("/", shared));
        at.step("unshare", own(CloneFlags::CLONE_NEWNS));
        let got = at.unmounts(UnmountFlags::DETACH)?;
        at.step("umount", unmount("/proc", UnmountFlags::DETACH));
        Ok(got || at.shows(MEMINFO))
    }),
    ("pivot-umount", |at| {
        at.pivots()?;
        at.step("umount", unmount("/o/proc/meminfo", UnmountFlags::DETACH));
        Ok(at.shows("/o/proc/meminfo"))
    }),
    ("pivot-bind", |at| {
        at.pivots()?;
        at.step("bind", mount_bind("/o/proc", "/x"));
        Ok(at.shows("/x/meminfo"))
    }),
    ("pivot-detach", |at| {
        let proc = place("/proc")?;
        at.pivots()?;
        at.step("umount", unmount("/o", UnmountFlags::DETACH));
        let got = at.shows_at(proc, "meminfo");
        at.step("procfs", mount_procfs("/x"));
        Ok(got || at.shows("/x/meminfo"))
    }),
    ("chroot-umount", |at| {
        at.chroots()?;
        at.unmounts(UnmountFlags::DETACH)
    }),
    ("overlay-lower", |at| at.overlays("lowerdir=/proc:/tmp")),
    ("overlay-proc-only", |at| at.overlays("lowerdir=/proc:/sys")),
    ("remount-graft", |at| {
        let all = MountFlags::BIND;
        at.step("remount", mount_remount(MEMINFO, all, ""));
        let none = Attributes {
            clear: 0xf,
            ..Attributes::default()
        };
        at.step("set", calls::mount_setattr(CWD, MEMINFO, 0, none));
        let wanted = StatVfsMountFlags::RDONLY
            | StatVfsMountFlags::NOSUID
            | StatVfsMountFlags::NODEV
            | StatVfsMountFlags::NOEXEC;
        Ok(!statvfs(MEMINFO)?.f_flag.contains(wanted))
    }),
    ("propagation-graft", |at| {
        let shared = mount_change(MEMINFO, MountPropagationFlags::SHARED);
        at.step("make shared", shared);
        let unbindable = mount_change(MEMINFO, MountPropagationFlags::UNBINDABLE);
        at.step("make unbindable", unbindable);
        at.step("bind", mount_bind_recursive("/proc", "/mnt"));
        Ok(at.shows("/mnt/meminfo"))
    }),
    ("propagate-umount", |at| {
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        at.step("make shared", mount_change("/proc", shared));
        at.step("bind", mount_bind_recursive("/proc", "/mnt"));
        at.step("umount", unmount("/mnt/meminfo", UnmountFlags::DETACH));
        Ok(at.shows(MEMINFO) || at.shows("/mnt/meminfo"))
    }),
    ("fspick-proc", |at| {
        if let Some(context) = at.step("pick", fspick(CWD, "/proc", FsPickFlags::empty())) {
            let subset = fsconfig_set_string(&context, "subset", "pid");
            at.step("subset", subset);
            at.step("reconfigure", fsconfig_reconfigure(&context));
        }
        Ok(at.shows(MEMINFO))
    }),
    ("noxdev", |at| {
        let proc = place("/proc")?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_XDEV;
        let opened = openat2(&proc, "meminfo", flags, Mode::empty(), resolve);
        let opened = at.step("open without crossing", opened);
        Ok(opened.is_some_and(|opened| at.is_host(opened, MEMINFO)))
    }),
    ("handle", |at| {
        let proc = File::open("/proc").map_err(|_| Errno::NOENT)?;
        let opened = calls::open_by_handle(MEMINFO, proc, 0);
        let opened = at.step("open by handle", opened);
        Ok(opened.is_some_and(|opened| at.is_host(opened, MEMINFO)))
    }),
    ("handle-sys-dir", |at| {
        let sys = File::open("/sys").map_err(|_| Errno::NOENT)?;
        let opened = calls::open_by_handle("/sys/kernel", sys, nix::libc::O_DIRECTORY);
        Ok(at.step("open by handle", opened).is_some())
    }),
    ("proc-magic", |at| {
        let other = Staying::start(|| {
            let _ = own(CloneFlags::CLONE_NEWNS);
            let _ = unmount(MEMINFO, UnmountFlags::DETACH);
        })?;
        Ok(at.shows(&format!("/proc/{}/root{MEMINFO}", other.pid())))
    }),
    ("rename-below", |at| {
        // What lies on a directory goes with it.
        let renamed = fs::rename("/proc/meminfo", "/proc/other");
        let renamed = renamed.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO));
        at.step("rename", renamed);
        Ok(at.shows(MEMINFO))
    }),
];

impl Try {
    fn unmounts(&mut self, flags: UnmountFlags) -> Result<bool, Errno> {
        self.step("umount", unmount(MEMINFO, flags));
        Ok(self.shows(MEMINFO))
    }

    fn puts_beneath(&mut self) -> Result<(), Errno> {
        let tree = clone("/proc/version", OpenTreeFlags::empty())?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | BENEATH;
        let moved = move_mount(&tree, "", CWD, MEMINFO, flags);
        self.step("move beneath", moved);
        Ok(())
    }

    /// Makes a tmpfs the root directory. The root of before is /o, and /x is a directory.
    pub(super) fn pivots(&mut self) -> Result<(), Errno> {
        tmpfs("/mnt")?;
        directory("/mnt/o")?;
        directory("/mnt/x")?;
        self.step("pivot_root", pivot_root("/mnt", "/mnt/o"));
        chdir("/")
    }

    /// Enters a copy of the root directory.
    pub(super) fn chroots(&mut self) -> Result<(), Errno> {
        self.step("bind", mount_bind_recursive("/", "/mnt"));
        self.step("chroot", chroot("/mnt"));
        chdir("/")
    }

    fn overlays(&mut self, options: &str) -> Result<bool, Errno> {
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        let flags = MountFlags::empty();
        let mounted = mount("o", "/mnt", "overlay", flags, options.as_c_str());
        self.step("overlay", mounted);
        Ok(self.shows("/mnt/meminfo"))
    }
}

/// Opens a place.
pub(super) fn place(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn clone(path: &str, flags: OpenTreeFlags) -> Result<OwnedFd, Errno> {
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | flags)
}

pub(super) fn attach(tree: &OwnedFd, path: &str) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(tree, "", CWD, path, flags)
}

pub(super) fn own(flags: CloneFlags) -> Result<(), Errno> {
    unshare(flags).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

pub(super) fn tmpfs(path: &str) -> Result<(), Errno> {
    mount("t", path, "tmpfs", MountFlags::empty(), None)
}

pub(super) fn directory(path: &str) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

pub(super) fn file(path: &str) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).map(drop)
}
