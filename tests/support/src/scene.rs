//! What one test makes, and the look at its end whether something of it is left.
//!
//! 1. The test's thread gets a mount namespace of its own, from which the mounts of every other eci-fs on the host
//!    are taken away. All mounts of ours that are seen in it, or in a container that is made from it, belong to this
//!    test, and what a test leaves behind is found by comparing.
//! 2. The process becomes the reaper of all that it starts: an orphan is found among its children.
//! 3. At the end, after all that the test has made is dropped: daemons in the background must have ended by
//!    themselves; then children, mounts and cgroups are looked for.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use serde_json::Value;

use crate::daemon::{Pending, is_alive, noted_server};
use crate::process::{end_within, kill, mounts_of, try_pidfd};
use crate::{Builder, Container, Daemon, PATIENCE, Ran, children_of, find_program};

/// A test's surroundings. Make it first, so that it is dropped last.
#[derive(Debug)]
pub struct Scene {
    program: PathBuf,
    dir: tempfile::TempDir,
    root: OnceCell<PathBuf>,
    mounts: Vec<String>,
    background: std::cell::RefCell<Vec<u32>>,
}

impl Scene {
    /// The surroundings of a test of `program`, the `eci-fs` that cargo built for it.
    ///
    /// # Panics
    /// When the test is not run by root, or /dev/fuse is missing.
    #[track_caller]
    pub fn new(program: &str) -> Self {
        Self::with_propagation(program, MountPropagationFlags::PRIVATE)
    }

    /// The same, with mounts that are shared, as those of a host are: what somebody mounts in a namespace that is
    /// copied from the test's appears in the test's too, unless it is made private there.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[track_caller]
    pub fn with_shared_mounts(program: &str) -> Self {
        Self::with_propagation(program, MountPropagationFlags::SHARED)
    }

    #[track_caller]
    fn with_propagation(program: &str, propagation: MountPropagationFlags) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test needs root: it makes containers; run `sudo -E env PATH=\"$PATH\" cargo nextest run`"
        );
        assert!(
            Path::new("/dev/fuse").exists(),
            "this test needs /dev/fuse: `modprobe fuse`; in a container, pass the device in"
        );
        // The thread of a test has its name.
        if let Some((_, name)) = std::thread::current()
            .name()
            .and_then(|n| n.rsplit_once("::"))
        {
            assert!(
                name.starts_with("privileged_"),
                "this test needs root, and its name has to say so: privileged_{name}"
            );
        }
        must(
            "becoming the reaper of orphans",
            rustix::process::set_child_subreaper(Some(rustix::process::getpid())),
        );
        // Short, because the path of a socket is at most 107 bytes long.
        let dir = tempfile::Builder::new()
            .prefix("eci-test-")
            .tempdir_in("/tmp");
        let dir = must("making a directory", dir);
        // Root of a user namespace is somebody else on the way to its files.
        let mode = fs::Permissions::from_mode(0o755);
        must(
            "opening the directory",
            fs::set_permissions(dir.path(), mode),
        );
        must("making a mount namespace", unshare(CloneFlags::CLONE_NEWNS));
        // Private first, so that nothing comes from the host any more, and nothing goes there.
        propagate(MountPropagationFlags::PRIVATE);
        leave_out_mounts_of_others();
        propagate(propagation);
        Self {
            program: program.into(),
            dir,
            root: OnceCell::new(),
            mounts: mounts_of("thread-self"),
            background: std::cell::RefCell::default(),
        }
    }

    /// The `eci-fs` that is tested.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A directory of the test's own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The runtime directory that all commands get; it is not made beforehand.
    pub fn runtime_dir(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// A small root file system with `probe` and `busybox` in /bin, and nothing else.
    ///
    /// # Panics
    /// When busybox is missing or the probe cannot be built.
    #[track_caller]
    pub fn root(&self) -> &Path {
        self.root.get_or_init(|| {
            let root = self.dir().join("root");
            for dir in ["bin", "proc", "sys", "dev", "tmp"] {
                must("making a root", fs::create_dir_all(root.join(dir)));
            }
            let target = self.program.parent().and_then(Path::parent);
            let probe = crate::program::probe(target.unwrap_or_else(|| Path::new("target")));
            must("copying the probe", fs::copy(probe, root.join("bin/probe")));
            let busybox = find_program("busybox");
            must(
                "copying busybox",
                fs::copy(busybox, root.join("bin/busybox")),
            );
            root
        })
    }

    /// A command line of `eci-fs` with the test's runtime directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("ECI_FS_RUNTIME_DIR", self.runtime_dir())
            .env_remove("ECI_FS_LOG");
        command
    }

    /// The same, of an `eci-fs` at a path that everybody may execute, whatever the directory of the build is.
    ///
    /// # Panics
    /// When it cannot be mounted there.
    #[track_caller]
    pub fn command_for_everybody(&self, arguments: &[&str]) -> Command {
        let point = self.dir().join("eci-fs");
        if !point.exists() {
            must("making a mount point", fs::write(&point, ""));
            let bound = mount_bind(&self.program, &point);
            must("mounting the program", bound);
        }
        let mut command = Command::new(point);
        command
            .args(arguments)
            .env("ECI_FS_RUNTIME_DIR", self.runtime_dir());
        command
    }

    /// Wait until the orphans of what was killed have ended.
    pub fn wait_for_children(&self) {
        for child in children_of(std::process::id()) {
            if let Some(pidfd) = try_pidfd(child) {
                end_within(&pidfd, PATIENCE);
            }
        }
    }

    /// Run `eci-fs` to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn eci_fs(&self, arguments: &[&str]) -> Ran {
        let ran = Ran::run(&mut self.command(arguments));
        self.note_background();
        ran
    }

    /// Start `eci-fs` and do not wait for it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Pending {
        Pending::start(self.command(arguments))
    }

    /// Attach a container.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn attach(&self, container: &Container) -> String {
        self.eci_fs(&["attach", &container.pid().to_string()]).ok()
    }

    /// Detach a container.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn detach(&self, container: &Container) -> String {
        self.eci_fs(&["detach", &container.pid().to_string()]).ok()
    }

    /// The list of attached containers.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        let text = self.eci_fs(&["list", "--json"]).ok();
        must("reading the list", serde_json::from_str(&text))
    }

    /// A daemon in the foreground, with options.
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    pub fn daemon(&self, options: &[&str]) -> Daemon {
        let command = self.command(&[&["mountd"], options].concat());
        Daemon::start(command, self.runtime_dir())
    }

    /// The daemon that a command of the test's own starts in the foreground.
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    pub fn daemon_of(&self, command: Command) -> Daemon {
        Daemon::start(command, self.runtime_dir())
    }

    /// The daemon that holds the runtime directory, if there is one.
    pub fn daemon_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.runtime_dir().join("lock")).ok()?;
        text.trim().parse().ok().filter(|pid| is_alive(*pid))
    }

    /// The server that serves, whichever daemon started it; none while there is none.
    pub fn server_pid(&self) -> Option<u32> {
        noted_server(&self.runtime_dir())
    }

    /// Wait until there is a server that serves.
    ///
    /// # Panics
    /// When there is none for long.
    #[track_caller]
    pub fn wait_for_server(&self) -> u32 {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(server) = self.server_pid() {
                return server;
            }
            assert!(self.daemon_pid().is_some(), "the daemon has ended");
            assert!(Instant::now() < end, "the daemon has no server");
        }
    }

    /// A container, to be described and started.
    pub fn container(&self) -> Builder<'_> {
        Builder::new(self)
    }

    /// Remember the daemon that is in the background now: it must end with its last container.
    pub fn note_background(&self) {
        let mut known = self.background.borrow_mut();
        if let Some(pid) = self.daemon_pid()
            && !known.contains(&pid)
        {
            known.push(pid);
        }
    }

    /// What is left, in words.
    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        self.note_background();
        for pid in self.background.borrow().iter() {
            // It ends with its last container, which has ended just now.
            if is_alive(*pid) && try_pidfd(*pid).is_some_and(|pidfd| !end_within(&pidfd, PATIENCE))
            {
                left.push(format!("the daemon {pid} in the background"));
                kill(*pid);
            }
        }
        // In a process that several tests share, children may be another test's.
        if std::env::var("NEXTEST_EXECUTION_MODE").is_ok_and(|mode| mode == "process-per-test") {
            left.extend(leftover_children());
        }
        let mounts = mounts_of("thread-self");
        left.extend(
            mounts
                .into_iter()
                .filter(|mount| is_of_eci_fs(mount) && !self.mounts.contains(mount))
                .map(|mount| format!("the mount {mount}")),
        );
        left
    }
}

/// Whether a line of mountinfo is of a mount that eci-fs makes, of whichever daemon it is: a graft, or the directory
/// that `eci-fs mount` fills.
fn is_of_eci_fs(line: &str) -> bool {
    let of_the_file_system = line.split_once(" - ").map(|(_, rest)| rest.split(' '));
    of_the_file_system.is_some_and(|mut words| words.nth(1) == Some("eci-fs"))
}

/// Sets how all mounts of the test's namespace pass on what is mounted below them.
#[track_caller]
fn propagate(propagation: MountPropagationFlags) {
    let set = mount_change("/", MountPropagationFlags::REC | propagation);
    must("setting the propagation of mounts", set);
}

/// Unmounts, in the test's namespace alone, what other daemons have mounted on the host: `eci-fs mount` is seen there
/// by everybody.
#[track_caller]
fn leave_out_mounts_of_others() {
    let first = || {
        let mut mounts = mounts_of("thread-self").into_iter();
        mounts.find(|line| is_of_eci_fs(line))
    };
    // What is mounted below it goes with it.
    while let Some(line) = first() {
        let point = unescape(line.split(' ').nth(4).unwrap_or_default());
        let unmounted = unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        must("unmounting what belongs to another daemon", unmounted);
    }
}

/// The path of a line of mountinfo, where a space is written as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut parts = text.split('\\');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        // The kernel writes a backslash as a number too, so that there are three digits after each.
        let (number, rest) = part.split_at(part.len().min(3));
        bytes.extend(u8::from_str_radix(number, 8));
        bytes.extend(rest.bytes());
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Children that do not end by themselves. They are killed.
fn leftover_children() -> Vec<String> {
    children_of(std::process::id())
        .into_iter()
        .filter_map(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let pidfd = try_pidfd(pid)?;
            // An orphan may be about to end, like the processes of a container whose pid 1 has just ended.
            if end_within(&pidfd, PATIENCE / 4) {
                return None;
            }
            kill(pid);
            Some(format!("the process {pid}: {}", line.replace('\0', " ")))
        })
        .collect()
}

impl Drop for Scene {
    fn drop(&mut self) {
        let left = self.leftovers();
        // What a test mounts on files of its own directory would keep that from being removed.
        for mount in mounts_of("thread-self").iter().rev() {
            let point = mount.split(' ').nth(4).unwrap_or_default();
            if Path::new(point).starts_with(self.dir()) {
                // Nothing else can be done about one that stays.
                let _ = unmount(point, UnmountFlags::DETACH);
            }
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "the test leaves behind: {left:#?}");
        }
    }
}

#[track_caller]
fn must<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}
