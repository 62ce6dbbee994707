//! `eci-fs show`: prints one view of a container, what is below a directory graft, the paths of all views, or the
//! tunables that the container changed.
//!
//! The view of an attached container is read from the server, so that the output is what the container sees. The view
//! of any other process is computed here from the same facts, and needs no daemon.

mod tunables;

use std::io::{IsTerminal, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use clap::Args;
use eci_fs_emulators::Host;
use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::container::{describe, open_pidfd};
use eci_fs_mountd::output::Output;
use eci_fs_protocol::control::{CgroupChoice, Request, Selector};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};
use eci_fs_protocol::link::{Secrets, Settings, random};
use rustix::fs::OFlags;

use super::Runtime;
use super::absent::{self, Found, START};
use crate::server::container::{Attached, view_settings};
use crate::server::error::Errno;
use crate::server::fs::{FileSystem, Kind as NodeKind, Looked};

/// Options of `eci-fs show`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The container: any process of it, or its name
    #[arg(value_name = "PID|ID")]
    container: String,
    /// The path in the container, for example /proc/meminfo; without it, the paths of all views are printed
    path: Option<String>,
    /// Beside the host's own file, with a mark at each line that differs
    #[arg(long, requires = "path")]
    diff: bool,
    /// The tunables that the container has changed, and their first values
    #[arg(long, conflicts_with = "path")]
    tunables: bool,
    #[command(flatten)]
    pub(super) runtime: Runtime,
}

pub(super) fn main(options: &Options, out: &mut Output) -> Result<()> {
    super::need_root("show")?;
    let selector = super::selector(&options.container);
    if options.tunables {
        let changed = tunables::list(options, &selector)?;
        if changed.is_empty() && std::io::stdout().is_terminal() {
            writeln!(out, "no tunable was changed");
        }
        write!(out, "{changed}");
        return Ok(());
    }
    let Some(path) = &options.path else {
        let Selector::Pid(pid) = selector else {
            return Err(Error::refused("the paths of all views are listed by pid")
                .remedy("see `eci-fs list` for it"));
        };
        for row in compute(pid)?.1 {
            writeln!(out, "{:6}  {}", row.connection.name(), row.path);
        }
        return Ok(());
    };
    let path = &plain(path)?;
    let text = view(options, &selector, path)?;
    if options.diff {
        let host = read(Path::new(path)).map_err(|e| Error::io("read the host's", path, e))?;
        write!(out, "{}", side_by_side(&text, &host));
    } else {
        write!(out, "{text}");
    }
    Ok(())
}

/// Returns the path without empty names and without a slash at its end.
///
/// # Errors
/// When the path is not absolute, or goes back.
fn plain(path: &str) -> Result<String> {
    let mut names = path.split('/').filter(|name| !matches!(*name, "" | "."));
    if !path.starts_with('/') || names.clone().any(|name| name == "..") {
        return Err(
            Error::refused(format!("{path} is not an absolute path without .."))
                .remedy("name a file as /proc/meminfo"),
        );
    }
    Ok(names
        .by_ref()
        .fold(String::new(), |path, name| path + "/" + name))
}

/// Returns the text of a view, or the names in a directory.
fn view(options: &Options, selector: &Selector, path: &str) -> Result<String> {
    match (absent::find(&options.runtime)?, selector) {
        (Found::Daemon(client), _) => {
            let request = Request::Open {
                container: selector.clone(),
                path: path.to_owned(),
            };
            match (client.call(request, &[]), selector) {
                (Ok((_, fds)), _) => {
                    let fd = fds
                        .into_iter()
                        .next()
                        .ok_or_else(|| Error::refused("eci-mountd sent no descriptor"))?;
                    return opened(fd).map_err(|e| {
                        Error::io("read", path, e).remedy("see the log of eci-mountd")
                    });
                }
                (Err(error), _) if error.reason == Some(Reason::NotAView) => {
                    // The container's sysfs has the links of the host's, and the graft lies on what they lead to.
                    return match target_in_sys(path) {
                        Some(target) => view(options, selector, &target),
                        None => Err(not_a_view(path)),
                    };
                }
                // A process that is not attached has computed views.
                (Err(error), Selector::Pid(_)) if error.kind == Kind::NotFound => {}
                (Err(error), _) => return Err(error),
            }
        }
        (Found::Absent(absent), _) => match (absent.select(selector), selector) {
            // The server knows what such a container sees, and only a daemon can ask the server.
            (Some(container), _) => {
                let pid = container.pid;
                return Err(absent
                    .cannot("shown", container)
                    .remedy(format!("`nsenter -t {pid} -m cat {path}`, or {START}")));
            }
            (None, Selector::Id(_)) => return Err(absent.error()),
            (None, Selector::Pid(_)) => {}
        },
    }
    let Selector::Pid(pid) = selector else {
        return Err(absent::error(&options.runtime));
    };
    match compute(*pid)?.0.look(SLOT, path) {
        Ok(Looked::File(text)) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Ok(Looked::Directory(entries)) => {
            Ok(listing(entries.into_iter().map(|entry| {
                (entry.name, entry.kind == NodeKind::Directory)
            })))
        }
        Err(Errno::NOENT) => match target_in_sys(path) {
            Some(target) => view(options, selector, &target),
            None => Err(not_a_view(path)),
        },
        Err(errno) => {
            let error = std::io::Error::from_raw_os_error(errno.0);
            Err(Error::io("compute the view of", path, error))
        }
    }
}

/// Returns where the links of a path in /sys lead to, if that is another path in /sys.
fn target_in_sys(path: &str) -> Option<String> {
    let sys = Path::new("/sys");
    if !Path::new(path).starts_with(sys) {
        return None;
    }
    let target = std::fs::canonicalize(path).ok()?;
    let is_another = target.starts_with(sys) && target != Path::new(path);
    is_another.then(|| target.to_string_lossy().into_owned())
}

/// Returns the error for a path at which the container has nothing of ours.
fn not_a_view(path: &str) -> Error {
    let is_below = |top: &str| Path::new(path).starts_with(top);
    let what = if !is_below("/proc") && !is_below("/sys") {
        format!("{path} is neither in /proc nor in /sys, and no view")
    } else if std::fs::symlink_metadata(path).is_ok() {
        format!("{path} is the kernel's own file in this container")
    } else {
        format!("there is no view of {path}; a file of that name is the kernel's own")
    };
    Error::not_found(what)
        .because(Reason::NotAView)
        .remedy("`eci-fs show PID` lists all views")
}

/// Returns the text of what the daemon has opened: that of a view, or what is at or below a directory graft, of which
/// the descriptor is only a place.
fn opened(fd: OwnedFd) -> std::io::Result<String> {
    if rustix::fs::fcntl_getfl(&fd)?.contains(OFlags::PATH) {
        return read(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())));
    }
    let mut text = Vec::new();
    std::fs::File::from(fd).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Returns the text of a file, or the names in a directory.
fn read(path: &Path) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned());
    }
    let entry = |entry: std::fs::DirEntry| {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        (
            entry.file_name().to_string_lossy().into_owned(),
            is_directory,
        )
    };
    let entries: std::io::Result<Vec<_>> =
        std::fs::read_dir(path)?.map(|one| one.map(entry)).collect();
    Ok(listing(entries?.into_iter()))
}

/// Returns names in lines, in their order. A directory has a slash.
fn listing(entries: impl Iterator<Item = (String, bool)>) -> String {
    let mut names: Vec<_> = entries.collect();
    names.sort();
    let line = |(name, is_directory): (String, bool)| match is_directory {
        true => format!("{name}/\n"),
        false => format!("{name}\n"),
    };
    names.into_iter().map(line).collect()
}

/// The slot of the one container of a file system that nobody serves.
const SLOT: u64 = 1;

fn compute(pid: i32) -> Result<(std::sync::Arc<FileSystem>, Vec<eci_fs_protocol::link::Row>)> {
    let pidfd = open_pidfd(pid)?;
    let described = describe(
        &Proc::open()?,
        pidfd.as_fd(),
        None,
        CgroupChoice::NamespaceRoot,
        None,
    )?;
    // A container that is not attached has no secrets of its own yet, so random ones do.
    let secrets = random()
        .and_then(Secrets::new)
        .map_err(|e| Error::io("get", "random bytes", e))?;
    let attached =
        Attached::new(&described.facts, &secrets, described.dirs).map_err(Error::refused)?;
    let host = Host::open().map_err(|e| Error::new(Kind::System, e.to_string()))?;
    let settings = Settings::default();
    let freshness = std::time::Duration::from_millis(settings.freshness_ms);
    let fs = FileSystem::new(host, None, view_settings(&settings), freshness);
    let rows = fs.add(SLOT, attached);
    Ok((fs, rows))
}

/// Prints two texts in columns, with a mark between lines that differ.
fn side_by_side(container: &str, host: &str) -> String {
    const WIDTH: usize = 48;
    let cut = |line: &str| -> String {
        let line = line.trim_end().replace('\t', " ");
        match line.char_indices().nth(WIDTH) {
            Some(_) => line.chars().take(WIDTH - 1).chain(['…']).collect(),
            None => line,
        }
    };
    let mut out = format!("  {:WIDTH$}  {}\n", "CONTAINER", "HOST");
    let (mut left, mut right) = (container.lines(), host.lines());
    loop {
        let (ours, theirs) = (left.next(), right.next());
        if ours.is_none() && theirs.is_none() {
            return out;
        }
        let same = ours.map(str::trim_end) == theirs.map(str::trim_end);
        let line = format!(
            "{} {:WIDTH$}  {}",
            if same { ' ' } else { '|' },
            cut(ours.unwrap_or_default()),
            cut(theirs.unwrap_or_default())
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_marked_and_missing_ones_are_empty() {
        let text = side_by_side("a  \nb\n", "a\nc\nd\n");
        let marks: Vec<char> = text
            .lines()
            .skip(1)
            .filter_map(|line| line.chars().next())
            .collect();
        assert_eq!(marks, [' ', '|', '|']);
    }
}
