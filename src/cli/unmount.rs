//! `eci-fs unmount`: removes a directory that `eci-fs mount` made.

use std::path::PathBuf;

use clap::Args;
use eci_fs_protocol::control::{Request, Response};
use eci_fs_protocol::error::{Error, Result};

use super::Runtime;
use crate::cli::client::{Client, unexpected_answer};

/// Options of `eci-fs unmount`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The directory that `eci-fs mount` printed
    dir: PathBuf,
    #[command(flatten)]
    runtime: Runtime,
}

pub(super) fn main(options: &Options) -> Result<()> {
    super::need_root("unmount")?;
    let client = Client::connect(&options.runtime.runtime_dir)?
        .ok_or_else(|| super::no_daemon(&options.runtime))?;
    let dir =
        std::fs::canonicalize(&options.dir).map_err(|e| Error::io("resolve", &options.dir, e))?;
    match client.call(Request::Unmount { dir }, &[])?.0 {
        Response::Unmounted => Ok(()),
        other => Err(unexpected_answer(&other)),
    }
}
