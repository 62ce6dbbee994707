//! `eci-fs show`: prints one view of a container, the paths of all views, or the tunables that the container changed.
//!
//! The view of an attached container is read from the server, so that the output is what the container sees. The view
//! of any other process is computed here from the same facts, and needs no daemon.

mod tunables;

use std::io::Read;
use std::os::fd::AsFd;

use clap::Args;
use eci_fs_emulators::Host;
use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::container::{describe, open_pidfd};
use eci_fs_protocol::control::{CgroupChoice, Request, Selector};
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::link::{Secrets, Settings, random};

use super::Runtime;
use crate::cli::client::Client;
use crate::server::container::{Attached, view_settings};
use crate::server::fs::FileSystem;

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
    runtime: Runtime,
}

#[allow(clippy::print_stdout, reason = "the answer of the command")]
pub(super) fn main(options: &Options) -> Result<()> {
    super::need_root("show")?;
    let selector = super::selector(&options.container);
    if options.tunables {
        print!("{}", tunables::list(options, &selector)?);
        return Ok(());
    }
    let Some(path) = &options.path else {
        let Selector::Pid(pid) = selector else {
            return Err(Error::refused("the paths of all views are listed by pid")
                .remedy("see `eci-fs list` for it"));
        };
        for row in compute(pid)?.1 {
            println!("{:6}  {}", row.connection.name(), row.path);
        }
        return Ok(());
    };
    let text = view(options, &selector, path)?;
    if options.diff {
        let host = std::fs::read(path).map_err(|e| Error::io("read the host's", path, e))?;
        print!("{}", side_by_side(&text, &String::from_utf8_lossy(&host)));
    } else {
        print!("{text}");
    }
    Ok(())
}

fn view(options: &Options, selector: &Selector, path: &str) -> Result<String> {
    if let Some(client) = Client::connect(&options.runtime.runtime_dir)? {
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
                let mut text = String::new();
                std::fs::File::from(fd)
                    .read_to_string(&mut text)
                    .map_err(|e| Error::io("read", path, e).remedy("see the log of eci-mountd"))?;
                return Ok(text);
            }
            // A process that is not attached has computed views.
            (Err(error), Selector::Pid(_)) if error.kind == Kind::NotFound => {}
            (Err(error), _) => return Err(error),
        }
    } else if let Selector::Id(_) = selector {
        return Err(super::no_daemon(&options.runtime));
    }
    let Selector::Pid(pid) = selector else {
        return Err(super::no_daemon(&options.runtime));
    };
    let (fs, _) = compute(*pid)?;
    let text = fs.text(SLOT, path).map_err(|errno| {
        let error = Error::io(
            "compute the view of",
            path,
            std::io::Error::from_raw_os_error(errno.0),
        );
        error.remedy(format!("`eci-fs show {pid}` lists all views"))
    })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
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
    let fs = FileSystem::new(
        host,
        None,
        view_settings(&settings),
        settings.padding,
        freshness,
    );
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
