//! `eci-fs list`: prints the attached and the mounted containers.

use clap::Args;
use eci_fs_mountd::container::procfs::Proc;
use eci_fs_protocol::control::Listed;
use eci_fs_protocol::error::{Error, Result};

use serde::Serialize;

use super::Runtime;
use super::fresh_procfs::FreshProcfs;
use crate::cli::client::Client;

/// Options of `eci-fs list`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// As JSON: an array with id, slot, pid, grafts, mounts and fresh_procfs of each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    runtime: Runtime,
}

/// One container of the list.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    listed: Listed,
    /// Whether it can mount a procfs that shows the figures of the host.
    fresh_procfs: FreshProcfs,
}

#[allow(clippy::print_stdout, reason = "the answer of the command")]
pub(super) fn main(options: &Options) -> Result<()> {
    super::need_root("list")?;
    // Without a daemon nothing is attached, so the list is empty. That is no error.
    let containers = Client::list_of(&options.runtime.runtime_dir)?;
    let proc = Proc::open()?;
    let rows: Vec<Row> = containers
        .into_iter()
        .map(|listed| Row {
            fresh_procfs: FreshProcfs::of(&proc, listed.pid),
            listed,
        })
        .collect();
    if options.json {
        let text = serde_json::to_string_pretty(&rows)
            .map_err(|e| Error::io("encode", "the list", std::io::Error::from(e)))?;
        println!("{text}");
        return Ok(());
    }
    let width = rows
        .iter()
        .map(|row| row.listed.id.len())
        .max()
        .unwrap_or(0)
        .max("CONTAINER".len());
    println!(
        "{:width$}  {:>8}  {:>6}  {:<12}  MOUNTED AT",
        "CONTAINER", "PID", "GRAFTS", "FRESH PROCFS"
    );
    for Row {
        listed: container,
        fresh_procfs,
    } in &rows
    {
        let mounts: Vec<String> = container
            .mounts
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        let line = format!(
            "{:width$}  {:>8}  {:>6}  {:<12}  {}",
            container.id,
            container.pid,
            container.grafts,
            fresh_procfs.word(),
            mounts.join(" ")
        );
        println!("{}", line.trim_end());
    }
    Ok(())
}
