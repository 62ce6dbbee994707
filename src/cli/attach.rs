//! `eci-fs attach`: grafts all views into a running container.

use std::os::fd::AsFd;

use clap::Args;
use eci_fs_mountd::container::open_pidfd;
use eci_fs_mountd::output::Output;
use eci_fs_protocol::control::{Attach, Attached, IdRange, Request, Response};
use eci_fs_protocol::error::Result;

use super::Runtime;
use crate::cli::client::{about_process, call_or_start, unexpected_answer};

/// Options of `eci-fs attach`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Any process of the container
    #[arg(value_parser = super::parse_pid)]
    pid: i32,
    /// The name of the container; `pid-PID` by default
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    pub(super) runtime: Runtime,
}

pub(super) fn main(options: &Options, out: &mut Output) -> Result<()> {
    super::need_root("attach")?;
    let pidfd = open_pidfd(options.pid)?;
    let request = Request::Attach(Attach {
        id: options.id.clone(),
        ..Attach::default()
    });
    let answered = call_or_start(
        &options.runtime.runtime_dir,
        None,
        &request,
        &[pidfd.as_fd()],
        options.runtime.change_limit(),
    );
    match answered
        .map_err(|error| about_process(error, options.pid))?
        .0
    {
        Response::Attached(attached) if attached.already => {
            let ids = ids(attached.range);
            let Attached { id, grafts, .. } = attached;
            writeln!(out, "{id}: attached already, {grafts} grafts{ids}");
        }
        Response::Attached(attached) => {
            let milliseconds = attached.took_usec as f64 / 1000.0;
            let ids = ids(attached.range);
            let Attached { id, grafts, .. } = attached;
            writeln!(out, "{id}: {grafts} grafts in {milliseconds:.1} ms{ids}");
        }
        other => return Err(unexpected_answer(&other)),
    }
    Ok(())
}

/// Returns the words about the ids of a container in a user namespace of its own; none for one in the host's.
fn ids(range: Option<IdRange>) -> String {
    range.map_or_else(String::new, |IdRange { first_id, ids }| {
        format!(", {ids} ids from {first_id} on")
    })
}
