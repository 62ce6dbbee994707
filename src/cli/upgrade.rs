//! `eci-fs upgrade`: replaces the running programs by other versions, while containers read.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use eci_fs_mountd::output::Output;
use eci_fs_protocol::control::{Part, Request, Response, Upgraded};
use eci_fs_protocol::error::{Error, Result};

use super::{Runtime, absent};
use crate::cli::client::{Client, unexpected_answer};

/// Options of `eci-fs upgrade`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The new eci-mountd (or eci-fs), if it does not lie where the running one was started from
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,

    /// The new eci-fs, if it does not lie where the running server was started from
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,

    /// Replace one of the two alone
    #[arg(long, value_name = "PROGRAM")]
    only: Option<Only>,

    #[command(flatten)]
    pub(super) runtime: Runtime,
}

/// One of the two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    /// eci-mountd
    Daemon,
    /// eci-fs serve
    Server,
}

pub(super) fn main(options: &Options, out: &mut Output) -> Result<()> {
    super::need_root("upgrade")?;
    // The daemon comes first: the new daemon knows how to start the new server.
    for (part, path) in [
        (Part::Daemon, &options.daemon),
        (Part::Server, &options.server),
    ] {
        let wanted = match options.only {
            Some(Only::Daemon) => part == Part::Daemon,
            Some(Only::Server) => part == Part::Server,
            None => true,
        };
        if !wanted {
            continue;
        }
        let path = path.as_deref().map(absolute).transpose()?;
        let runtime = &options.runtime;
        let client = Client::connect(&runtime.runtime_dir, runtime.change_limit())?
            .ok_or_else(|| absent::error(runtime))?;
        let Upgraded { pid, release } = match client.call(Request::Upgrade { part, path }, &[])?.0 {
            Response::Upgraded(upgraded) => upgraded,
            other => return Err(unexpected_answer(&other)),
        };
        let name = match part {
            Part::Daemon => "daemon",
            Part::Server => "server",
        };
        writeln!(out, "{name}: {release}, process {pid}");
    }
    Ok(())
}

/// Returns the absolute path. The daemon has another working directory.
fn absolute(path: &std::path::Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("find", path, e))
}
