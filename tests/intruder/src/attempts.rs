//! What code in the server could try. Everything here has to be refused.

use std::path::Path;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use nix::errno::Errno;

use crate::inside::Inside;
use crate::victims::Victims;

/// An attempt that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The attempt.
    pub attempt: String,
    /// The result of the system call, or an errno that refuses nothing.
    pub result: String,
}

/// The attempts so far.
struct Tried<'a> {
    inside: &'a mut Inside,
    count: usize,
    allowed: Vec<Allowed>,
}

/// The wall that an attempt meets on every kernel, or on those with Landlock alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wall {
    /// The user that the server is, or the filter of system calls.
    Always,
    /// Landlock: the file is one that every user may read.
    Landlock,
}

const AT_FDCWD: u64 = libc::AT_FDCWD as u64;

/// Files that are not for the server: the path, and the wall before it.
const FILES: &[(&str, Wall)] = &[
    ("/etc/shadow", Wall::Always),
    ("/etc/passwd", Wall::Landlock),
    ("/proc/1/root/etc/shadow", Wall::Always),
    ("/proc/self/root/etc/shadow", Wall::Always),
    ("/proc/1/environ", Wall::Always),
    ("/proc/1/mem", Wall::Always),
    ("/proc/1/maps", Wall::Always),
    ("/proc/1/auxv", Wall::Always),
    ("/proc/1/fd/0", Wall::Always),
    ("/proc/1/cwd", Wall::Always),
    ("/proc/1/exe", Wall::Always),
    ("/proc/1/ns/net", Wall::Always),
    ("/proc/1/syscall", Wall::Always),
    ("/proc/1/io", Wall::Always),
    ("/proc/1/stack", Wall::Always),
    ("/proc/kcore", Wall::Always),
    ("/proc/kmsg", Wall::Always),
    ("/proc/vmallocinfo", Wall::Always),
    ("/proc/slabinfo", Wall::Always),
    ("/proc/sys/net/ipv4/tcp_fastopen_key", Wall::Always),
    ("/proc/kallsyms", Wall::Landlock),
    ("/proc/iomem", Wall::Landlock),
    ("/proc/ioports", Wall::Landlock),
    ("/proc/keys", Wall::Landlock),
    ("/proc/key-users", Wall::Landlock),
    ("/proc/cmdline", Wall::Landlock),
    ("/proc/config.gz", Wall::Landlock),
    ("/proc/net/tcp", Wall::Landlock),
    ("/proc/net/unix", Wall::Landlock),
    ("/proc/locks", Wall::Landlock),
    ("/sys/firmware/acpi/tables/APIC", Wall::Always),
    ("/sys/firmware/dmi/tables/DMI", Wall::Always),
    ("/sys/kernel/uevent_seqnum", Wall::Landlock),
    ("/sys/power/state", Wall::Landlock),
    ("/sys/kernel/notes", Wall::Landlock),
    ("/dev/kmsg", Wall::Always),
    ("/dev/null", Wall::Landlock),
    ("/dev/fuse", Wall::Landlock),
    ("/dev/vda", Wall::Always),
];

/// Calls that serving never makes, with arguments that the kernel would take from a process that may.
const CALLS: &[(&str, libc::c_long, &[u64])] = &[
    ("socket", libc::SYS_socket, &[1, 1, 0]),
    ("socket of packets", libc::SYS_socket, &[17, 3, 0]),
    ("connect", libc::SYS_connect, &[0, 0, 0]),
    ("bind", libc::SYS_bind, &[0, 0, 0]),
    ("listen", libc::SYS_listen, &[0, 1]),
    ("setsockopt", libc::SYS_setsockopt, &[0, 1, 1, 0, 0]),
    (
        "socketpair of datagrams",
        libc::SYS_socketpair,
        &[1, 2, 0, 0],
    ),
    ("socketpair of streams", libc::SYS_socketpair, &[1, 1, 0, 0]),
    ("fork", libc::SYS_fork, &[]),
    ("vfork", libc::SYS_vfork, &[]),
    ("unshare", libc::SYS_unshare, &[0x1000_0000]),
    ("setns", libc::SYS_setns, &[0, 0]),
    ("execve", libc::SYS_execve, &[0, 0, 0]),
    ("execveat", libc::SYS_execveat, &[0, 0, 0, 0, 0]),
    ("ptrace", libc::SYS_ptrace, &[16, 1, 0, 0]),
    (
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        &[1, 0, 0, 0, 0, 0],
    ),
    (
        "process_vm_writev",
        libc::SYS_process_vm_writev,
        &[1, 0, 0, 0, 0, 0],
    ),
    (
        "process_madvise",
        libc::SYS_process_madvise,
        &[0, 0, 0, 0, 0],
    ),
    ("pidfd_open", libc::SYS_pidfd_open, &[1, 0]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, &[0, 0, 0]),
    (
        "pidfd_send_signal",
        libc::SYS_pidfd_send_signal,
        &[0, 0, 0, 0],
    ),
    ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo, &[1, 0, 0]),
    (
        "rt_tgsigqueueinfo",
        libc::SYS_rt_tgsigqueueinfo,
        &[1, 1, 0, 0],
    ),
    ("mount", libc::SYS_mount, &[0, 0, 0, 0, 0]),
    ("umount2", libc::SYS_umount2, &[0, 0]),
    ("open_tree", libc::SYS_open_tree, &[0, 0, 0]),
    ("fsopen", libc::SYS_fsopen, &[0, 0]),
    ("pivot_root", libc::SYS_pivot_root, &[0, 0]),
    ("chroot", libc::SYS_chroot, &[0]),
    ("ioctl", libc::SYS_ioctl, &[2, 0x5412, 0]),
    ("openat2", libc::SYS_openat2, &[AT_FDCWD, 0, 0, 24]),
    ("open", libc::SYS_open, &[0, 0, 0]),
    ("creat", libc::SYS_creat, &[0, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, &[0, 0, 0]),
    (
        "name_to_handle_at",
        libc::SYS_name_to_handle_at,
        &[0, 0, 0, 0, 0],
    ),
    ("unlinkat", libc::SYS_unlinkat, &[0, 0, 0]),
    ("renameat2", libc::SYS_renameat2, &[0, 0, 0, 0, 0]),
    ("linkat", libc::SYS_linkat, &[0, 0, 0, 0, 0]),
    ("symlinkat", libc::SYS_symlinkat, &[0, 0, 0]),
    ("mkdirat", libc::SYS_mkdirat, &[0, 0, 0]),
    ("mknodat", libc::SYS_mknodat, &[0, 0, 0, 0]),
    ("fchmod", libc::SYS_fchmod, &[0, 0]),
    ("fchmodat", libc::SYS_fchmodat, &[0, 0, 0]),
    ("fchownat", libc::SYS_fchownat, &[0, 0, 0, 0, 0]),
    ("utimensat", libc::SYS_utimensat, &[0, 0, 0, 0]),
    ("setxattr", libc::SYS_setxattr, &[0, 0, 0, 0, 0]),
    ("ftruncate", libc::SYS_ftruncate, &[0, 0]),
    ("bpf", libc::SYS_bpf, &[0, 0, 0]),
    (
        "perf_event_open",
        libc::SYS_perf_event_open,
        &[0, 0, 0, 0, 0],
    ),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[1, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, &[1]),
    ("memfd_create", libc::SYS_memfd_create, &[0, 0]),
    ("syslog", libc::SYS_syslog, &[10, 0, 0]),
    ("keyctl", libc::SYS_keyctl, &[0, 0, 0, 0, 0]),
    ("add_key", libc::SYS_add_key, &[0, 0, 0, 0, 0]),
    ("prlimit64", libc::SYS_prlimit64, &[0, 7, 0, 0]),
    ("setrlimit", libc::SYS_setrlimit, &[7, 0]),
    ("setpriority", libc::SYS_setpriority, &[0, 1, 10]),
    ("sched_setattr", libc::SYS_sched_setattr, &[1, 0, 0]),
    (
        "sched_setscheduler",
        libc::SYS_sched_setscheduler,
        &[0, 0, 0],
    ),
    ("sched_setaffinity", libc::SYS_sched_setaffinity, &[0, 0, 0]),
    ("capset", libc::SYS_capset, &[0, 0]),
    ("setuid", libc::SYS_setuid, &[0]),
    ("setresuid", libc::SYS_setresuid, &[0, 0, 0]),
    ("setresgid", libc::SYS_setresgid, &[0, 0, 0]),
    ("setgroups", libc::SYS_setgroups, &[0, 0]),
    ("setfsuid", libc::SYS_setfsuid, &[0]),
    ("setsid", libc::SYS_setsid, &[]),
    ("personality", libc::SYS_personality, &[0]),
    ("seccomp", libc::SYS_seccomp, &[0, 0, 0]),
    (
        "landlock_create_ruleset",
        libc::SYS_landlock_create_ruleset,
        &[0, 0, 1],
    ),
    ("fanotify_init", libc::SYS_fanotify_init, &[0, 0]),
    ("inotify_init1", libc::SYS_inotify_init1, &[0]),
    ("timer_create", libc::SYS_timer_create, &[1, 0, 0]),
    ("setitimer", libc::SYS_setitimer, &[0, 0, 0]),
    ("alarm", libc::SYS_alarm, &[1]),
    ("shmget", libc::SYS_shmget, &[0, 4096, 0o1600]),
    ("msgget", libc::SYS_msgget, &[0, 0o1600]),
    ("mq_open", libc::SYS_mq_open, &[0, 0, 0, 0]),
    ("reboot", libc::SYS_reboot, &[0, 0, 0, 0]),
    ("init_module", libc::SYS_init_module, &[0, 0, 0]),
    ("kexec_load", libc::SYS_kexec_load, &[0, 0, 0, 0]),
    ("prctl(PR_SET_DUMPABLE)", libc::SYS_prctl, &[4, 1, 0, 0, 0]),
    ("prctl(PR_SET_PDEATHSIG)", libc::SYS_prctl, &[1, 0, 0, 0, 0]),
    ("prctl(PR_SET_MM)", libc::SYS_prctl, &[35, 1, 0, 0, 0]),
    (
        "prctl(PR_SET_PTRACER)",
        libc::SYS_prctl,
        &[0x5961_6d61, u64::MAX, 0, 0, 0],
    ),
    (
        "memory to execute",
        libc::SYS_mmap,
        &[0, 4096, 7, 0x22, u64::MAX, 0],
    ),
];

/// Two flags that exclude each other (CLONE_PIDFD and CLONE_DETACHED). A clone that a filter lets pass is then EINVAL, and makes
/// no process that would go on with the code of the server.
const EXCLUSIVE: u64 = 0x0040_1000;

/// Namespaces and processes of its own: the flags of a clone.
const CLONES: &[(&str, u64)] = &[
    ("a process", 17),
    ("a process that shares memory", 0x4111),
    ("a user namespace", 0x1000_0011),
    ("a user namespace with a network and mounts", 0x5002_0011),
    ("a mount namespace", 0x0002_0011),
    ("a cgroup namespace", 0x0200_0011),
    ("a thread with a user namespace", 0x1001_0900),
];

/// Commands of fcntl on a socket or file, with an argument that the kernel would take.
const FCNTL: &[(&str, u64, u64)] = &[
    ("F_SETSIG", 10, 9),
    ("F_SETFL O_ASYNC", 4, 0x2000),
    ("F_SETLEASE", 1024, 0),
    ("F_NOTIFY", 1026, 2),
    ("F_SETPIPE_SZ", 1031, 4096),
    ("F_ADD_SEALS", 1033, 0),
];

/// Makes every attempt in the thread `inside`. Returns the number of attempts, and those that were not refused. `dir` is made
/// for what is attacked, and removed; `sleeper` is a program that does nothing for a long time; `daemon` is the pid of the
/// server's daemon.
///
/// # Errors
/// In words, when what is attacked cannot be made.
pub fn attempts(
    inside: &mut Inside,
    dir: &Path,
    sleeper: &[&str],
    daemon: u32,
) -> Result<(usize, Vec<Allowed>), String> {
    let mut victims = Victims::new(dir, sleeper)?;
    let landlock = has_landlock();
    let mut tried = Tried {
        inside,
        count: 0,
        allowed: Vec::new(),
    };
    tried.files(&victims, landlock);
    tried.writing(&victims);
    tried.names(&victims);
    for (name, number, arguments) in CALLS {
        // Addresses that the kernel can read and write, where it wants any: no attempt fails by its arguments alone.
        let call = |inside: &mut Inside| inside.call(*number, arguments);
        tried.refused(name, call);
    }
    tried.processes(daemon, &victims);
    tried.clones();
    tried.descriptors(&victims);
    tried.watches(&victims);
    tried.executable_memory();
    let Tried {
        count, mut allowed, ..
    } = tried;
    let harm = victims.harm().into_iter().map(|result| Allowed {
        attempt: "what was attacked is as before".to_owned(),
        result,
    });
    allowed.extend(harm);
    Ok((count + 1, allowed))
}

/// Returns whether the kernel has Landlock.
fn has_landlock() -> bool {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1));
    ruleset.and_then(Ruleset::create).is_ok()
}

impl Tried<'_> {
    /// Makes an attempt that has to be refused: EPERM or EACCES.
    fn refused(&mut self, attempt: &str, call: impl FnOnce(&mut Inside) -> Result<u64, Errno>) {
        self.errno(attempt, &[Errno::EPERM, Errno::EACCES], call);
    }

    /// Makes an attempt that has to fail with one of these errors.
    fn errno(
        &mut self,
        attempt: &str,
        wanted: &[Errno],
        call: impl FnOnce(&mut Inside) -> Result<u64, Errno>,
    ) {
        self.count += 1;
        let result = match call(self.inside) {
            Err(errno) if wanted.contains(&errno) => None,
            Err(errno) => Some(errno.to_string()),
            Ok(value) => Some(format!("returned {value}")),
        };
        self.inside.forget();
        if let Some(result) = result {
            self.allowed.push(Allowed {
                attempt: attempt.to_owned(),
                result,
            });
        }
    }

    fn files(&mut self, victims: &Victims, landlock: bool) {
        let [roots, nobodys] = victims.processes.each_ref().map(|child| child.id());
        let mut paths = vec![(victims.path("secret"), Wall::Always)];
        for pid in [roots, nobodys, std::process::id()] {
            for name in [
                "root/etc/shadow",
                "environ",
                "mem",
                "maps",
                "auxv",
                "fd/0",
                "cwd",
                "exe",
                "ns/net",
                "ns/user",
                "syscall",
                "io",
                "stack",
            ] {
                paths.push((format!("/proc/{pid}/{name}"), Wall::Always));
            }
        }
        paths.extend(FILES.iter().map(|(path, wall)| ((*path).to_owned(), *wall)));
        for (path, wall) in paths {
            // A kernel may have no such file. One that is there for nobody to open is refused to the server too.
            if std::fs::symlink_metadata(&path).is_err() || (wall == Wall::Landlock && !landlock) {
                continue;
            }
            self.refused(&format!("read {path}"), |inside| open(inside, &path, 0));
        }
    }

    fn writing(&mut self, victims: &Victims) {
        let own = "/proc/self/oom_score_adj".to_owned();
        for (path, flags) in [
            (victims.path("secret"), libc::O_WRONLY),
            (victims.path("secret"), libc::O_RDWR),
            (victims.path("new"), libc::O_RDONLY | libc::O_CREAT),
            (victims.path(""), libc::O_RDWR | libc::O_TMPFILE),
            ("/proc/self/mem".to_owned(), libc::O_RDWR),
            (own, libc::O_WRONLY),
            ("/sys/kernel/uevent_helper".to_owned(), libc::O_WRONLY),
            ("/proc/sys/kernel/core_pattern".to_owned(), libc::O_WRONLY),
            ("/dev/null".to_owned(), libc::O_WRONLY),
        ] {
            let attempt = format!("open {path} with {flags:#o}");
            self.refused(&attempt, |inside| open(inside, &path, flags as u64));
        }
    }

    /// What lies in a directory that only root may search.
    fn names(&mut self, victims: &Victims) {
        let path = victims.path("secret");
        self.refused("stat in a directory of root", |inside| {
            let (path, answer) = (inside.text(&path), inside.answer());
            inside.call(libc::SYS_newfstatat, &[AT_FDCWD, path, answer, 0])
        });
        self.refused("statx in a directory of root", |inside| {
            let (path, answer) = (inside.text(&path), inside.answer());
            inside.call(libc::SYS_statx, &[AT_FDCWD, path, 0, 0x7ff, answer])
        });
        self.refused("faccessat in a directory of root", |inside| {
            let path = inside.text(&path);
            inside.call(libc::SYS_faccessat, &[AT_FDCWD, path, 0])
        });
        self.refused("readlinkat of a process's executable", |inside| {
            let (path, answer) = (inside.text("/proc/1/exe"), inside.answer());
            inside.call(libc::SYS_readlinkat, &[AT_FDCWD, path, answer, 4096])
        });
        self.refused("list a directory of root", |inside| {
            open(inside, &victims.path(""), libc::O_DIRECTORY as u64)
        });
    }

    fn processes(&mut self, daemon: u32, victims: &Victims) {
        let [roots, nobodys] = victims
            .processes
            .each_ref()
            .map(|child| u64::from(child.id()));
        for (who, pid) in [
            ("init", 1),
            ("the daemon", u64::from(daemon)),
            ("a process of root", roots),
            ("a process of nobody", nobodys),
        ] {
            let stop = if pid == roots || pid == nobodys {
                libc::SIGSTOP as u64
            } else {
                0
            };
            self.refused(&format!("tgkill of {who}"), |inside| {
                inside.call(libc::SYS_tgkill, &[pid, pid, stop])
            });
            self.refused(&format!("tkill of {who}"), |inside| {
                inside.call(libc::SYS_tkill, &[pid, stop])
            });
            self.refused(&format!("kill of {who}"), |inside| {
                inside.call(libc::SYS_kill, &[pid, stop])
            });
        }
        // Its own threads are to be ended by no other signal than that of abort(3).
        self.refused("tgkill of itself with SIGSTOP", |inside| {
            let pid = inside.pid();
            inside.call(libc::SYS_tgkill, &[pid, pid, libc::SIGCONT as u64])
        });
    }

    fn clones(&mut self) {
        for (what, flags) in CLONES {
            self.errno(&format!("clone {what}"), &[Errno::EPERM], |inside| {
                inside.call(libc::SYS_clone, &[flags | EXCLUSIVE, 0, 0, 0, 0])
            });
        }
        // The C library then makes its threads by clone, whose flags can be filtered.
        self.errno("clone3", &[Errno::ENOSYS], |inside| {
            let arguments = inside.bytes(&[0xff; 88]);
            inside.call(libc::SYS_clone3, &[arguments, 88])
        });
    }

    /// Signals and datagrams by a descriptor that the server can have.
    fn descriptors(&mut self, victims: &Victims) {
        let pair = self.inside.answer();
        let flags = (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u64;
        let made = self.inside.call(libc::SYS_socketpair, &[1, flags, 0, pair]);
        // The numbers are the lowest that are free; they are asked for, because the test cannot see the memory.
        self.inside.forget();
        if made.is_err() {
            self.allowed.push(Allowed {
                attempt: "the pair of sockets that serving takes".to_owned(),
                result: format!("{made:?}"),
            });
            return;
        }
        let mut numbers = sockets_of(self.inside.pid());
        let (one, other) = (numbers.pop().unwrap_or(0), numbers.pop().unwrap_or(0));
        for (process, user) in victims.processes.iter().zip(["root", "nobody"]) {
            let pid = u64::from(process.id());
            self.refused(&format!("F_SETOWN of a process of {user}"), |inside| {
                inside.call(libc::SYS_fcntl, &[one, 8, pid])
            });
            self.refused(&format!("F_SETOWN_EX of a process of {user}"), |inside| {
                let owner = [1u32.to_ne_bytes(), process.id().to_ne_bytes()].concat();
                let owner = inside.bytes(&owner);
                inside.call(libc::SYS_fcntl, &[one, 15, owner])
            });
            for (name, command, argument) in FCNTL {
                self.refused(&format!("fcntl {name}"), |inside| {
                    inside.call(libc::SYS_fcntl, &[one, *command, *argument])
                });
            }
            // If all that was allowed, this kills the process.
            let byte = self.inside.bytes(b"x");
            let _ = self.inside.call(libc::SYS_write, &[other, byte, 1]);
            self.inside.forget();
        }
        for (address, kind) in victims.addresses().iter().zip(["path", "name"]) {
            self.refused(&format!("sendto the {kind} of a socket"), |inside| {
                let text = inside.bytes(b"forged by the server");
                let at = inside.bytes(address);
                inside.call(
                    libc::SYS_sendto,
                    &[one, text, 20, 0, at, address.len() as u64],
                )
            });
            self.datagram(address, kind);
        }
        for number in [one, other] {
            let _ = self.inside.call(libc::SYS_close, &[number]);
        }
    }

    /// Sends a datagram to somebody, by a socket of datagrams, if there can be one.
    fn datagram(&mut self, address: &[u8], kind: &str) {
        let before = sockets_of(self.inside.pid());
        let pair = self.inside.answer();
        let made = self
            .inside
            .call(libc::SYS_socketpair, &[1, libc::SOCK_DGRAM as u64, 0, pair]);
        self.inside.forget();
        if made.is_err() {
            return;
        }
        let new: Vec<u64> = sockets_of(self.inside.pid())
            .into_iter()
            .filter(|number| !before.contains(number))
            .collect();
        for number in &new {
            self.refused(&format!("a datagram to the {kind} of a socket"), |inside| {
                let text = inside.bytes(b"forged by the server");
                let at = inside.bytes(address);
                inside.call(
                    libc::SYS_sendto,
                    &[*number, text, 20, 0, at, address.len() as u64],
                )
            });
            let _ = self.inside.call(libc::SYS_close, &[*number]);
        }
    }

    fn watches(&mut self, victims: &Victims) {
        let inotify = descriptors_of(self.inside.pid(), |target| target.contains("inotify"));
        for path in [
            "/etc".to_owned(),
            victims.path(""),
            victims.path("secret"),
            "/proc/self/fd/0".to_owned(),
        ] {
            for number in &inotify {
                self.refused(&format!("watch {path}"), |inside| {
                    let path = inside.text(&path);
                    inside.call(libc::SYS_inotify_add_watch, &[*number, path, 0x100])
                });
            }
        }
    }

    fn executable_memory(&mut self) {
        let room = self
            .inside
            .call(libc::SYS_mmap, &[0, 4096, 3, 0x22, u64::MAX, 0]);
        let room = room.unwrap_or(0);
        self.refused("make memory executable", |inside| {
            inside.call(libc::SYS_mprotect, &[room, 4096, 5])
        });
        let _ = self.inside.call(libc::SYS_munmap, &[room, 4096]);
    }
}

fn open(inside: &mut Inside, path: &str, flags: u64) -> Result<u64, Errno> {
    let path = inside.text(path);
    let opened = inside.call(libc::SYS_openat, &[AT_FDCWD, path, flags, 0o600])?;
    let _ = inside.call(libc::SYS_close, &[opened]);
    Ok(opened)
}

fn sockets_of(pid: u64) -> Vec<u64> {
    descriptors_of(pid, |target| target.starts_with("socket:"))
}

/// Returns the numbers of those descriptors of a process that are open files of a kind, in order.
fn descriptors_of(pid: u64, is_one: impl Fn(&str) -> bool) -> Vec<u64> {
    let names = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let mut numbers: Vec<u64> = names
        .filter(|entry| {
            let target = std::fs::read_link(entry.path());
            target.is_ok_and(|target| is_one(&target.to_string_lossy()))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}
