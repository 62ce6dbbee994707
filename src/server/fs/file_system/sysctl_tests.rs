//! Permissions and sizes of tunables, on a host that is made for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eci_fs_emulators::{Cgroup, Container, Host, Identity, Settings};
use eci_fs_protocol::link::Connection;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::FileSystem;
use crate::server::container::Attached;
use crate::server::error::Errno;
use crate::server::fs::containers::View;
use crate::server::fs::sysctls::Written;
use crate::server::fs::{Caller, Opened, Write};
use crate::server::ids::{Handle, NodeId};

/// Root of the container, by the host's numbers.
const UID: u32 = 100_000;
const GID: u32 = 100_001;

const USERS: &str = "0 100000 65536\n";

struct MadeHost {
    proc: tempfile::TempDir,
}

/// The process that has no capability.
const UNABLE: u32 = 1001;

/// The process that gets another capability.
const CHANGING: u32 = 1006;
static CHANGED: AtomicBool = AtomicBool::new(false);

fn capabilities(pid: u32) -> CapabilitySets {
    let effective = match pid {
        0 | UNABLE => CapabilitySet::empty(),
        CHANGING if CHANGED.load(Ordering::Relaxed) => {
            CapabilitySet::SYS_ADMIN | CapabilitySet::CHOWN
        }
        _ => CapabilitySet::SYS_ADMIN,
    };
    CapabilitySets {
        effective,
        permitted: effective,
        inheritable: CapabilitySet::empty(),
    }
}

impl MadeHost {
    fn new() -> Self {
        let proc = tempfile::tempdir().unwrap();
        let this = Self { proc };
        this.put("sys/kernel/osrelease", "6.18.0\n");
        this.put(
            &format!("{}/uid_map", std::process::id()),
            "0 0 4294967295\n",
        );
        this
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.proc.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Makes a tunable with these permission bits.
    fn tunable(&self, name: &str, mode: u32) {
        self.put(&format!("sys/{name}"), "0\n");
        let path = self.proc.path().join("sys").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn process(&self, pid: u32, groups: &str, users: &str) {
        let status = format!("Name:\tx\nGroups:\t{groups} \n");
        self.put(&format!("{pid}/status"), &status);
        self.put(&format!("{pid}/uid_map"), users);
    }

    fn file_system(&self) -> Arc<FileSystem> {
        let dir = || fs::File::open(self.proc.path()).unwrap().into();
        let host = Host::from_dirs(dir(), dir());
        let fs = FileSystem::assemble(
            host,
            None,
            Settings::default(),
            true,
            Duration::from_millis(10),
            capabilities,
        );
        let container = Container {
            cgroup: Cgroup::new(Vec::new()),
            identity: Identity::default(),
            history: Default::default(),
            tunables: Default::default(),
            can_measure_cpus: Default::default(),
        };
        let mut attached = Attached::over(container, UID, GID);
        attached.uid_map = USERS.as_bytes().to_vec();
        fs.add(7, attached);
        fs
    }
}

fn node(fs: &FileSystem, path: &str) -> NodeId {
    format!("7/proc/sys/{path}")
        .split('/')
        .try_fold(NodeId::ROOT, |at, name| fs.find(Connection::Live, at, name))
        .unwrap()
}

/// Writes "1", as one who has it open.
fn write(fs: &FileSystem, path: &str, caller: Caller) -> Result<usize, i32> {
    let write = Write {
        caller,
        flags: libc::O_WRONLY,
        offset: 0,
        bytes: b"1",
    };
    let written = set(fs, node(fs, path), write);
    let answer = written.and_then(|written| written.answer);
    answer.map_err(|errno| errno.0)
}

fn view(fs: &FileSystem, id: NodeId) -> View {
    fs.containers.view(id).unwrap()
}

fn set(fs: &FileSystem, id: NodeId, write: Write<'_>) -> Result<Written, Errno> {
    let view = view(fs, id);
    let tunable = view.tunable().unwrap();
    fs.sysctls.write(&view, tunable, Handle::NONE, write)
}

/// Opens a tunable, where that needs no snapshot.
fn open(fs: &FileSystem, id: NodeId, caller: Caller, flags: i32) -> Result<Option<Opened>, Errno> {
    fs.sysctls.open(&view(fs, id), caller, flags)
}

fn caller(uid: u32, gid: u32, pid: u32) -> Caller {
    Caller { uid, gid, pid }
}

#[test]
fn a_supplementary_group_counts_where_groups_may_do_other_than_others() {
    let host = MadeHost::new();
    host.tunable("vm/swappiness", 0o664);
    host.tunable("kernel/panic", 0o644);
    host.tunable("kernel/sysrq", 0o606);
    host.process(1000, "5 100001 7", USERS);
    host.process(1001, "5 1000010", USERS);
    let fs = host.file_system();
    let (group, member, stranger) = (
        caller(100_005, GID, 1),
        caller(100_005, 100_005, 1000),
        caller(100_005, 100_005, 1001),
    );
    for (path, [root, group_may, member_may, stranger_may]) in [
        ("vm/swappiness", [true, true, true, false]),
        ("kernel/panic", [true, false, false, false]),
        ("kernel/sysrq", [true, false, false, true]),
    ] {
        for (caller, may) in [
            (caller(UID, GID, 1), root),
            (caller(0, 0, 1), root),
            (group, group_may),
            (member, member_may),
            (stranger, stranger_may),
            // Nothing is known of who lies in no pid namespace that this one sees.
            (self::caller(100_005, 100_005, 0), stranger_may),
        ] {
            let wanted = if may { Ok(1) } else { Err(libc::EPERM) };
            assert_eq!(write(&fs, path, caller), wanted, "{path} {caller:?}");
            let opened = open(&fs, node(&fs, path), caller, libc::O_WRONLY);
            let wanted = if may {
                Ok(Some(Opened::Direct(Handle::NONE)))
            } else {
                Err(Errno(libc::EACCES))
            };
            assert_eq!(opened, wanted, "{path} {caller:?}");
        }
    }
}

#[test]
fn a_capability_counts_in_the_containers_user_namespace_and_in_the_machines() {
    let host = MadeHost::new();
    host.tunable("kernel/dmesg_restrict", 0o644);
    host.process(1000, "", USERS);
    host.process(UNABLE, "", USERS);
    host.process(1002, "", "0 100000 1\n");
    host.process(1003, "", "0 0 4294967295\n");
    // This process ended while it was looked at.
    host.process(1004, "", "");
    let fs = host.file_system();
    for (pid, wanted) in [
        (1000, Ok(1)),
        (UNABLE, Err(libc::EPERM)),
        (1002, Err(libc::EPERM)),
        (1003, Ok(1)),
        (1004, Err(libc::EPERM)),
        (1005, Err(libc::EPERM)),
        (0, Err(libc::EPERM)),
    ] {
        let answer = write(&fs, "kernel/dmesg_restrict", caller(UID, GID, pid));
        assert_eq!(answer, wanted, "{pid}");
    }
}

#[test]
fn who_gets_capabilities_is_looked_at_again_and_everybody_is_after_a_moment() {
    let host = MadeHost::new();
    host.tunable("kernel/dmesg_restrict", 0o644);
    host.process(CHANGING, "", USERS);
    let fs = host.file_system();
    let write = || write(&fs, "kernel/dmesg_restrict", caller(UID, GID, CHANGING));
    assert_eq!(write(), Ok(1));
    // The process enters a user namespace of its own, in which it has all capabilities.
    host.process(CHANGING, "", "0 100000 1\n");
    CHANGED.store(true, Ordering::Relaxed);
    assert_eq!(write(), Err(libc::EPERM));
    // And it comes back with what it has.
    host.process(CHANGING, "", USERS);
    let began = Instant::now();
    while write() != Ok(1) {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "never looked at again"
        );
    }
}

#[test]
fn a_size_is_believed_until_a_write_makes_it_another() {
    let host = MadeHost::new();
    host.tunable("vm/max_map_count", 0o644);
    let fs = host.file_system();
    let id = node(&fs, "vm/max_map_count");
    let root = caller(UID, GID, 1);
    let resized = |offset: u64, bytes: &[u8]| {
        let flags = libc::O_WRONLY;
        let write = Write {
            caller: root,
            flags,
            offset,
            bytes,
        };
        let written = set(&fs, id, write);
        written.unwrap().is_distrusted
    };
    let believe = || {
        let (attr, timeout) = fs.attr(Connection::Live, id, None).unwrap();
        (attr.size, !timeout.is_zero())
    };
    assert!(resized(0, b"1\n"), "it was never told");
    assert_eq!(believe(), (2, true));
    assert!(!resized(0, b"2"));
    assert!(!resized(0, b"3\n"));
    assert!(resized(0, b"44"), "it grows");
    assert!(resized(0, b"44"), "it was not told since");
    assert_eq!(believe(), (3, true));
    assert!(resized(0, b" 55\n"), "the kernel adds what was written");
    assert_eq!(believe(), (3, true));
    assert!(resized(2, b"55"), "also where nothing is set");
    assert_eq!(believe(), (3, true));
    assert!(resized(0, b"6"), "it shrinks");
}

#[test]
fn the_page_cache_keeps_what_it_holds_while_nothing_else_is_written() {
    let host = MadeHost::new();
    host.tunable("vm/max_map_count", 0o644);
    let fs = host.file_system();
    let id = node(&fs, "vm/max_map_count");
    let root = caller(UID, GID, 1);
    let open = || self::open(&fs, id, root, libc::O_RDONLY).unwrap();
    let set = |bytes: &[u8]| {
        let write = Write {
            caller: root,
            flags: libc::O_WRONLY,
            offset: 0,
            bytes,
        };
        let written = set(&fs, id, write);
        written.unwrap().is_distrusted
    };
    let read = || {
        let text = fs.read(Connection::Live, id, Handle::PAGED, 0);
        text.unwrap().to_vec()
    };
    let ask = || fs.attr(Connection::Live, id, None).unwrap().1;
    assert_eq!(open(), None, "the kernel knows no size");
    ask();
    assert_eq!(open(), Some(Opened::Paged { keep: false }));
    assert_eq!(
        open(),
        Some(Opened::Paged { keep: false }),
        "nothing was read"
    );
    assert_eq!(read(), b"0\n");
    assert_eq!(open(), Some(Opened::Paged { keep: true }));
    assert!(set(b"1\n"), "it is held open");
    assert_eq!(open(), Some(Opened::Paged { keep: false }));
    assert_eq!(read(), b"1\n");
    for _ in 0..5 {
        fs.release(id, Handle::PAGED);
    }
    assert!(!set(b"2\n"), "it is not");
    assert_eq!(open(), Some(Opened::Paged { keep: false }));
    assert_eq!(read(), b"2\n");
    // Longer than the kernel knows: a snapshot, until it has asked.
    set(b"33\n");
    assert_eq!(open(), None);
    assert_eq!(read(), b"2\n", "of the size that it knows");
    ask();
    assert_eq!(open(), Some(Opened::Paged { keep: false }));
    assert_eq!(read(), b"33\n");
}

#[test]
fn the_most_seconds_are_those_of_this_kernels_jiffies() {
    let host = MadeHost::new();
    host.tunable("kernel/hung_task_timeout_secs", 0o644);
    let fs = host.file_system();
    let id = node(&fs, "kernel/hung_task_timeout_secs");
    let answer = |number: u64| {
        let text = number.to_string();
        let write = Write {
            caller: caller(UID, GID, 1),
            flags: libc::O_WRONLY,
            offset: 0,
            bytes: text.as_bytes(),
        };
        let written = set(&fs, id, write);
        written.unwrap().answer
    };
    for hz in [100, 250, 300, 1000] {
        fs.host.set_hz(hz);
        let most = i64::MAX.unsigned_abs() / hz;
        assert!(answer(most).is_ok(), "{hz}");
        assert_eq!(answer(most + 1), Err(Errno(libc::EINVAL)), "{hz}");
    }
}
