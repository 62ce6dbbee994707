//! `eci-fs show --tunables`: the tunables that a container changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use eci_fs_emulators::TUNABLES;
use eci_fs_mountd::host_sysctls::record::{self, Raised, SysctlRecord};
use eci_fs_mountd::runtime_dir::RuntimeDir;
use eci_fs_protocol::control::Selector;
use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::host_sysctl::HostSysctl;

use super::{Options, SLOT, compute, view};
use crate::cli::absent;

/// Returns a line for each tunable with a changed value: the path, the value, and the first value.
pub(super) fn list(options: &Options, selector: &Selector) -> Result<String> {
    let (containers, _) = absent::list(&options.runtime)?;
    let is_it = |id: &str, pid: i32| match selector {
        Selector::Id(wanted) => id == wanted,
        Selector::Pid(wanted) => pid == *wanted,
    };
    let found = containers.iter().find(|c| is_it(&c.id, c.pid));
    let pid = match (found, selector) {
        (Some(container), _) => container.pid,
        // The pid is that of another process of the container.
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
        // A tunable that can only be written has no value.
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
            // A value that the container sees and did not set is the host's.
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

/// Returns the sysctls that are raised on the host.
fn raised(options: &Options) -> Result<BTreeMap<HostSysctl, SysctlRecord>> {
    let runtime = match RuntimeDir::open(&options.runtime.runtime_dir) {
        Err(error) if error.kind == Kind::NotFound => return Ok(BTreeMap::new()),
        other => other?,
    };
    record::read_here(&runtime)
}

/// Returns the text in one line: the tabs between the numbers of a vector become spaces.
fn one_line(text: &str) -> String {
    text.trim_end().replace('\t', " ")
}
