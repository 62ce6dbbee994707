//! Attempts to write where a container is read-only, and to look behind masks.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sched::CloneFlags;
use rustix::fs::{CWD, StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    FsPickFlags, MountFlags, OpenTreeFlags, UnmountFlags, fsconfig_reconfigure, fsconfig_set_flag,
    fspick, mount, mount_bind, mount_bind_recursive, mount_move, mount_remount, unmount,
};

use super::calls::{self, Attributes, Call32};
use super::grafts::{attach, clone, own};
use super::{Attempt, Try};

const VOLUME: &str = "/vol";
const FILE: &str = "/vol/w";
const SYSCTL: &str = "/proc/sys/net/ipv4/ip_forward";

pub(super) const ATTEMPTS: &[(&str, Attempt)] = &[
    ("ro-remount", |at| {
        at.remounts(VOLUME, MountFlags::BIND);
        Ok(at.writes(FILE))
    }),
    ("ro-remount-sb", |at| {
        at.remounts(VOLUME, MountFlags::empty());
        Ok(at.writes(FILE))
    }),
    ("ro-setattr", |at| {
        let set = calls::mount_setattr(CWD, VOLUME, 0, Attributes::WRITABLE);
        at.step("set", set);
        Ok(at.writes(FILE))
    }),
    ("ro-setattr-rec", |at| {
        let flags = libc::AT_RECURSIVE;
        let set = calls::mount_setattr(CWD, "/", flags, Attributes::WRITABLE);
        at.step("set", set);
        Ok(at.writes(FILE))
    }),
    ("ro-bind", |at| {
        at.step("bind", mount_bind(VOLUME, "/mnt"));
        at.remounts("/mnt", MountFlags::BIND);
        Ok(at.writes("/mnt/w"))
    }),
    ("ro-open-tree", |at| {
        let tree = clone(VOLUME, OpenTreeFlags::empty())?;
        let flags = libc::AT_EMPTY_PATH;
        let set = calls::mount_setattr(&tree, "", flags, Attributes::WRITABLE);
        at.step("set", set);
        at.step("move", attach(&tree, "/mnt"));
        Ok(at.writes("/mnt/w"))
    }),
    ("ro-open-tree-attr", |at| {
        let tree = calls::open_tree_attr(VOLUME, Attributes::WRITABLE);
        if let Some(tree) = at.step("clone", tree) {
            at.step("move", attach(&tree, "/mnt"));
            return Ok(at.writes("/mnt/w"));
        }
        Ok(at.writes(FILE))
    }),
    ("ro-unshare", |at| {
        at.step("unshare", own(CloneFlags::CLONE_NEWNS));
        at.remounts(VOLUME, MountFlags::BIND);
        Ok(at.writes(FILE))
    }),
    ("ro-userns", |at| {
        let entered = calls::enter_user_namespace(CloneFlags::CLONE_NEWNS);
        at.step("user namespace", entered);
        at.remounts(VOLUME, MountFlags::BIND);
        Ok(at.writes(FILE))
    }),
    ("ro-chroot", |at| {
        at.chroots()?;
        at.remounts(VOLUME, MountFlags::BIND);
        Ok(at.writes(FILE))
    }),
    ("ro-pivot", |at| {
        at.pivots()?;
        at.remounts("/o/vol", MountFlags::BIND);
        Ok(at.writes("/o/vol/w"))
    }),
    ("ro-32", |at| {
        let kept = MountFlags::BIND | MountFlags::NODEV;
        let flags = kept.bits() | libc::MS_REMOUNT as u32;
        let call = Call32::Mount("", VOLUME, flags);
        at.step("remount", calls::call_32(call));
        Ok(at.writes(FILE))
    }),
    ("ro-fspick", |at| {
        if let Some(context) = at.step("pick", fspick(CWD, VOLUME, FsPickFlags::empty())) {
            at.step("rw", fsconfig_set_flag(&context, "rw"));
            at.step("reconfigure", fsconfig_reconfigure(&context));
        }
        Ok(at.writes(FILE))
    }),
    ("ro-move", |at| {
        at.step("move", mount_move(VOLUME, "/mnt"));
        at.remounts("/mnt", MountFlags::BIND);
        Ok(File::open("/mnt/.v").is_ok() && at.writes("/mnt/w"))
    }),
    ("ro-overlay", |at| {
        let flags = MountFlags::empty();
        let options = c"lowerdir=/tmp,upperdir=/vol/u,workdir=/vol/wk";
        let mounted = mount("o", "/mnt", "overlay", flags, options);
        Ok(at.step("overlay", mounted).is_some() && at.writes("/mnt/w"))
    }),
    ("ro-umount", |at| {
        at.step("umount", unmount(VOLUME, UnmountFlags::DETACH));
        Ok(File::open("/vol/.v").is_ok() && at.writes(FILE))
    }),
    ("ro-idmap", |at| {
        let tree = clone(VOLUME, OpenTreeFlags::empty())?;
        let own = File::open("/proc/self/ns/user").map_err(|_| Errno::NOENT)?;
        let mapped = Attributes {
            set: libc::MOUNT_ATTR_IDMAP,
            user_namespace: u64::from(own.as_raw_fd().unsigned_abs()),
            ..Attributes::default()
        };
        let set = calls::mount_setattr(&tree, "", libc::AT_EMPTY_PATH, mapped);
        Ok(at.step("map", set).is_some())
    }),
    ("ro-root", |at| {
        at.remounts("/", MountFlags::BIND);
        Ok(at.writes("/w"))
    }),
    ("ro-root-sb", |at| {
        at.remounts("/", MountFlags::empty());
        Ok(at.writes("/w"))
    }),
    ("ro-root-bind", |at| {
        at.step("bind", mount_bind_recursive("/", "/mnt"));
        at.remounts("/mnt", MountFlags::BIND);
        Ok(at.writes("/mnt/w"))
    }),
    ("ro-sys", |at| {
        at.remounts("/proc/sys", MountFlags::BIND);
        Ok(at.writes(SYSCTL))
    }),
    ("ro-sys-umount", |at| {
        at.step("umount", unmount("/proc/sys", UnmountFlags::DETACH));
        Ok(at.writes(SYSCTL))
    }),
    ("ro-sysfs", |at| {
        at.remounts("/sys", MountFlags::empty());
        at.remounts("/sys", MountFlags::BIND);
        Ok(at.writes("/sys/class/net/lo/mtu"))
    }),
    ("mask-umount", |at| {
        at.step("umount", unmount("/proc/keys", UnmountFlags::DETACH));
        Ok(at.has_content("/proc/keys"))
    }),
    ("mask-dir-umount", |at| {
        at.step("umount", unmount("/sys/firmware", UnmountFlags::DETACH));
        Ok(at.is_of_the_kernel("/sys/firmware"))
    }),
    ("mask-bind", |at| {
        at.step("bind", mount_bind("/proc", "/mnt"));
        Ok(at.has_content("/mnt/keys"))
    }),
    ("mask-chmod", |at| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let changed = rustix::fs::chmod("/proc/keys", mode);
        Ok(at.step("chmod", changed).is_some())
    }),
];

impl Try {
    /// Takes "ro" away, and no other option: the runtime has locked those.
    fn remounts(&mut self, path: &str, flags: MountFlags) {
        let kept = [
            (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
            (StatVfsMountFlags::NODEV, MountFlags::NODEV),
            (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        ];
        let Some(stat) = self.step("look at the options", statvfs(path)) else {
            return;
        };
        let kept = kept.iter().filter(|(has, _)| stat.f_flag.contains(*has));
        let flags = kept.fold(flags, |all, (_, flag)| all | *flag);
        self.step("remount", mount_remount(path, flags, ""));
    }

    fn has_content(&mut self, path: &str) -> bool {
        let mut byte = [0];
        let read = File::open(path).and_then(|mut file| file.read(&mut byte));
        self.said.push(format!("read {path}: {read:?}"));
        read.is_ok_and(|count| count > 0)
    }
}
