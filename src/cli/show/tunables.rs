//! `eci-fs show --tunables`: what a container has made of its tunables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use eci_fs_emulators::TUNABLES;
use eci_fs_mountd::host_sysctls::record::{self, Raised, SysctlRecord};
use eci_fs_mountd::runtime_dir::RuntimeDir;
use eci_fs_protocol::control::Selector;
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::host_sysctl::HostSysctl;

use super::{Options, SLOT, compute, view};
use crate::cli::client::Client;

/// A line for each tunable whose value is not what it began with: the path, the value, and the first one.
pub(super) fn list(options: &Options, selector: &Selector) -> Result<String> {
    let containers = Client::list_of(&options.runtime.runtime_dir)?;
    let is_it = |id: &str, pid: i32| match selector {
        Selector::Id(wanted) => id == wanted,
        Selector::Pid(wanted) => pid == *wanted,
    };
    let found = containers.iter().find(|c| is_it(&c.id, c.pid));
    let pid = match (found, selector) {
        (Some(container), _) => container.pid,
        // Any other process of it.
        (None, Selector::Pid(pid)) => *pid,
        (None, Selector::Id(id)) => {
            return Err(Error::not_found(format!("no container {id} is attached"))
                .remedy("see `eci-fs list`"));
        }
    };
    let (fs, rows) = compute(pid)?;
    let raised = raised(options)?;
    let slot = found.map(|container| container.slot);
    let mut out = String::new();
    let served = |path: &str| rows.iter().any(|row| row.path == path);
    let all = TUNABLES.iter().copied().flatten();
    for path in all
        .map(|tunable| tunable.path())
        .filter(|path| served(path))
    {
        let first = fs.text(SLOT, path).map_err(|errno| {
            let error = std::io::Error::from_raw_os_error(errno.0);
            Error::io("compute the view of", path, error)
        })?;
        // What only can be written has no value.
        if first.is_empty() {
            continue;
        }
        let (first, own) = (
            one_line(&String::from_utf8_lossy(&first)),
            view(options, selector, path)?,
        );
        let own = one_line(&own);
        let entry = HostSysctl::of_path(path).and_then(|tunable| raised.get(&tunable));
        if let Some((entry, raised)) = entry.and_then(|entry| Some((entry, entry.raised?))) {
            // What it sees without having set it is the machine's.
            let asked = slot.is_some_and(|slot| entry.requests.contains_key(&slot));
            if asked || own != raised.set.to_string() {
                let Raised { original, set, .. } = raised;
                let machine = format!("the machine's is raised from {original} to {set}");
                let _ = writeln!(out, "{path}  {own}  (at first {original}; {machine})");
            }
        } else if own != first {
            let _ = writeln!(out, "{path}  {own}  (at first {first})");
        }
    }
    Ok(out)
}

/// What is raised on the machine.
fn raised(options: &Options) -> Result<BTreeMap<HostSysctl, SysctlRecord>> {
    let runtime = match RuntimeDir::open(&options.runtime.runtime_dir) {
        Err(error) if error.kind == Kind::NotFound => return Ok(BTreeMap::new()),
        other => other?,
    };
    record::read_here(&runtime)
}

/// A vector has tabs between its numbers.
fn one_line(text: &str) -> String {
    text.trim_end().replace('\t', " ")
}
