//! The commands' side of the control protocol. It also starts a daemon where none runs.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use eci_fs_mountd::config::{Config, Location};
use eci_fs_mountd::container::open_pidfd;
use eci_fs_mountd::output::print_error;
use eci_fs_mountd::runtime_dir::RuntimeDir;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{
    Answer, Call, Isolate, Isolated, Listed, Request, Response, VERSION,
};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::cli::{PROGRAM, program};

/// The time after which a command says on a terminal that it still waits.
const NOTICE: Duration = Duration::from_secs(1);

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
    /// The part of it that the connection has taken. It counts for the first answer.
    spent: Cell<Duration>,
}

impl Client {
    /// Connects to the daemon of a runtime directory. Returns none when no daemon runs. `limit` is the time limit for
    /// each answer, and for the connection together with the first answer.
    ///
    /// # Errors
    /// When the directory cannot be trusted, or the socket cannot be connected to.
    pub fn connect(runtime_dir: &Path, limit: Duration) -> Result<Option<Self>> {
        let begun = Instant::now();
        let runtime = match RuntimeDir::open(runtime_dir) {
            Ok(runtime) => runtime,
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = runtime.socket();
        match Channel::connect(&path, Some(limit)) {
            Ok(Some(channel)) => {
                let client = Self::over(channel, limit)?;
                client.spent.set(begun.elapsed());
                Ok(Some(client))
            }
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
        Ok(Self {
            channel,
            limit,
            spent: Cell::default(),
        })
    }

    /// Waits until an answer is there, or the other end is closed.
    ///
    /// # Errors
    /// When the time limit is over.
    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + self.limit.saturating_sub(self.spent.take());
        let mut notice = Some(Instant::now() + NOTICE);
        loop {
            let until = notice.map_or(deadline, |notice| notice.min(deadline));
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            match rustix::event::poll(
                &mut [PollFd::new(&self.channel, PollFlags::IN)],
                Some(&left),
            ) {
                Ok(0) if until == deadline => return Err(no_answer(self.limit)),
                Ok(0) => {
                    notice = None;
                    if std::io::stderr().is_terminal() {
                        print_error(PROGRAM, "eci-mountd does not answer yet; waiting");
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                // An error shows again when the answer is received.
                _ => return Ok(()),
            }
        }
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
        self.wait()?;
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

    /// Asks for a range of ids for the container `key`. `runtime` is the pidfd of the process that becomes its runtime:
    /// the range is free again when that process ends before the container has one. Returns the range, and the user
    /// namespace that has it.
    ///
    /// # Errors
    /// As [`Self::call`], and when the daemon is of an older release.
    pub fn isolate(&self, key: &str, runtime: BorrowedFd<'_>) -> Result<(Isolated, OwnedFd)> {
        let key = key.to_owned();
        isolated(self.call(Request::Isolate(Isolate { key }), &[runtime]))
    }

    /// Returns all containers of the daemon.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn list(&self) -> Result<Vec<Listed>> {
        self.list_with_trouble().map(|(all, _)| all)
    }

    /// Returns all containers, and what is wrong with the daemon or a container, in words.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn list_with_trouble(&self) -> Result<(Vec<Listed>, Vec<String>)> {
        let mut all: Vec<Listed> = Vec::new();
        let mut wrong = Vec::new();
        loop {
            let after = all.last().map(|listed| listed.slot);
            match self.call(Request::List { after }, &[])?.0 {
                Response::Containers {
                    containers,
                    more,
                    trouble,
                } => {
                    let stuck = containers.is_empty();
                    all.extend(containers);
                    wrong.extend(trouble);
                    if !more || stuck {
                        return Ok((all, wrong));
                    }
                }
                other => return Err(unexpected_answer(&other)),
            }
        }
    }
}

/// Returns the range and the user namespace of an answer to [`Request::Isolate`].
///
/// # Errors
/// That of the answer, and when the daemon is of an older release.
pub fn isolated(answer: Result<(Response, Vec<OwnedFd>)>) -> Result<(Isolated, OwnedFd)> {
    match answer.map_err(older_daemon)? {
        (Response::Isolated(isolated), fds) => {
            let namespace = fds.into_iter().next();
            let namespace = namespace
                .ok_or_else(|| Error::refused("eci-mountd answered without the user namespace"))?;
            Ok((isolated, namespace))
        }
        (other, _) => Err(unexpected_answer(&other)),
    }
}

/// Replaces the answer that a daemon gives to a request that it does not know: it is of a release that cannot isolate.
fn older_daemon(error: Error) -> Error {
    let unknown =
        error.kind == Kind::Refused && error.what.starts_with("a packet could not be understood");
    if !unknown {
        return error;
    }
    Error::new(
        Kind::Version,
        "eci-mountd is of an older release, and cannot isolate containers",
    )
    .remedy("`eci-fs upgrade` puts the installed one in its place")
}

fn no_answer(limit: Duration) -> Error {
    Error::new(
        Kind::System,
        format!("eci-mountd did not answer within {limit:?}"),
    )
    .remedy("see its log; it finishes what it has begun, and begins nothing for a command that has gone")
}

/// Returns whether the error says that the daemon is ending.
pub fn is_ending(error: &Error) -> bool {
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

/// Calls the daemon of `runtime_dir`. If none runs, starts one in the background, which ends with its last container
/// and reads the configuration `config`, or the one of the environment. `limit` is the time limit for an answer.
///
/// # Errors
/// When the daemon does not start, and any error that it answers.
pub fn call_or_start(
    runtime_dir: &Path,
    config: Option<&Path>,
    request: &Request,
    fds: &[BorrowedFd<'_>],
    limit: Duration,
) -> Result<(Response, Vec<OwnedFd>)> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let client = match Client::connect(runtime_dir, limit)? {
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
pub fn wait_for_holder(runtime_dir: &Path) {
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
    Client::connect(runtime_dir, limit)?.ok_or_else(Error::ending)
}

/// A daemon for one command. It ends when the command does; [`PrivateDaemon::end`] waits for that.
#[derive(Debug)]
pub struct PrivateDaemon {
    child: Child,
    client: Client,
    /// The pipe on which the daemon says the error that it ends with.
    errors: RefCell<Option<ChildStdout>>,
}

impl PrivateDaemon {
    /// Starts a daemon with these options. `limit` is the time limit for each of its answers.
    ///
    /// # Errors
    /// When the configuration is wrong, or the program cannot be executed. The first [`Self::call`] returns all other
    /// errors.
    pub fn start(limit: Duration, options: &[&str]) -> Result<Self> {
        // The daemon would say the same, but only in its first answer.
        Config::read(&Location::of_environment())?;
        let (ours, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        let mut child = daemon()
            .arg("--private")
            .args(options)
            .stdin(Stdio::from(theirs.into_inner()))
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io("start", "eci-mountd", e))?;
        let errors = RefCell::new(child.stdout.take());
        Ok(Self {
            child,
            client: Client::over(ours, limit)?,
            errors,
        })
    }

    /// Sends one request with descriptors, and returns the answer.
    ///
    /// # Errors
    /// As [`Client::call`]; when the daemon has ended, the error that it ended with.
    pub fn call(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Response, Vec<OwnedFd>)> {
        let answer = self.client.call(request, fds);
        answer.map_err(|error| self.last_error(error))
    }

    /// Returns all containers of the daemon.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn list(&self) -> Result<Vec<Listed>> {
        self.client.list().map_err(|error| self.last_error(error))
    }

    /// Returns the error that the daemon has ended with, where `error` says only that it has ended.
    fn last_error(&self, error: Error) -> Error {
        let said = || {
            let mut line = String::new();
            let mut pipe = self.errors.take()?;
            pipe.read_to_string(&mut line).ok()?;
            serde_json::from_str(&line).ok()
        };
        if is_ending(&error) {
            said().unwrap_or(error)
        } else {
            error
        }
    }

    /// Returns the process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Closes the connection and waits until the daemon has undone everything.
    pub fn end(self) {
        let Self {
            mut child,
            client,
            errors,
        } = self;
        drop(client);
        // An error that comes now has no reader.
        drop(errors);
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
