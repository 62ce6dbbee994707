//! `eci-fs detach`: removes all grafts from a container.

use clap::Args;
use eci_fs_mountd::output::Output;
use eci_fs_protocol::control::{Request, Response};
use eci_fs_protocol::error::Result;

use super::Runtime;
use super::absent::{self, Found};
use crate::cli::client::unexpected_answer;

/// Options of `eci-fs detach`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The container: any process of it, or its name
    #[arg(value_name = "PID|ID")]
    container: String,
    #[command(flatten)]
    pub(super) runtime: Runtime,
}

pub(super) fn main(options: &Options, out: &mut Output) -> Result<()> {
    super::need_root("detach")?;
    let selector = super::selector(&options.container);
    let client = match absent::find(&options.runtime)? {
        Found::Daemon(client) => client,
        Found::Absent(absent) => {
            return Err(match absent.select(&selector) {
                Some(container) => absent.cannot("detached", container),
                None if absent.is_dead() => {
                    let what = format!("{} is none of its containers", options.container);
                    absent.error().context(what)
                }
                None => absent.error(),
            });
        }
    };
    match client.call(Request::Detach(selector), &[])?.0 {
        Response::Detached { id, grafts } => writeln!(out, "{id}: {grafts} grafts removed"),
        other => return Err(unexpected_answer(&other)),
    }
    Ok(())
}
