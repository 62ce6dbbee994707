//! `eci-fs unmount`: removes a directory that `eci-fs mount` made.

use std::path::PathBuf;

use clap::Args;
use eci_fs_protocol::control::{Request, Response};
use eci_fs_protocol::error::{Error, Result};

use super::Runtime;
use super::absent::{self, Found, START};
use crate::cli::client::unexpected_answer;

/// Options of `eci-fs unmount`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The directory that `eci-fs mount` printed
    dir: PathBuf,
    #[command(flatten)]
    pub(super) runtime: Runtime,
}

pub(super) fn main(options: &Options) -> Result<()> {
    super::need_root("unmount")?;
    let found = absent::find(&options.runtime)?;
    let dir =
        std::fs::canonicalize(&options.dir).map_err(|e| Error::io("resolve", &options.dir, e))?;
    let client = match found {
        Found::Daemon(client) => client,
        Found::Absent(absent) => {
            return Err(match absent.select_mount(&dir) {
                Some(container) => absent
                    .cannot("unmounted", container)
                    .remedy(format!("`umount -R {}`, or {START}", dir.display())),
                None => absent.error(),
            });
        }
    };
    match client.call(Request::Unmount { dir }, &[])?.0 {
        Response::Unmounted => Ok(()),
        other => Err(unexpected_answer(&other)),
    }
}
