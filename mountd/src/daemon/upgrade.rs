//! Another version of either program in the place of the one that runs, while containers read.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::operations::{Daemon, State};
use super::successor;
use crate::supervisor::{Program, Server};
use eci_fs_protocol::control::{Part, Response, Upgraded};
use eci_fs_protocol::error::{Error, Kind, Result};

/// How long the server that is replaced may take to answer what it has begun.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// How long to wait for one of its threads to leave before looking again.
const LEAVE_LIMIT: Duration = Duration::from_millis(20);

/// Threads that are called away at once, on each connection.
const CALLED_AT_ONCE: u64 = 8;

impl Daemon {
    /// Put the program at `path`, or the one that lies now where the running one was started from, in its place.
    ///
    /// # Errors
    /// When it cannot be started or does not answer: then all is as before.
    pub fn upgrade(&self, part: Part, path: Option<PathBuf>) -> Result<Response> {
        let _turn = self.begin()?;
        let upgraded = match part {
            Part::Daemon => successor::start(self, path)?,
            Part::Server => self.upgrade_server(path)?,
        };
        Ok(Response::Upgraded(upgraded))
    }

    fn upgrade_server(&self, path: Option<PathBuf>) -> Result<Upgraded> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let program = {
            let running = self.program.lock();
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
        let mut next = Server::start(
            &program,
            &mut state.connections,
            &state.belongings,
            &self.broker,
        )
        .map_err(stays)?;
        self.hand_over(&state.registry, &mut next).map_err(stays)?;
        // Neither is to be taken for one that hangs.
        self.answering.set(None);
        match self.exchange(state, &mut next) {
            Ok(()) => {}
            Err(error) => {
                drop(next);
                let resend = state.connections.can_resend();
                if let Some(server) = &mut state.server {
                    // It takes requests again, or was not told to leave. If it has ended, the loop starts another.
                    if let Err(error) = server.serve(resend) {
                        tracing::debug!(%error, "ignoring");
                    }
                    self.answering.set(Some(server.pidfd()));
                }
                return Err(stays(error));
            }
        }
        if let Some(old) = state.server.take() {
            self.watch.forget(old.pidfd());
        }
        let pid = next.pid();
        self.install(state, next)?;
        *self.program.lock() = program;
        tracing::info!(pid, %release, "another server has taken the place of the one that ran");
        Ok(Upgraded { pid, release })
    }

    /// Have the server that runs leave, and the next one answer.
    fn exchange(&self, state: &mut State, next: &mut Server) -> Result<()> {
        let can_resend = state.connections.can_resend();
        let drained = self.drain(state.server()?);
        if let Err(error) = drained {
            // Where requests can be sent again nothing is lost by ending it.
            if !can_resend {
                return Err(error);
            }
            tracing::warn!(%error, "ending it");
            state.server()?.kill();
        }
        next.serve(can_resend)?;
        if super::watchdog::answers(self) {
            Ok(())
        } else {
            Err(Error::new(
                Kind::System,
                "the new server does not answer requests",
            ))
        }
    }

    /// Have all threads of a server leave: each takes one more request, so requests are made.
    fn drain(&self, server: &mut Server) -> Result<()> {
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
            let (done, answered) = mpsc::channel();
            let times = usize::try_from(busy.min(CALLED_AT_ONCE)).unwrap_or(1);
            self.prober.poke(times, &done)?;
            // Whether one is answered or none, the server is asked again.
            let _ = answered.recv_timeout(LEAVE_LIMIT);
        }
    }
}

/// The program that lies now where `running` was started from.
///
/// # Errors
/// When that cannot be told, or there is none.
pub(super) fn as_installed(running: &Path) -> Result<PathBuf> {
    if running != Path::new("/proc/self/exe") {
        return Ok(running.to_owned());
    }
    let path = std::fs::read_link(running).map_err(|e| Error::io("read", running, e))?;
    let text = path.to_string_lossy();
    // The kernel says so of a file that was replaced by another one.
    let path = PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text));
    if path.exists() {
        Ok(path)
    } else {
        Err(Error::not_found(format!("there is no {}", path.display()))
            .remedy("install the new version there, or name it"))
    }
}

/// What the program at `path` says of itself: "eci-fs 0.1.0".
pub(super) fn release_of(path: &Path) -> Result<String> {
    let mut command = std::process::Command::new(path);
    command.arg("--version").stdin(std::process::Stdio::null());
    crate::service_manager::hide_from(&mut command);
    let output = command
        .output()
        .map_err(|e| Error::io("start", path, e).remedy("name a program of eci-fs"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let release = said.lines().next().unwrap_or_default().trim().to_owned();
    if output.status.success() && release.starts_with("eci-") && release.len() < 80 {
        Ok(release)
    } else {
        Err(
            Error::refused(format!("{} is no program of eci-fs", path.display()))
                .remedy("name one that says its version when it is called with --version"),
        )
    }
}
