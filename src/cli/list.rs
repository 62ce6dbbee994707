//! `eci-fs list`: prints the attached and the mounted containers.

use clap::Args;
use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::output::{Output, print_error};
use eci_fs_protocol::control::Listed;
use eci_fs_protocol::error::{Error, Result};
use serde::Serialize;

use super::fresh_procfs::FreshProcfs;
use super::{PROGRAM, Runtime, absent};

/// Options of `eci-fs list`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// As JSON: an array with id, slot, pid, grafts, locked, vetted, mounts, usage, range and fresh_procfs of each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) runtime: Runtime,
}

/// One container of the list.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    listed: Listed,
    /// The answer to the question whether it can mount a procfs that shows the figures of the host.
    fresh_procfs: FreshProcfs,
}

pub(super) fn main(options: &Options, out: &mut Output) -> Result<()> {
    super::need_root("list")?;
    let (containers, absent) = absent::list(&options.runtime)?;
    // A list of what a dead daemon has left is a list, and the exit code says that something is wrong. Where there is
    // nothing to look at there is no list.
    if let Some(absent) = absent
        .as_ref()
        .filter(|absent| absent.is_wrong() && !absent.is_dead())
    {
        return Err(absent.error());
    }
    print(options, containers, out)?;
    match absent {
        Some(absent) if absent.is_dead() => Err(absent.error()),
        Some(absent) => {
            print_error(PROGRAM, absent.error().what);
            Ok(())
        }
        None => Ok(()),
    }
}

fn print(options: &Options, containers: Vec<Listed>, out: &mut Output) -> Result<()> {
    let proc = Proc::open()?;
    let rows: Vec<Row> = containers
        .into_iter()
        .map(|listed| Row {
            fresh_procfs: FreshProcfs::of(&proc, &listed),
            listed,
        })
        .collect();
    if options.json {
        let text = serde_json::to_string_pretty(&rows)
            .map_err(|e| Error::io("encode", "the list", std::io::Error::from(e)))?;
        writeln!(out, "{text}");
        return Ok(());
    }
    let width = rows
        .iter()
        .map(|row| row.listed.id.len())
        .max()
        .unwrap_or(0)
        .max("CONTAINER".len());
    writeln!(
        out,
        "{:width$}  {:>8}  {:>6}  {:<6}  {:<6}  {:>10}  {:<12}  {:<21}  MOUNTED AT",
        "CONTAINER", "PID", "GRAFTS", "LOCKED", "VETTED", "SERVER CPU", "FRESH PROCFS", "IDS"
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
            "{:width$}  {:>8}  {:>6}  {:<6}  {:<6}  {:>10}  {:<12}  {:<21}  {}",
            container.id,
            container.pid,
            container.grafts,
            if container.locked { "yes" } else { "no" },
            if container.vetted { "yes" } else { "no" },
            cpu_time(container),
            fresh_procfs.word(),
            ids(container),
            mounts.join(" ")
        );
        writeln!(out, "{}", line.trim_end());
    }
    Ok(())
}

/// Returns the ids of the host that a container has in a user namespace of its own: the first and the last one.
fn ids(container: &Listed) -> String {
    container.range.map_or_else(
        || "-".to_owned(),
        |range| {
            let last = u64::from(range.first_id) + u64::from(range.ids) - 1;
            format!("{}-{last}", range.first_id)
        },
    )
}

/// Returns the CPU time that the server has spent for a container, in seconds.
fn cpu_time(container: &Listed) -> String {
    container.usage.map_or_else(
        || "-".to_owned(),
        |usage| {
            format!(
                "{}.{:02} s",
                usage.cpu_usec / 1_000_000,
                usage.cpu_usec / 10_000 % 100
            )
        },
    )
}
