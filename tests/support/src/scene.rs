//! The environment of one test, and the check at its end that nothing is left.
//!
//! 1. The test's thread gets its own mount namespace, without the mounts of any other eci-fs on the host. So all
//!    mounts of eci-fs in it, and in containers that are made from it, belong to this test. A comparison at the end
//!    finds those that are left.
//! 2. The process becomes the reaper of everything that it starts, so orphans become its children.
//! 3. At the end, everything that the test made has been dropped. Daemons in the background must end by themselves.
//!    Then the scene looks for children, mounts and cgroups.

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

/// The environment of a test. A test makes it first, so that it is dropped last.
#[derive(Debug)]
pub struct Scene {
    program: PathBuf,
    dir: tempfile::TempDir,
    root: OnceCell<PathBuf>,
    mounts: Vec<String>,
    background: std::cell::RefCell<Vec<u32>>,
}

impl Scene {
    /// Returns an environment for a test of `program`, the `eci-fs` that cargo built for it.
    ///
    /// # Panics
    /// When the test does not run as root, or /dev/fuse is missing.
    #[track_caller]
    pub fn new(program: &str) -> Self {
        Self::with_propagation(program, MountPropagationFlags::PRIVATE)
    }

    /// Returns an environment with shared mounts, as a host has them. A mount in a copy of the test's mount namespace
    /// then appears in the test's namespace too, unless the copy is made private.
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
        // The test harness names the thread after the test.
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
        // The name is short, because the path of a socket is at most 107 bytes long.
        let dir = tempfile::Builder::new()
            .prefix("eci-test-")
            .tempdir_in("/tmp");
        let dir = must("making a directory", dir);
        // Root of a user namespace has no rights on the path except those of others.
        let mode = fs::Permissions::from_mode(0o755);
        must(
            "opening the directory",
            fs::set_permissions(dir.path(), mode),
        );
        must("making a mount namespace", unshare(CloneFlags::CLONE_NEWNS));
        // Private mounts come first, so that the mounts of the host and of the test are separate.
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

    /// Returns the `eci-fs` that is tested.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the directory of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the runtime directory that all commands use. It does not exist at first.
    pub fn runtime_dir(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// Returns the directory in which all daemons of the test note the ranges of ids that they have given.
    pub fn ids_dir(&self) -> PathBuf {
        self.dir().join("ids")
    }

    /// Returns a small root file system with `probe` and `busybox` in /bin, and nothing else.
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

    /// Returns a command of `eci-fs` with the test's runtime directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("ECI_FS_RUNTIME_DIR", self.runtime_dir())
            .env("ECI_FS_IDS_DIR", self.ids_dir())
            .env_remove("ECI_FS_LOG");
        command
    }

    /// Returns a command like [`Self::command`], of an `eci-fs` at a path that everybody may execute. The build
    /// directory may be closed to others.
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
            .env("ECI_FS_RUNTIME_DIR", self.runtime_dir())
            .env("ECI_FS_IDS_DIR", self.ids_dir());
        command
    }

    /// Waits until the orphans of killed processes have ended.
    pub fn wait_for_children(&self) {
        for child in children_of(std::process::id()) {
            if let Some(pidfd) = try_pidfd(child) {
                end_within(&pidfd, PATIENCE);
            }
        }
    }

    /// Runs `eci-fs` to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn eci_fs(&self, arguments: &[&str]) -> Ran {
        let ran = Ran::run(&mut self.command(arguments));
        self.note_background();
        ran
    }

    /// Starts `eci-fs` and does not wait for it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Pending {
        Pending::start(self.command(arguments))
    }

    /// Attaches a container.
    ///
    /// # Panics
    /// When the command fails.
    #[track_caller]
    pub fn attach(&self, container: &Container) -> String {
        self.eci_fs(&["attach", &container.pid().to_string()]).ok()
    }

    /// Detaches a container.
    ///
    /// # Panics
    /// When the command fails.
    #[track_caller]
    pub fn detach(&self, container: &Container) -> String {
        self.eci_fs(&["detach", &container.pid().to_string()]).ok()
    }

    /// Returns the list of attached containers.
    ///
    /// # Panics
    /// When the output is no list.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        let text = self.eci_fs(&["list", "--json"]).ok();
        must("reading the list", serde_json::from_str(&text))
    }

    /// Starts a daemon in the foreground, with options.
    ///
    /// # Panics
    /// When the daemon does not become ready.
    #[track_caller]
    pub fn daemon(&self, options: &[&str]) -> Daemon {
        let command = self.command(&[&["mountd"], options].concat());
        Daemon::start(command, self.runtime_dir())
    }

    /// Starts the daemon that this command runs in the foreground.
    ///
    /// # Panics
    /// When the daemon does not become ready.
    #[track_caller]
    pub fn daemon_of(&self, command: Command) -> Daemon {
        Daemon::start(command, self.runtime_dir())
    }

    /// Returns the pid of the daemon that holds the runtime directory, if there is one.
    pub fn daemon_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.runtime_dir().join("lock")).ok()?;
        text.trim().parse().ok().filter(|pid| is_alive(*pid))
    }

    /// Returns the pid of the current server, if there is one. Any daemon may have started it.
    pub fn server_pid(&self) -> Option<u32> {
        noted_server(&self.runtime_dir())
    }

    /// Waits until a server runs.
    ///
    /// # Panics
    /// When no server starts in time.
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

    /// Returns the description of a new container.
    pub fn container(&self) -> Builder<'_> {
        Builder::new(self)
    }

    /// Remembers the daemon in the background, which must end with its last container.
    pub fn note_background(&self) {
        let mut known = self.background.borrow_mut();
        if let Some(pid) = self.daemon_pid()
            && !known.contains(&pid)
        {
            known.push(pid);
        }
    }

    /// Returns a line for each thing that is left.
    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        self.note_background();
        for pid in self.background.borrow().iter() {
            // The daemon ends with its last container, which has just ended.
            if is_alive(*pid) && try_pidfd(*pid).is_some_and(|pidfd| !end_within(&pidfd, PATIENCE))
            {
                left.push(format!("the daemon {pid} in the background"));
                kill(*pid);
            }
        }
        // In a process that several tests share, children may belong to another test.
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

/// Returns whether a line of mountinfo is a mount of any eci-fs daemon: a graft, the directory of an `eci-fs mount`, or
/// the stage.
fn is_of_eci_fs(line: &str) -> bool {
    let of_the_file_system = line.split_once(" - ").map(|(_, rest)| rest.split(' '));
    of_the_file_system
        .is_some_and(|mut words| matches!(words.nth(1), Some("eci-fs" | "eci-fs-stage")))
}

/// Sets the propagation of all mounts in the test's namespace.
#[track_caller]
fn propagate(propagation: MountPropagationFlags) {
    let set = mount_change("/", MountPropagationFlags::REC | propagation);
    must("setting the propagation of mounts", set);
}

/// Unmounts, in the test's namespace alone, the mounts that other daemons made on the host. Everybody sees those of
/// `eci-fs mount`.
#[track_caller]
fn leave_out_mounts_of_others() {
    let first = || {
        let mut mounts = mounts_of("thread-self").into_iter();
        mounts.find(|line| is_of_eci_fs(line))
    };
    // The mounts below it are removed with it.
    while let Some(line) = first() {
        let point = unescape(line.split(' ').nth(4).unwrap_or_default());
        let unmounted = unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        must("unmounting what belongs to another daemon", unmounted);
    }
}

/// Returns a path of mountinfo, in which a space is written as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut parts = text.split('\\');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        // The kernel escapes a backslash too, so three digits follow each backslash.
        let (number, rest) = part.split_at(part.len().min(3));
        bytes.extend(u8::from_str_radix(number, 8));
        bytes.extend(rest.bytes());
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Kills the children that do not end by themselves, and returns a line for each.
fn leftover_children() -> Vec<String> {
    children_of(std::process::id())
        .into_iter()
        .filter_map(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let pidfd = try_pidfd(pid)?;
            // An orphan may still be ending, as the processes of a container whose pid 1 has just ended.
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
        // A mount on a file of the test's directory would prevent its removal.
        for mount in mounts_of("thread-self").iter().rev() {
            let point = mount.split(' ').nth(4).unwrap_or_default();
            if Path::new(point).starts_with(self.dir()) {
                // Nothing more can be done about a mount that stays.
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
