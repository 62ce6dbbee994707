//! `eci-fs mount`: mounts the views of a process below a directory.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use eci_fs_mountd::container::open_pidfd;
use eci_fs_mountd::output::Output;
use eci_fs_mountd::runtime_dir::RuntimeDir;
use eci_fs_protocol::control::{Request, Response};
use eci_fs_protocol::error::{Error, Kind, Result};
use rustix::fs::{Mode, OFlags};

use super::Runtime;
use crate::cli::client::{about_process, call_or_start, unexpected_answer};

/// Options of `eci-fs mount`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Any process of the container
    #[arg(value_parser = super::parse_pid)]
    pid: i32,
    /// An empty directory, created if it is not there; one in the runtime directory otherwise
    dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) runtime: Runtime,
}

pub(super) fn main(options: &Options, out: &mut Output) -> Result<()> {
    super::need_root("mount")?;
    let pidfd = open_pidfd(options.pid)?;
    let runtime_dir = &options.runtime.runtime_dir;
    let wanted = match &options.dir {
        Some(dir) => dir.clone(),
        None => default_dir(runtime_dir, options.pid)?,
    };
    let created = create(&wanted)?;
    let result = open(&wanted).and_then(|(dir, path)| {
        let request = Request::Mount {
            dir: path.clone(),
            created,
        };
        let fds = [pidfd.as_fd(), dir.as_fd()];
        call_or_start(
            runtime_dir,
            None,
            &request,
            &fds,
            options.runtime.change_limit(),
        )
        .map(|(response, _)| (response, path))
    });
    match result {
        Ok((Response::Mounted { id, grafts }, path)) => {
            writeln!(
                out,
                "{}: {grafts} views of {id}, below proc and sys",
                path.display()
            );
            Ok(())
        }
        Ok((other, _)) => Err(unexpected_answer(&other)),
        Err(error) => {
            if created {
                // Nothing was mounted, so the directory that was made for it is removed.
                let _ = std::fs::remove_dir(&wanted);
            }
            Err(about_process(error, options.pid))
        }
    }
}

fn default_dir(runtime_dir: &Path, pid: i32) -> Result<PathBuf> {
    let mounts = RuntimeDir::create(runtime_dir)?.mounts();
    // The runtime directory may let others pass, and what is mounted there is not for them.
    match std::fs::DirBuilder::new().mode(0o700).create(&mounts) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::io("create", &mounts, e)
                .remedy("name a directory, or another --runtime-dir"))
        }
        _ => Ok(mounts.join(pid.to_string())),
    }
}

/// Creates the directory. Returns false when it exists already.
fn create(dir: &Path) -> Result<bool> {
    match std::fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(Error::io("create", dir, e).remedy("name a directory whose parent exists")),
    }
}

/// Opens the directory, and returns the path by which it is listed and unmounted.
fn open(dir: &Path) -> Result<(OwnedFd, PathBuf)> {
    let path = std::fs::canonicalize(dir).map_err(|e| Error::io("resolve", dir, e))?;
    let mut entries = std::fs::read_dir(&path).map_err(|e| Error::io("list", &path, e))?;
    if entries.next().is_some() {
        return Err(
            Error::new(Kind::Refused, format!("{} is not empty", path.display()))
                .remedy("name an empty directory, or unmount what is there"),
        );
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| Error::io("open", &path, e))?;
    Ok((fd, path))
}
