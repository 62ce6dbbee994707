//! Another version of the server in the place of the one that runs, while containers read.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::event_set::EventSet;
use super::installed::{as_installed, release_of};
use super::state::DaemonState;
use super::supervision::Supervision;
use super::watchdog::Watchdog;
use crate::supervisor::{Program, Server};
use eci_fs_protocol::control::Upgraded;
use eci_fs_protocol::error::{Error, Kind, Result};

/// The time that the server which is replaced has to answer what it has begun.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// The time to wait for one of its threads to leave before it is asked again.
const LEAVE_LIMIT: Duration = Duration::from_millis(20);

/// Threads that are called away at once, on each connection.
const CALLED_AT_ONCE: u64 = 8;

/// Puts the program at `path`, or the one that lies now where the running one was started from, in the place of the
/// server.
///
/// # Errors
/// When it cannot be started or does not answer: then all is as before.
pub(super) fn upgrade(
    supervision: &Supervision,
    state: &mut DaemonState,
    path: Option<PathBuf>,
) -> Result<Upgraded> {
    let program = {
        let running = supervision.program.lock();
        Program {
            path: match path {
                Some(path) => path,
                None => as_installed(&running.path)?,
            },
            settings: running.settings.clone(),
        }
    };
    let release = release_of(&program.path)?;
    let stays = |error: Error| error.context("the server that runs goes on");
    let mut next = state
        .slot
        .start(&program, &supervision.broker)
        .map_err(stays)?;
    supervision
        .hand_over(&state.registry, &mut next)
        .map_err(stays)?;
    // Neither is to be taken for one that hangs.
    supervision.watchdog.watch(None);
    if let Err(error) = exchange(&supervision.watchdog, state, &mut next) {
        drop(next);
        let resend = state.slot.connections().can_resend();
        if let Ok(server) = state.slot.server() {
            // It takes requests again, or was not told to leave. If it has ended, the loop starts another.
            if let Err(error) = server.serve(resend) {
                tracing::debug!(%error, "ignoring");
            }
            supervision.watchdog.watch(Some(server.pidfd()));
        }
        return Err(stays(error));
    }
    remove_old(&supervision.events, state);
    let pid = next.pid();
    supervision.install(state, next)?;
    *supervision.program.lock() = program;
    tracing::info!(pid, %release, "another server has taken the place of the one that ran");
    Ok(Upgraded { pid, release })
}

fn remove_old(events: &EventSet, state: &mut DaemonState) {
    if let Some(old) = state.slot.take() {
        events.remove(old.pidfd());
    }
}

/// Has the server that runs leave, and the next one answer.
fn exchange(watchdog: &Watchdog, state: &mut DaemonState, next: &mut Server) -> Result<()> {
    let can_resend = state.slot.connections().can_resend();
    let running = state.slot.server()?;
    if let Err(error) = drain(watchdog, running) {
        // Where requests can be sent again nothing is lost by ending it.
        if !can_resend {
            return Err(error);
        }
        tracing::warn!(%error, "ending it");
        running.kill();
    }
    next.serve(can_resend)?;
    if watchdog.answers() {
        Ok(())
    } else {
        Err(Error::new(
            Kind::System,
            "the new server does not answer requests",
        ))
    }
}

/// Has all threads of a server leave. Each takes one more request, so requests are made.
fn drain(watchdog: &Watchdog, server: &mut Server) -> Result<()> {
    server.drain()?;
    let end = Instant::now() + DRAIN_LIMIT;
    loop {
        let busy = server.busy()?;
        if busy == 0 {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(Error::new(
                Kind::Busy,
                format!("the server has {busy} requests that it does not come to an end with"),
            )
            .remedy("try again"));
        }
        let count = usize::try_from(busy.min(CALLED_AT_ONCE)).unwrap_or(1);
        watchdog.make_requests(count, LEAVE_LIMIT)?;
    }
}
