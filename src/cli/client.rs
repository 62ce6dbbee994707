//! The commands' side of the control protocol. It also starts a daemon where none runs.

use std::io::{BufRead, BufReader};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eci_fs_mountd::config::{Config, Location};
use eci_fs_mountd::container::open_pidfd;
use eci_fs_mountd::runtime_dir::RuntimeDir;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{Answer, Call, Listed, Request, Response, VERSION};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::cli::program;

/// The time that a command waits for one answer. Attaching takes milliseconds; the limit is for a daemon that hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The time that a command waits for the daemon that holds the lock to end. Then it connects again, because that
/// daemon may be starting and not ending.
const ENDING_LIMIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// The number of attempts when a daemon starts or ends while it is asked: five seconds in all.
const ATTEMPTS: usize = 100;

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    /// The time limit for one answer.
    limit: Duration,
}

impl Client {
    /// Connects to the daemon of a runtime directory. Returns none when no daemon runs.
    ///
    /// # Errors
    /// When the directory cannot be trusted, or the socket cannot be connected to.
    pub fn connect(runtime_dir: &Path) -> Result<Option<Self>> {
        Self::connect_within(runtime_dir, ANSWER_LIMIT)
    }

    /// Connects like [`Self::connect`], with `limit` as the time limit for each step.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_within(runtime_dir: &Path, limit: Duration) -> Result<Option<Self>> {
        let runtime = match RuntimeDir::open(runtime_dir) {
            Ok(runtime) => runtime,
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = runtime.socket();
        match Channel::connect(&path, Some(limit)) {
            Ok(Some(channel)) => Self::over(channel, limit).map(Some),
            // There is no socket, or a killed daemon left it.
            Ok(None) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(no_answer(limit)),
            Err(error) => Err(Error::io("connect to", &path, error)),
        }
    }

    fn over(channel: Channel, limit: Duration) -> Result<Self> {
        channel
            .set_timeout(Some(limit))
            .map_err(|e| Error::io("set up", "the connection", e))?;
        Ok(Self { channel, limit })
    }

    /// Sends one request and does not wait for an answer. A daemon that refuses the connection says so in the next
    /// answer.
    ///
    /// # Errors
    /// When the request cannot be sent.
    pub fn send(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let version = VERSION;
        match self.channel.send(&Call { version, request }, fds) {
            Err(error) if !is_closed(&error) => Err(Error::io("speak to", "eci-mountd", error)),
            _ => Ok(()),
        }
    }

    /// Sends one request with descriptors, and returns the answer.
    ///
    /// # Errors
    /// The error that the daemon answered, or that it gave no answer. [`Kind::Busy`] when the daemon is ending.
    pub fn call(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Response, Vec<OwnedFd>)> {
        self.send(request, fds)?;
        let mut answer = self.channel.recv::<Answer>();
        if answer.as_ref().is_err_and(is_closed) {
            // A daemon that refuses the connection sends the reason first. The closed connection is reported before
            // that answer.
            answer = self.channel.recv();
        }
        match answer {
            Ok(Some((answer, _))) if answer.version != VERSION => Err(Error::new(
                Kind::Version,
                format!(
                    "eci-mountd speaks version {} of the protocol, this command {VERSION}",
                    answer.version
                ),
            )
            .remedy("install both from the same release, and restart eci-mountd")),
            Ok(Some((
                Answer {
                    response: Response::Failed(error),
                    ..
                },
                _,
            ))) => Err(error),
            Ok(Some((answer, fds))) => Ok((answer.response, fds)),
            Ok(None) => Err(Error::ending()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                Err(Error::ending())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(no_answer(self.limit))
            }
            Err(error) => Err(Error::io("hear from", "eci-mountd", error)),
        }
    }

    /// Returns all containers of the daemon of a runtime directory. The list is empty when no daemon runs or it is
    /// ending.
    ///
    /// # Errors
    /// As [`Self::connect`] and [`Self::call`].
    pub fn list_of(runtime_dir: &Path) -> Result<Vec<Listed>> {
        match Self::connect(runtime_dir)? {
            None => Ok(Vec::new()),
            Some(client) => match client.list() {
                Err(error) if is_ending(&error) => Ok(Vec::new()),
                other => other,
            },
        }
    }

    /// Returns all containers of the daemon.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut all: Vec<Listed> = Vec::new();
        loop {
            let after = all.last().map(|listed| listed.slot);
            match self.call(Request::List { after }, &[])?.0 {
                Response::Containers { containers, more } => {
                    let stuck = containers.is_empty();
                    all.extend(containers);
                    if !more || stuck {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected_answer(&other)),
            }
        }
    }
}

fn no_answer(limit: Duration) -> Error {
    Error::new(
        Kind::System,
        format!("eci-mountd did not answer within {limit:?}"),
    )
    .remedy("see its log, and restart it")
}

/// Returns whether the error says that the daemon is ending.
fn is_ending(error: &Error) -> bool {
    error.reason == Some(Reason::Ending)
}

/// Replaces the daemon's words about a pidfd by words about the pid that the user typed.
pub fn about_process(error: Error, pid: i32) -> Error {
    match error.reason {
        Some(Reason::ProcessEnded) => Error::not_found(format!("process {pid} has ended"))
            .remedy("see `ps -e` for one that runs"),
        _ => error,
    }
}

/// Returns the error for an answer of the wrong kind.
pub fn unexpected_answer(response: &Response) -> Error {
    Error::refused(format!("eci-mountd answered out of turn: {response:?}"))
}

/// Returns whether the other end is closed.
fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

/// Calls the daemon of `runtime_dir`. If none runs, starts one in the background, which ends with its last container.
///
/// # Errors
/// When the daemon does not start, and any error that it answers.
pub fn call_or_start(
    runtime_dir: &Path,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<(Response, Vec<OwnedFd>)> {
    call_or_start_within(runtime_dir, None, request, fds, ANSWER_LIMIT)
}

/// Calls the daemon like [`call_or_start`], with `limit` as the time limit for an answer. A daemon that is started reads
/// the configuration `config`, or the one of the environment.
///
/// # Errors
/// As [`call_or_start`].
pub fn call_or_start_within(
    runtime_dir: &Path,
    config: Option<&Path>,
    request: &Request,
    fds: &[BorrowedFd<'_>],
    limit: Duration,
) -> Result<(Response, Vec<OwnedFd>)> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let client = match Client::connect_within(runtime_dir, limit)? {
            Some(client) => client,
            None => match start_background(runtime_dir, config, limit) {
                Ok(client) => client,
                Err(error) if error.kind == Kind::Busy => {
                    wait_for_holder(runtime_dir);
                    last = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        match client.call(request.clone(), fds) {
            Err(error) if is_ending(&error) => {
                wait_for_holder(runtime_dir);
                last = Some(error);
            }
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Kind::Busy, "eci-mountd keeps ending")))
}

/// Waits until the daemon that holds the lock has ended, if it is ending.
fn wait_for_holder(runtime_dir: &Path) {
    let holder = RuntimeDir::open(runtime_dir)
        .ok()
        .and_then(|runtime| runtime.lock_holder());
    let Some(pidfd) = holder.and_then(|pid| open_pidfd(pid).ok()) else {
        return;
    };
    // The next attempt shows whether the daemon ended or the time ran out.
    let _ = rustix::event::poll(
        &mut [PollFd::new(&pidfd, PollFlags::IN)],
        Some(&ENDING_LIMIT),
    );
}

fn start_background(runtime_dir: &Path, config: Option<&Path>, limit: Duration) -> Result<Client> {
    // The directory is created here too, so that this command reports what is wrong with it.
    RuntimeDir::create(runtime_dir)?;
    let mut daemon = daemon();
    if let Some(config) = config {
        daemon.arg("--config").arg(config);
    }
    let mut child = daemon
        .arg("--background")
        .arg("--runtime-dir")
        .arg(runtime_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Error::io("start", "eci-mountd", e))?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output)
            .read_line(&mut line)
            .map_err(|e| Error::io("hear from", "eci-mountd", e))?;
    }
    if line.trim() != "ready" {
        // The daemon has ended, or is about to.
        let _ = child.wait();
        return Err(serde_json::from_str(&line).unwrap_or_else(|_| {
            Error::new(Kind::System, "eci-mountd ended before it was ready")
                .remedy("run `eci-mountd` in the foreground to see why")
        }));
    }
    Client::connect_within(runtime_dir, limit)?.ok_or_else(Error::ending)
}

/// A daemon for one command. It ends when the command does; [`PrivateDaemon::end`] waits for that.
#[derive(Debug)]
pub struct PrivateDaemon {
    child: Child,
    /// The connection to the daemon.
    pub client: Client,
}

impl PrivateDaemon {
    /// Starts a daemon.
    ///
    /// # Errors
    /// When the configuration is wrong, or the program cannot be executed. The daemon prints all other reasons on
    /// standard error.
    pub fn start() -> Result<Self> {
        // The daemon would say the same, but to standard error, before the command fails for want of a daemon.
        Config::read(&Location::of_environment())?;
        let (ours, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        let child = daemon()
            .arg("--private")
            .stdin(Stdio::from(theirs.into_inner()))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| Error::io("start", "eci-mountd", e))?;
        Ok(Self {
            child,
            client: Client::over(ours, ANSWER_LIMIT)?,
        })
    }

    /// Returns the process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Closes the connection and waits until the daemon has undone everything.
    pub fn end(self) {
        let Self { mut child, client } = self;
        drop(client);
        // This fails only for a child that was waited for already.
        let _ = child.wait();
    }
}

/// Returns the command line of `eci-fs mountd`.
fn daemon() -> Command {
    let mut command = Command::new(program::with_all_commands());
    command.arg("mountd");
    command
}
