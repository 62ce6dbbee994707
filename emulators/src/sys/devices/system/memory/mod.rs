//! /sys/devices/system/memory: the container's memory, as one block.
//!
//! Format: drivers/base/memory.c.
//! Virtual: the size of the block, which is the container's memory; that there is one; its node.
//! Passed through: what is not about blocks, read-only.
//! Invented: that the block is online, and cannot be removed.

use crate::directory::{Decision, Directory, DirectoryFacts, family, hidden, join, split_first};
use crate::model::memory;
use crate::model::memory_block::{BLOCK, PATH, node};
use crate::text::put;
use crate::{Context, Error, Pace};

/// /sys/devices/system/memory.
#[derive(Debug)]
pub struct Memory;

/// The size of each block in bytes, in hexadecimal.
const SIZE: &str = "block_size_bytes";

/// The files of a block: name, permission bits, text.
const FILES: &[(&str, u16, &str)] = &[
    ("online", 0o644, "1\n"),
    ("phys_device", 0o444, "0\n"),
    ("phys_index", 0o444, "00000000\n"),
    ("removable", 0o444, "0\n"),
    ("state", 0o644, "online\n"),
    // The zones that the block could be put into. A block that cannot be taken out is in its own for good.
    ("valid_zones", 0o444, "none\n"),
];

/// The files that only take orders.
const ORDERS: &[&str] = &["hard_offline_page", "probe", "soft_offline_page"];

/// Returns the decision for a computed file.
fn view(mode: u16) -> Decision {
    Decision::View {
        mode,
        pace: Pace::Static,
    }
}

impl Directory for Memory {
    fn facts(&self) -> &DirectoryFacts {
        &DirectoryFacts {
            id: 140,
            path: PATH,
            mode: 0o755,
            views: &[SIZE, BLOCK],
        }
    }

    fn entry(&self, cx: &Context<'_>, rel: &str) -> Result<Decision, Error> {
        let (name, rest) = split_first(rel);
        Ok(match name {
            SIZE if rest.is_empty() => view(0o444),
            BLOCK => of_block(cx, rest)?,
            _ if family(name, "memory").is_some() || ORDERS.contains(&name) => Decision::Hidden,
            _ => Decision::Passthrough(join(PATH, rel)),
        })
    }

    fn names(&self, cx: &Context<'_>, rel: &str) -> Result<Vec<String>, Error> {
        let mut names = match self.entry(cx, rel)? {
            Decision::Passthrough(path) => cx.host.names(&path)?,
            Decision::Made => {
                let mut names = cx.host.names(&join(PATH, &sample(cx)?))?;
                names.retain(|name| family(name, "node").is_none());
                names.extend(node(cx).map(|node| format!("node{node}")));
                names
            }
            _ => return Err(hidden(rel)),
        };
        if rel.is_empty() {
            names.push(BLOCK.to_owned());
        }
        let mut shown = Vec::new();
        for name in names {
            if self.entry(cx, &join(rel, &name))? != Decision::Hidden {
                shown.push(name);
            }
        }
        shown.sort();
        shown.dedup();
        Ok(shown)
    }

    fn render(&self, cx: &Context<'_>, rel: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        if rel == SIZE {
            let host = memory::parse_host(&cx.host.read("/proc/meminfo")?)?;
            let bytes = memory::read(cx, &host)?.totals.memory;
            put(out, format_args!("{bytes:x}\n"));
            return Ok(());
        }
        let file = rel
            .strip_prefix(BLOCK)
            .and_then(|rest| rest.strip_prefix('/'));
        let (_, text) = file.and_then(file_of).ok_or_else(|| hidden(rel))?;
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Returns the permission bits and the text of a file of the block.
fn file_of(file: &str) -> Option<(u16, &'static str)> {
    let (_, mode, text) = FILES.iter().find(|(name, ..)| *name == file)?;
    Some((*mode, text))
}

/// Returns what the container sees at a path below its block. It has the files that a block of the host has.
fn of_block(cx: &Context<'_>, rest: &str) -> Result<Decision, Error> {
    if rest.is_empty() {
        return Ok(Decision::Made);
    }
    let path = format!("{PATH}/{}/{rest}", sample(cx)?);
    if let Some((mode, _)) = file_of(rest).filter(|_| cx.host.exists(&path)) {
        return Ok(view(mode));
    }
    let (name, below) = split_first(rest);
    Ok(match name {
        "power" | "subsystem" | "uevent" => Decision::Passthrough(path),
        _ if below.is_empty() && family(name, "node").is_some_and(|id| node(cx) == Some(id)) => {
            Decision::Link(format!("../../node/{name}"))
        }
        _ => Decision::Hidden,
    })
}

/// Returns the name of a block of the host.
fn sample(cx: &Context<'_>) -> Result<String, Error> {
    if cx.host.is_directory(&join(PATH, BLOCK)) {
        return Ok(BLOCK.to_owned());
    }
    let names = cx.host.names(PATH)?.into_iter();
    names
        .into_iter()
        .find(|name| family(name, "memory").is_some())
        .ok_or_else(|| Error::malformed(PATH, "no block of memory"))
}
