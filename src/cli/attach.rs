//! `eci-fs attach`: grafts all views into a running container.

use std::os::fd::AsFd;

use clap::Args;
use eci_fs_mountd::container::open_pidfd;
use eci_fs_protocol::control::{Attach, Request, Response};
use eci_fs_protocol::error::Result;

use super::Runtime;
use crate::cli::client::{about_process, call_or_start, unexpected_answer};

/// Options of `eci-fs attach`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Any process of the container
    pid: i32,
    /// The name of the container; `pid-PID` by default
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    runtime: Runtime,
}

#[allow(clippy::print_stdout, reason = "the answer of the command")]
pub(super) fn main(options: &Options) -> Result<()> {
    super::need_root("attach")?;
    let pidfd = open_pidfd(options.pid)?;
    let request = Request::Attach(Attach {
        id: options.id.clone(),
        ..Attach::default()
    });
    let answered = call_or_start(&options.runtime.runtime_dir, &request, &[pidfd.as_fd()]);
    match answered
        .map_err(|error| about_process(error, options.pid))?
        .0
    {
        Response::Attached(attached) if attached.already => {
            println!(
                "{}: attached already, {} grafts",
                attached.id, attached.grafts
            );
        }
        Response::Attached(attached) => {
            let milliseconds = attached.took_usec as f64 / 1000.0;
            println!(
                "{}: {} grafts in {milliseconds:.1} ms",
                attached.id, attached.grafts
            );
        }
        other => return Err(unexpected_answer(&other)),
    }
    Ok(())
}
