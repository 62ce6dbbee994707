//! The event loop: it hears of commands, signals, and the ends of containers and of the server.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;

use super::accept::{Reserve, accept};
use super::backoff::Backoff;
use super::daemon::Daemon;
use super::ended;
use super::event_set::{CHECK, FIRST_SLOT, LISTENER, REQUEST, SERVER, SIGNALS, START, WAKE};
use super::options::Options;
use super::prepare;
use super::standard_streams::announce;
use super::timer::Timer;
use super::watchdog;
use crate::service_manager;
use eci_fs_protocol::error::Result;

/// The time after which the start of a server is tried again that was refused.
const RETRY: Duration = Duration::from_millis(100);

/// Says that the daemon is ready, and serves until it is to end. Nothing is waited for here that a server answers.
///
/// # Errors
/// When there are no more descriptors or threads, or the epoll set fails.
pub(super) fn run(daemon: &Arc<Daemon>, signals: &SignalFd, options: &Options) -> Result<()> {
    let events = &daemon.containers.events;
    let connections = Arc::new(AtomicUsize::new(0));
    let mut backoff = Backoff::default();
    let (check_timer, start_timer) = (Timer::new()?, Timer::new()?);
    events.add(check_timer.as_fd(), CHECK)?;
    events.add(start_timer.as_fd(), START)?;
    let check = daemon.supervision.watchdog.start()?;
    let ended = ended::start_removing(&daemon.containers)?;
    prepare::start(&daemon.containers)?;
    daemon.supervision.watchdog.hear_of_requests(true);
    if options.background && !options.successor {
        announce()?;
    }
    service_manager::ready();
    tracing::info!(pid = std::process::id(), "ready");
    let mut reserve = Reserve::default();
    let mut buffer = Vec::with_capacity(64);
    loop {
        events.wait(&mut buffer)?;
        for event in buffer.drain(..) {
            match event.data.u64() {
                LISTENER => {
                    // The successor accepts whoever connects after it has taken our place.
                    if let Some(endpoint) = &daemon.endpoint {
                        if daemon.end.is_handed_over() {
                            events.remove(endpoint.listener.as_fd());
                            continue;
                        }
                        accept(daemon, &endpoint.listener, &connections, &mut reserve);
                    }
                }
                SIGNALS => {
                    if let Ok(Some(signal)) = signals.read_signal() {
                        tracing::info!(signal = signal.ssi_signo, "ending");
                        return Ok(());
                    }
                }
                SERVER => {
                    if !daemon.shared.state().slot.has_died() {
                        continue;
                    }
                    tracing::error!("the server died; starting another one");
                    daemon.supervision.let_go();
                    start_server(daemon, &mut backoff, &start_timer);
                }
                START => {
                    start_timer.clear();
                    start_server_now(daemon, &mut backoff, &start_timer);
                }
                token if (REQUEST..CHECK).contains(&token) => check_timer.set(watchdog::AFTER),
                CHECK => {
                    check_timer.clear();
                    // The thread ends with the daemon only.
                    let _ = check.send(());
                }
                WAKE => {
                    events.clear_wake();
                    let idle =
                        || daemon.containers.isolation.is_idle() && daemon.shared.is_idle(true);
                    if daemon.end.is_over() || (options.background && idle()) {
                        return Ok(());
                    }
                }
                token => {
                    // The thread ends with the daemon only.
                    let _ = ended.send(token.saturating_sub(FIRST_SLOT));
                }
            }
        }
    }
}

/// Starts a server at once, or later if servers die in a loop.
fn start_server(daemon: &Daemon, backoff: &mut Backoff, timer: &Timer) {
    let delay = backoff.delay(Instant::now());
    if delay.is_zero() {
        start_server_now(daemon, backoff, timer);
    } else {
        tracing::error!(
            ?delay,
            "the server keeps dying: waiting before the next one"
        );
        timer.set(delay);
    }
}

fn start_server_now(daemon: &Daemon, backoff: &mut Backoff, timer: &Timer) {
    if let Err(error) = daemon.supervision.start(true) {
        let delay = backoff.delay(Instant::now()).max(RETRY);
        tracing::error!(%error, ?delay, "no server can be started; trying again");
        timer.set(delay);
    }
}
