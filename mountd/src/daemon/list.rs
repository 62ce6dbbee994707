//! The list of containers, as commands ask for it. It can be asked for while an upgrade holds the state.

use std::os::fd::AsFd;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::containers::Containers;
use super::state::DaemonState;
use crate::container::has_ended;
use crate::isolation::range_of;
use crate::registry::Container;
use crate::threads;
use eci_fs_protocol::control::{LIST_PAGE, Listed, Response};

/// The time that a list waits for the state before it is taken from a copy.
const STATE_LIMIT: Duration = Duration::from_millis(100);

/// Returns one page of the list. A container that has ended is not on it, even if that has not been noticed yet. While an
/// upgrade is under way, the list has no figures of the server.
pub(super) fn list(containers: &Containers, after: Option<u64>) -> Response {
    let Some(state) = containers.shared.try_state(STATE_LIMIT) else {
        return match containers.list_copy.page(after) {
            Some((mut listed, more)) => {
                add_isolation(containers, &mut listed);
                let trouble = trouble(containers, after, |pid| {
                    let known = listed.iter().find(|listed| listed.pid == pid);
                    known.map(|listed| listed.id.clone())
                });
                Response::Containers {
                    containers: listed,
                    more,
                    trouble,
                }
            }
            None => list_now(containers, containers.shared.state(), after),
        };
    };
    list_now(containers, state, after)
}

fn list_now(
    containers: &Containers,
    mut state: MutexGuard<'_, DaemonState>,
    after: Option<u64>,
) -> Response {
    let there = |container: &Container| {
        let ended = has_ended(container.subject.pidfd.as_fd());
        !ended.unwrap_or(false)
    };
    let (mut listed, more) = state.registry.list(after, LIST_PAGE, there);
    let trouble = trouble(containers, after, |pid| {
        let mut all = state.registry.iter();
        let known = all.find(|(_, container)| container.subject.pid == pid);
        known.map(|(_, container)| container.id.clone())
    });
    add_isolation(containers, &mut listed);
    let slots = listed.iter().map(|listed| listed.slot).collect();
    // Without a server, or with one that takes long or is of another release, the list has no figures.
    let usage = state.slot.server().and_then(|server| server.usage(slots));
    match usage {
        Ok(usage) => {
            for listed in &mut listed {
                listed.usage = usage.get(&listed.slot).copied();
            }
        }
        Err(error) => tracing::debug!(%error, "the list has no figures of the server"),
    }
    Response::Containers {
        containers: listed,
        more,
        trouble,
    }
}

/// Notes the ranges of ids of containers, and whether a supervisor answers system calls of them. One that has ended meanwhile has
/// no range.
fn add_isolation(containers: &Containers, listed: &mut [Listed]) {
    for listed in listed {
        listed.range = range_of(&containers.proc, listed.pid).ok().flatten();
        listed.vetted = containers.calls.has(listed.pid);
    }
}

/// Returns what the first page says of containers that hang, whose names `name_of` knows by their pids, and of threads.
fn trouble(
    containers: &Containers,
    after: Option<u64>,
    name_of: impl Fn(i32) -> Option<String>,
) -> Vec<String> {
    if after.is_some() {
        return Vec::new();
    }
    let named = containers.grafter.hanging().into_iter().map(|pid| {
        let name = name_of(pid).map_or_else(String::new, |id| format!(" {id}"));
        format!("the container{name} of process {pid} does not let itself be looked into: a file system in it does not answer")
    });
    let mut trouble: Vec<String> = named.collect();
    trouble.extend(threads::trouble());
    trouble.extend(containers.calls.trouble());
    trouble
}
