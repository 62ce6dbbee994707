//! `eci-fs list`: prints the attached and the mounted containers.

use clap::Args;
use eci_fs_protocol::error::{Error, Result};

use super::Runtime;
use crate::cli::client::Client;

/// Options of `eci-fs list`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// As JSON: an array with id, slot, pid, grafts and mounts of each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    runtime: Runtime,
}

#[allow(clippy::print_stdout, reason = "the answer of the command")]
pub(super) fn main(options: &Options) -> Result<()> {
    super::need_root("list")?;
    // Without a daemon nothing is attached, so the list is empty. That is no error.
    let containers = Client::list_of(&options.runtime.runtime_dir)?;
    if options.json {
        let text = serde_json::to_string_pretty(&containers)
            .map_err(|e| Error::io("encode", "the list", std::io::Error::from(e)))?;
        println!("{text}");
        return Ok(());
    }
    let width = containers
        .iter()
        .map(|c| c.id.len())
        .max()
        .unwrap_or(0)
        .max("CONTAINER".len());
    println!(
        "{:width$}  {:>8}  {:>6}  MOUNTED AT",
        "CONTAINER", "PID", "GRAFTS"
    );
    for container in &containers {
        let mounts: Vec<String> = container
            .mounts
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        let line = format!(
            "{:width$}  {:>8}  {:>6}  {}",
            container.id,
            container.pid,
            container.grafts,
            mounts.join(" ")
        );
        println!("{}", line.trim_end());
    }
    Ok(())
}
