//! The check whether a container can mount a procfs of its own. Such a procfs has no grafts, so it shows the figures of the host.
//!
//! The rules are the kernel's (`may_mount`, `mount_capable`, `mount_too_revealing` of fs/namespace.c and fs/super.c):
//!
//! | container | can mount a procfs |
//! |---|---|
//! | with CAP_SYS_ADMIN, in the host's user namespace | always |
//! | with CAP_SYS_ADMIN, in a user namespace of its own | if it has a whole procfs of which no locked mount hides anything |
//! | without CAP_SYS_ADMIN | in a user namespace that it makes, if it has a procfs of which no mount hides anything: there all mounts are locked |
//!
//! Seccomp filters and security modules can forbid it too. What they forbid cannot be seen from outside, and neither
//! can whether a mount is locked. The daemon knows whether it had the kernel lock the grafts.

use std::io::Read;

use eci_fs_mountd::container::mountinfo::{Mount, parse_mountinfo};
use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::grafts::hides_something;
use eci_fs_protocol::control::Listed;
use eci_fs_protocol::error::Result;
use rustix::fs::OFlags;
use serde::Serialize;

/// The number of CAP_SYS_ADMIN (include/uapi/linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;

/// The bytes of mountinfo that are read of a container, which chooses how many mounts it has.
const MOUNTINFO_LIMIT: u64 = 1 << 20;

/// The answer to the question whether a container can mount a procfs of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FreshProcfs {
    /// The answer of the rules that can be seen from outside.
    pub(super) can: Can,
    /// The rules that may still forbid it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unless: Vec<Unless>,
}

/// The answer of the rules that can be seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Can {
    /// It can.
    Yes,
    /// It can in a user namespace that it makes.
    InUserNamespace,
    /// It cannot.
    No,
    /// The process has ended, or has too many mounts.
    Unknown,
}

/// A rule that may forbid it, and that cannot be seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Unless {
    /// The mounts that hide something of each procfs may be locked.
    LockedMounts,
    /// The container has a seccomp filter.
    Seccomp,
    /// A security module confines the container.
    SecurityModule,
}

/// The facts about a container on which the answer depends, from the kernel.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// True if its bounding set has CAP_SYS_ADMIN.
    is_capable: bool,
    /// True if it is in the user namespace of the host.
    is_in_initial_namespace: bool,
    /// True if the host lets it make user namespaces.
    makes_user_namespaces: bool,
    /// Its mounts; none if there are too many.
    mounts: Option<Vec<Mount>>,
    /// True if the kernel has locked its grafts.
    is_locked: bool,
    /// True if AppArmor takes the capabilities from user namespaces of programs that it does not know.
    restricts_user_namespaces: bool,
    /// True if it has a seccomp filter.
    has_filter: bool,
    /// True if it has a label of a security module that says more than "unconfined".
    is_confined: bool,
}

impl FreshProcfs {
    /// Looks at a container, now. Processes that an engine starts in it later may have more capabilities than its init.
    pub(super) fn of(proc: &Proc, container: &Listed) -> Self {
        match Seen::look(proc, container.pid) {
            Ok(seen) => Seen {
                is_locked: container.locked,
                ..seen
            }
            .judge(),
            Err(_) => Self {
                can: Can::Unknown,
                unless: Vec::new(),
            },
        }
    }

    /// Returns the word for lists; with a question mark if something that cannot be seen may forbid it.
    pub(super) fn word(&self) -> &'static str {
        match (self.can, self.unless.is_empty()) {
            (Can::Yes, true) => "yes",
            (Can::Yes, false) => "yes?",
            (Can::InUserNamespace, true) => "userns",
            (Can::InUserNamespace, false) => "userns?",
            (Can::No, _) => "no",
            (Can::Unknown, _) => "?",
        }
    }
}

impl Seen {
    fn look(proc: &Proc, pid: i32) -> Result<Self> {
        let status = proc.read(&format!("{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map_or("", str::trim)
        };
        let bounding = u64::from_str_radix(field("CapBnd:"), 16).unwrap_or(0);
        // Without a security module, and with some of them, the file cannot be read.
        let label = proc.read(&format!("{pid}/attr/current"));
        let label = label.unwrap_or_default();
        let label = label.trim_end_matches(['\n', '\0']);
        Ok(Self {
            is_capable: bounding & 1 << CAP_SYS_ADMIN != 0,
            is_in_initial_namespace: proc.namespace(pid, "user")?.is_initial_user(),
            makes_user_namespaces: may_make_user_namespaces(proc),
            mounts: read_mounts(proc, pid)?,
            is_locked: false,
            has_filter: field("Seccomp:") != "0",
            restricts_user_namespaces: proc
                .read("sys/kernel/apparmor_restrict_unprivileged_userns")
                .is_ok_and(|text| text.trim() != "0"),
            is_confined: !label.is_empty() && !label.contains("unconfined"),
        })
    }

    fn judge(&self) -> FreshProcfs {
        let (can, has_locked) = match (self.is_capable, self.is_in_initial_namespace) {
            (true, true) => (Can::Yes, false),
            (capable, _) => match &self.mounts {
                None => (Can::Unknown, false),
                Some(mounts) => by_mounts(mounts, capable, self.makes_user_namespaces),
            },
        };
        let (can, has_locked) = match has_locked && self.is_locked {
            true => (Can::No, false),
            false => (can, has_locked),
        };
        let may_forbid = [
            (has_locked, Unless::LockedMounts),
            (self.has_filter, Unless::Seccomp),
            (
                self.is_confined || can == Can::InUserNamespace && self.restricts_user_namespaces,
                Unless::SecurityModule,
            ),
        ];
        let unless = may_forbid
            .into_iter()
            .filter_map(|(is_so, rule)| is_so.then_some(rule))
            .filter(|_| matches!(can, Can::Yes | Can::InUserNamespace))
            .collect();
        FreshProcfs { can, unless }
    }
}

/// Returns the answer for a container to which the kernel applies `mount_too_revealing`, and whether that answer holds
/// only if no mount is locked.
fn by_mounts(mounts: &[Mount], is_capable: bool, makes_user_namespaces: bool) -> (Can, bool) {
    let mut procfs = mounts
        .iter()
        .filter(|mount| mount.fstype == "proc" && mount.root == "/")
        .peekable();
    let has_procfs = procfs.peek().is_some();
    let is_whole = procfs.any(|top| {
        let mut on_it = mounts.iter().filter(|mount| mount.parent == top.id);
        on_it.all(|mount| !hides_something(top, mount))
    });
    match (is_capable, is_whole) {
        (true, _) if has_procfs => (Can::Yes, !is_whole),
        (false, true) if makes_user_namespaces => (Can::InUserNamespace, false),
        _ => (Can::No, false),
    }
}

/// Returns whether the host lets a process without capabilities make user namespaces. Only Debian's kernels have the
/// second of these sysctls.
fn may_make_user_namespaces(proc: &Proc) -> bool {
    let maximum = proc.read("sys/user/max_user_namespaces");
    let debian = proc.read("sys/kernel/unprivileged_userns_clone");
    maximum.is_ok_and(|text| text.trim() != "0") && debian.map_or(true, |text| text.trim() != "0")
}

/// Returns the mounts of a process; none if there are too many.
fn read_mounts(proc: &Proc, pid: i32) -> Result<Option<Vec<Mount>>> {
    let file = proc.open_at(&format!("{pid}/mountinfo"), OFlags::RDONLY)?;
    let mut bytes = Vec::new();
    let file = std::fs::File::from(file);
    let read = file.take(MOUNTINFO_LIMIT + 1).read_to_end(&mut bytes);
    let is_all = read.is_ok_and(|length| length as u64 <= MOUNTINFO_LIMIT);
    Ok(is_all.then(|| parse_mountinfo(&String::from_utf8_lossy(&bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A procfs on /proc, and what is mounted on it at these paths.
    fn mounts(on_it: &[&str]) -> Option<Vec<Mount>> {
        let mut text = "20 10 0:20 / /proc rw - proc proc rw\n".to_owned();
        for (number, path) in on_it.iter().enumerate() {
            let id = 30 + number;
            text += &format!("{id} 20 0:30 /1{path} /proc{path} ro - fuse.eci-fs eci-fs rw\n");
        }
        Some(parse_mountinfo(&text))
    }

    fn plain(mounts: Option<Vec<Mount>>) -> Seen {
        Seen {
            makes_user_namespaces: true,
            mounts,
            ..Seen::default()
        }
    }

    #[test]
    fn a_capable_container_in_the_user_namespace_of_the_host_always_can() {
        let seen = Seen {
            is_capable: true,
            is_in_initial_namespace: true,
            ..plain(None)
        };
        assert_eq!(seen.judge().word(), "yes");
        let filtered = Seen {
            has_filter: true,
            ..seen
        };
        assert_eq!(filtered.judge().word(), "yes?");
    }

    #[test]
    fn in_a_user_namespace_of_its_own_it_needs_a_procfs_and_no_lock() {
        let seen = |mounts| Seen {
            is_capable: true,
            ..plain(mounts)
        };
        assert_eq!(seen(mounts(&[])).judge().word(), "yes");
        let covered = seen(mounts(&["/meminfo"])).judge();
        assert_eq!(covered.unless, [Unless::LockedMounts]);
        assert_eq!(covered.word(), "yes?");
        let locked = Seen {
            is_locked: true,
            ..seen(mounts(&["/meminfo"]))
        };
        assert_eq!(locked.judge().word(), "no");
        assert_eq!(seen(Some(Vec::new())).judge().word(), "no");
        assert_eq!(seen(None).judge().word(), "?");
    }

    #[test]
    fn without_the_capability_it_needs_a_user_namespace_and_a_whole_procfs() {
        assert_eq!(plain(mounts(&[])).judge().word(), "userns");
        let empty = ["/sys/fs/binfmt_misc", "/fs/nfsd"];
        assert_eq!(plain(mounts(&empty)).judge().word(), "userns");
        assert_eq!(plain(mounts(&["/meminfo"])).judge().word(), "no");
        let alone = Seen {
            makes_user_namespaces: false,
            ..plain(mounts(&[]))
        };
        assert_eq!(alone.judge().word(), "no");
        let confined = Seen {
            is_confined: true,
            ..plain(mounts(&[]))
        };
        assert_eq!(confined.judge().word(), "userns?");
    }

    #[test]
    fn programs_read_the_same_answer() {
        let seen = Seen {
            has_filter: true,
            ..plain(mounts(&[]))
        };
        let json = serde_json::to_string(&seen.judge()).unwrap();
        let wanted = r#"{"can":"in-user-namespace","unless":["seccomp"]}"#;
        assert_eq!(json, wanted);
        let no = serde_json::to_string(&plain(Some(Vec::new())).judge()).unwrap();
        assert_eq!(no, r#"{"can":"no"}"#);
    }
}
