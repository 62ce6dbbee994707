//! Container engines, each started privately for one test, with its own directories, socket, network namespace and
//! cgroups. So neither another test nor the host's own engine is affected.

mod containerd;
mod docker;
mod image;
mod podman;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, chmod, makedev, mknodat};
use rustix::mount::{MountFlags, mount, mount_bind};

use crate::cgroup::hybrid;
use crate::{find_program, mounts_of};

pub use containerd::Containerd;
pub use docker::Docker;
pub use image::{IMAGE, Image};
pub use podman::Podman;

/// The operations of engines with a command line like Docker's.
pub trait CommandLine {
    /// Returns a command of the engine's program.
    fn command(&self, arguments: &[&str]) -> Command;

    /// Returns the options of `run` that all containers of the tests need.
    fn run_options(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns a command for `run` with the options that all containers need, on the image of the tests.
    fn run_command(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = self.command(&["run"]);
        run.args(self.run_options());
        run.args(options).arg(IMAGE).args(command);
        run
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When the command cannot be started.
    #[track_caller]
    fn call(&self, arguments: &[&str]) -> crate::Ran {
        crate::Ran::run(&mut self.command(arguments))
    }

    /// Runs a container to its end.
    ///
    /// # Panics
    /// When the engine cannot be started.
    #[track_caller]
    fn run(&self, options: &[&str], command: &[&str]) -> crate::Ran {
        crate::Ran::run(&mut self.run_command(options, command))
    }
}

/// Returns a command in its own network namespace, so that an engine changes no network of the host.
#[track_caller]
fn without_network(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(find_program("unshare"));
    command.arg("--net").arg(program);
    command
}

/// Isolates the engines of the test: mounts an empty /run and an empty /dev/shm in its mount namespace, and a /dev/null of
/// its own.
///
/// # Panics
/// When they cannot be mounted.
#[track_caller]
pub fn prepare() {
    // Engines keep their state, and podman its locks, at paths that no option changes.
    for dir in ["/run", "/dev/shm"] {
        let ours = |line: &String| line.contains(&format!(" {dir} ")) && line.contains(SOURCE);
        if !mounts_of("thread-self").iter().any(ours) {
            mount_over(dir.as_ref(), SOURCE, Some("tmpfs"));
        }
    }
    // A runtime gives its standard input to the user of the container, and that is /dev/null.
    let null = Path::new("/run/null");
    if !null.exists() {
        make_null(null);
        mount_over("/dev/null".as_ref(), "/run/null", None);
    }
    // crun starts no container where v1 and v2 are both mounted and v2 has a controller. An empty file hides the
    // controllers of v2.
    if let Some(v2) = hybrid() {
        let file = v2.join("cgroup.controllers");
        if !std::fs::read_to_string(&file).is_ok_and(|text| text.trim().is_empty()) {
            mount_over(&file, "/dev/null", None);
        }
    }
}

/// Makes the device node of /dev/null.
#[track_caller]
fn make_null(path: &Path) {
    let made = mknodat(
        CWD,
        path,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        makedev(1, 3),
    )
    .and_then(|()| chmod(path, Mode::from_raw_mode(0o666)));
    if let Err(error) = made {
        panic!("{} cannot be made: {error}", path.display());
    }
}

/// The source in the mounts of [`prepare`].
const SOURCE: &str = "eci-test-engines";

/// Mounts a file system of this type, or bind mounts the file `source` without a type.
#[track_caller]
fn mount_over(target: &Path, source: &str, kind: Option<&str>) {
    let mounted = match kind {
        Some(kind) => mount(source, target, kind, MountFlags::empty(), None),
        None => mount_bind(source, target),
    };
    if let Err(error) = mounted {
        panic!("{} cannot be mounted over: {error}", target.display());
    }
}

/// Writes a file, and creates its directories.
#[track_caller]
fn write(path: &Path, text: &str) {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    if let Err(error) = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(path, text)) {
        panic!("{} cannot be written: {error}", path.display());
    }
}
