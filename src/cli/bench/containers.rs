//! The containers of the benchmark: one whose pid 1 reads, and many idle ones.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use eci_fs_mountd::container::open_pidfd;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{Attach, Request, Response, Selector};
use eci_fs_protocol::error::{Error, Kind, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::super::run::cgroup::Cgroups;
use super::reader::{FromReader, Graft, Job, Sample, ToReader, channel_of_stdin, make_private};
use super::{ReaderOptions, peer, process};
use crate::cli::CHANGE_LIMIT;
use crate::cli::client::{PrivateDaemon, unexpected_answer};

/// The time limit of one measurement, with a margin.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The time limit for a reader to end by itself.
const END_LIMIT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Returns a command of this program in its own process group, so that Ctrl-C ends only the bench, which then ends its
/// processes.
fn command(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(name).process_group(0);
    command
}

/// A daemon of the bench, and its server.
#[derive(Debug)]
pub(super) struct Daemon {
    daemon: Option<PrivateDaemon>,
    pub(super) pid: u32,
    pub(super) server: u32,
}

impl Daemon {
    pub(super) fn start() -> Result<Self> {
        // The time of a read is measured, and not how many a container may have in the long run.
        let daemon = PrivateDaemon::start(CHANGE_LIMIT, &["--cpu-share=0"])?;
        // The daemon answers when it has its server.
        daemon.list()?;
        let pid = daemon.pid();
        let server = process::child(pid)?;
        Ok(Self {
            daemon: Some(daemon),
            pid,
            server,
        })
    }

    fn call(&self, request: Request, pidfd: Option<&OwnedFd>) -> Result<Response> {
        let daemon = self
            .daemon
            .as_ref()
            .ok_or_else(|| Error::refused("the daemon has ended"))?;
        let fds: Vec<_> = pidfd.iter().map(|fd| fd.as_fd()).collect();
        Ok(daemon.call(request, &fds)?.0)
    }

    /// Attaches the container of a process. Returns the time that the daemon took, and the number of grafts.
    pub(super) fn attach(&self, pid: i32) -> Result<(Duration, usize)> {
        let pidfd = open_pidfd(pid)?;
        let request = Request::Attach(Attach::default());
        match self.call(request, Some(&pidfd))? {
            Response::Attached(attached) => {
                Ok((Duration::from_micros(attached.took_usec), attached.grafts))
            }
            other => Err(unexpected_answer(&other)),
        }
    }

    pub(super) fn detach(&self, pid: i32) -> Result<()> {
        self.call(Request::Detach(Selector::Pid(pid)), None)
            .map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon removes its mounts before it ends.
        if let Some(daemon) = self.daemon.take() {
            daemon.end();
        }
    }
}

/// A container whose pid 1 reads.
#[derive(Debug)]
pub(super) struct Reader {
    channel: Option<Channel>,
    stage: Child,
    init: OwnedFd,
    pub(super) pid: i32,
}

impl Reader {
    /// Starts a reader in `cgroups`, with lxcfs or without.
    pub(super) fn start(cgroups: &Cgroups, lxcfs: bool) -> Result<Self> {
        let (ours, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        let mut command = command("bench-stage");
        if lxcfs {
            command.arg("--lxcfs");
        }
        let mut stage = command
            .stdin(Stdio::from(theirs.into_inner()))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| Error::io("start", "/proc/self/exe", e))?;
        let started = ours
            .set_timeout(Some(ANSWER_LIMIT))
            .map_err(|e| Error::io("set up", "a channel", e))
            .and_then(|()| started_and_ready(&ours))
            .and_then(|pid| Ok((pid, open_pidfd(pid)?)));
        let (pid, init) = match started {
            Ok(started) => started,
            Err(error) => {
                drop(ours);
                // The stage ends by itself when the channel is closed.
                let _ = stage.wait();
                return Err(error);
            }
        };
        let this = Self {
            channel: Some(ours),
            stage,
            init,
            pid,
        };
        cgroups.join(pid)?;
        Ok(this)
    }

    fn channel(&self) -> Result<&Channel> {
        self.channel
            .as_ref()
            .ok_or_else(|| Error::refused("the reader has ended"))
    }

    fn receive(&self) -> Result<FromReader> {
        receive(self.channel()?)
    }

    fn request(&self, what: &ToReader) -> Result<FromReader> {
        self.channel()?
            .send(what, &[])
            .map_err(|e| Error::io("speak to", "a reader", e))?;
        self.receive()
    }

    /// Returns the files that are grafted.
    pub(super) fn grafts(&self) -> Result<Vec<Graft>> {
        match self.request(&ToReader::Grafts)? {
            FromReader::Grafts(grafts) => Ok(grafts),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn measure(&self, job: &Job) -> Result<Sample> {
        match self.request(&ToReader::Measure(job.clone()))? {
            FromReader::Measured(sample) => Ok(sample),
            other => Err(unexpected(&other)),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.channel = None;
        let ended = rustix::event::poll(
            &mut [PollFd::new(&self.init, PollFlags::IN)],
            Some(&END_LIMIT),
        );
        if ended != Ok(1) {
            // The reader hangs in a read that is never answered. The stage and lxcfs end with it.
            let _ = rustix::process::pidfd_send_signal(&self.init, rustix::process::Signal::KILL);
        }
        let _ = self.stage.wait();
    }
}

fn receive(channel: &Channel) -> Result<FromReader> {
    match channel.recv::<FromReader>() {
        Ok(Some((FromReader::Failed(error), _))) => Err(error),
        Ok(Some((message, _))) => Ok(message),
        Ok(None) => Err(Error::new(Kind::System, "a reader has ended")),
        Err(error) => Err(Error::io("hear from", "a reader", error)),
    }
}

/// Waits until the stage has sent the reader's pid and the reader is ready, in either order. Returns the pid.
fn started_and_ready(channel: &Channel) -> Result<i32> {
    match (receive(channel)?, receive(channel)?) {
        (FromReader::Started(pid), FromReader::Ready)
        | (FromReader::Ready, FromReader::Started(pid)) => Ok(pid),
        (FromReader::Started(_), other) | (other, _) => Err(unexpected(&other)),
    }
}

fn unexpected(message: &FromReader) -> Error {
    Error::refused(format!("a reader spoke out of turn: {message:?}"))
}

/// Runs the stage: the outer process of a reader. lxcfs runs beside it, and its child is pid 1.
pub(in super::super) fn stage(options: &ReaderOptions) -> ExitCode {
    let Ok(channel) = channel_of_stdin() else {
        return ExitCode::FAILURE;
    };
    match contain(options, channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err((channel, error)) => {
            // Without the bench nobody needs the error.
            let _ = channel.send(&FromReader::Failed(error), &[]);
            ExitCode::FAILURE
        }
    }
}

fn contain(options: &ReaderOptions, channel: Channel) -> std::result::Result<(), (Channel, Error)> {
    let started = start(options, &channel);
    let (mut init, _lxcfs) = match started {
        Ok(started) => started,
        Err(error) => return Err((channel, error)),
    };
    let pid = i32::try_from(init.id()).unwrap_or(0);
    let sent = channel.send(&FromReader::Started(pid), &[]);
    drop(channel);
    if sent.is_err() {
        let _ = init.kill();
    }
    let _ = init.wait();
    Ok(())
}

fn start(options: &ReaderOptions, channel: &Channel) -> Result<(Child, Option<peer::Lxcfs>)> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Error::io("make", "a mount namespace", e))?;
    make_private()?;
    let lxcfs = options.lxcfs.then(peer::start).transpose()?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|e| Error::io("make", "a pid namespace", e))?;
    let theirs = channel
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::io("duplicate", "a channel", e))?;
    let mut command = command("bench-read");
    if options.lxcfs {
        command.arg("--lxcfs");
    }
    let init = command
        .stdin(Stdio::from(theirs))
        .spawn()
        .map_err(|e| Error::io("start", "/proc/self/exe", e))?;
    Ok((init, lxcfs))
}

/// Idle containers. They end when this value is dropped or the bench ends, because their standard input is closed
/// then.
#[derive(Debug)]
pub(super) struct IdleContainers {
    children: Vec<Child>,
    alive: Option<std::io::PipeWriter>,
    stdin: std::io::PipeReader,
}

impl IdleContainers {
    pub(super) fn new() -> Result<Self> {
        let (stdin, alive) = std::io::pipe().map_err(|e| Error::io("make", "a pipe", e))?;
        Ok(Self {
            children: Vec::new(),
            alive: Some(alive),
            stdin,
        })
    }

    /// Starts one more container in `cgroups`. Returns its pid.
    pub(super) fn add(&mut self, cgroups: &Cgroups) -> Result<i32> {
        let stdin = self
            .stdin
            .try_clone()
            .map_err(|e| Error::io("duplicate", "a pipe", e))?;
        let mut child = command("bench-idle")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io("start", "/proc/self/exe", e))?;
        let stdout = child.stdout.take();
        let pid = i32::try_from(child.id()).unwrap_or(0);
        self.children.push(child);
        let mut ready = [0];
        stdout
            .ok_or_else(|| Error::refused("no standard output"))?
            .read_exact(&mut ready)
            .map_err(|e| Error::io("hear from", "a container", e))?;
        cgroups.join(pid)?;
        Ok(pid)
    }
}

impl Drop for IdleContainers {
    fn drop(&mut self) {
        self.alive = None;
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

/// Runs an idle container.
pub(in super::super) fn idle() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Error::io("make", "a mount namespace", e))?;
    make_private()?;
    rustix::io::write(rustix::stdio::stdout(), b".")
        .map_err(|e| Error::io("speak to", "the bench", e))?;
    let mut rest = Vec::new();
    std::io::stdin()
        .read_to_end(&mut rest)
        .map(drop)
        .map_err(|e| Error::io("wait for", "the bench", e))
}
