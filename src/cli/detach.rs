//! `eci-fs detach`: removes all grafts from a container.

use clap::Args;
use eci_fs_protocol::control::{Request, Response};
use eci_fs_protocol::error::Result;

use super::Runtime;
use crate::cli::client::{Client, unexpected_answer};

/// Options of `eci-fs detach`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The container: any process of it, or its name
    #[arg(value_name = "PID|ID")]
    container: String,
    #[command(flatten)]
    runtime: Runtime,
}

#[allow(clippy::print_stdout, reason = "the answer of the command")]
pub(super) fn main(options: &Options) -> Result<()> {
    super::need_root("detach")?;
    let client = Client::connect(&options.runtime.runtime_dir)?
        .ok_or_else(|| super::no_daemon(&options.runtime))?;
    match client
        .call(Request::Detach(super::selector(&options.container)), &[])?
        .0
    {
        Response::Detached { id, grafts } => println!("{id}: {grafts} grafts removed"),
        other => return Err(unexpected_answer(&other)),
    }
    Ok(())
}
