//! The commands' side of the control protocol, and the starting of a daemon where there is none.

use std::io::{BufRead, BufReader};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eci_fs_mountd::container::open_pidfd;
use eci_fs_mountd::runtime_dir::RuntimeDir;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{Answer, Call, Listed, Request, Response, VERSION};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::cli::program;

/// How long a command waits for one answer. Attaching takes milliseconds; this is for a daemon that hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long a command waits for the daemon that holds the lock to end, before it tries to reach it again: it may be
/// one that is starting.
const ENDING_LIMIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// How often a command tries again when a daemon begins or ends just as it is asked: for five seconds in all.
const ATTEMPTS: usize = 100;

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    /// How long an answer is waited for.
    limit: Duration,
}

impl Client {
    /// Connect to the daemon of a runtime directory; none when there is none.
    ///
    /// # Errors
    /// When the directory is not one that can be trusted, or the socket cannot be connected to.
    pub fn connect(runtime_dir: &Path) -> Result<Option<Self>> {
        Self::connect_within(runtime_dir, ANSWER_LIMIT)
    }

    /// The same, waiting no longer than `limit` for anything.
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
            // No socket, or one that a killed daemon left.
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

    /// Send one request, and wait for no answer. A daemon that turns us away says so to who asks for one.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn tell(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let version = VERSION;
        match self.channel.send(&Call { version, request }, fds) {
            Err(error) if !is_closed(&error) => Err(Error::io("speak to", "eci-mountd", error)),
            _ => Ok(()),
        }
    }

    /// Ask one thing, with descriptors.
    ///
    /// # Errors
    /// What the daemon answered, or that it did not. [`Kind::Busy`] when it ends just now.
    pub fn call(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Response, Vec<OwnedFd>)> {
        self.tell(request, fds)?;
        let mut answer = self.channel.recv::<Answer>();
        if answer.as_ref().is_err_and(is_closed) {
            // A daemon that turns us away says why; that it has closed the connection is told before.
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

    /// All containers of the daemon of a runtime directory; none when there is no daemon, or it ends just now.
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

    /// All containers of the daemon.
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
                other => return Err(out_of_turn(&other)),
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

/// Whether this says that the daemon ends just now.
fn is_ending(error: &Error) -> bool {
    error.reason == Some(Reason::Ending)
}

/// What the daemon says of a pidfd, said of the pid that a person typed.
pub fn about_process(error: Error, pid: i32) -> Error {
    match error.reason {
        Some(Reason::ProcessEnded) => Error::not_found(format!("process {pid} has ended"))
            .remedy("see `ps -e` for one that runs"),
        _ => error,
    }
}

/// An answer that is none to what was asked.
pub fn out_of_turn(response: &Response) -> Error {
    Error::refused(format!("eci-mountd answered out of turn: {response:?}"))
}

/// Whether the other end is closed.
fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

/// Ask the daemon of `runtime_dir`; if there is none, start one in the background that ends with its last
/// container.
///
/// # Errors
/// What keeps a daemon from starting, and what it answers.
pub fn call_or_start(
    runtime_dir: &Path,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<(Response, Vec<OwnedFd>)> {
    call_or_start_within(runtime_dir, request, fds, ANSWER_LIMIT)
}

/// The same, waiting for no answer longer than `limit`.
///
/// # Errors
/// As [`call_or_start`].
pub fn call_or_start_within(
    runtime_dir: &Path,
    request: &Request,
    fds: &[BorrowedFd<'_>],
    limit: Duration,
) -> Result<(Response, Vec<OwnedFd>)> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let client = match Client::connect_within(runtime_dir, limit)? {
            Some(client) => client,
            None => match start_background(runtime_dir, limit) {
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

/// Wait until the daemon that holds the lock has ended, if it is about to.
fn wait_for_holder(runtime_dir: &Path) {
    let holder = RuntimeDir::open(runtime_dir)
        .ok()
        .and_then(|runtime| runtime.lock_holder());
    let Some(pidfd) = holder.and_then(|pid| open_pidfd(pid).ok()) else {
        return;
    };
    // Whether it ended or the time ran out is seen at the next attempt.
    let _ = rustix::event::poll(
        &mut [PollFd::new(&pidfd, PollFlags::IN)],
        Some(&ENDING_LIMIT),
    );
}

fn start_background(runtime_dir: &Path, limit: Duration) -> Result<Client> {
    // Made here too, so that what is wrong with it is said in this command's words.
    RuntimeDir::create(runtime_dir)?;
    let mut child = daemon()
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
        // It has ended, or is about to.
        let _ = child.wait();
        return Err(serde_json::from_str(&line).unwrap_or_else(|_| {
            Error::new(Kind::System, "eci-mountd ended before it was ready")
                .remedy("run `eci-mountd` in the foreground to see why")
        }));
    }
    Client::connect_within(runtime_dir, limit)?.ok_or_else(Error::ending)
}

/// A daemon for one command. It ends when the command does; [`Private::end`] waits for that.
#[derive(Debug)]
pub struct Private {
    child: Child,
    /// The connection to it.
    pub client: Client,
}

impl Private {
    /// Start one.
    ///
    /// # Errors
    /// When it cannot be executed. What else keeps it from starting it says itself on standard error.
    pub fn start() -> Result<Self> {
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

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Close the connection and wait until the daemon has undone everything.
    pub fn end(self) {
        let Self { mut child, client } = self;
        drop(client);
        // It fails only for a child that was waited for already.
        let _ = child.wait();
    }
}

/// `eci-fs`, as the mount daemon.
fn daemon() -> Command {
    let mut command = Command::new(program::with_all_commands());
    command.arg("mountd");
    command
}
