//! `eci-fs show --tunables`: what a container has made of its tunables.

use std::fmt::Write as _;

use eci_fs_emulators::TUNABLES;
use eci_fs_mountd::error::{Error, Result};
use eci_fs_mountd::protocol::control::Selector;

use super::{Options, SLOT, compute, view};
use crate::client::Client;

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
    let (tree, rows) = compute(pid)?;
    let mut out = String::new();
    let served = |path: &str| rows.iter().any(|row| row.path == path);
    let all = TUNABLES.iter().copied().flatten();
    for path in all
        .map(|tunable| tunable.path())
        .filter(|path| served(path))
    {
        let first = tree.text(SLOT, path).map_err(|errno| {
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
        if own != first {
            let _ = writeln!(out, "{path}  {own}  (at first {first})");
        }
    }
    Ok(out)
}

/// A vector has tabs between its numbers.
fn one_line(text: &str) -> String {
    text.trim_end().replace('\t', " ")
}
