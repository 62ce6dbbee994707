//! Containers to measure in: one whose pid 1 reads, and many that only are there.

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
use super::reader::{FromReader, Graft, Job, Sample, ToReader, private};
use super::{Inside, peer, process};
use crate::cli::client::{Private, out_of_turn};

/// How long one measurement may take, and then some.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How long a reader has to end by itself.
const END_LIMIT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// A process of the bench's own, in a process group of its own: what Ctrl-C ends is the bench, which ends them.
fn command(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(name).process_group(0);
    command
}

/// A daemon of the bench's own, and its server.
#[derive(Debug)]
pub(super) struct Daemon {
    daemon: Option<Private>,
    pub(super) pid: u32,
    pub(super) server: u32,
}

impl Daemon {
    pub(super) fn start() -> Result<Self> {
        let daemon = Private::start()?;
        // It answers when it has its server.
        daemon.client.list()?;
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
        Ok(daemon.client.call(request, &fds)?.0)
    }

    /// Attach the container of a process; returns how long the daemon took, and how many grafts there are.
    pub(super) fn attach(&self, pid: i32) -> Result<(Duration, usize)> {
        let pidfd = open_pidfd(pid)?;
        let request = Request::Attach(Attach::default());
        match self.call(request, Some(&pidfd))? {
            Response::Attached(attached) => {
                Ok((Duration::from_micros(attached.took_usec), attached.grafts))
            }
            other => Err(out_of_turn(&other)),
        }
    }

    pub(super) fn detach(&self, pid: i32) -> Result<()> {
        self.call(Request::Detach(Selector::Pid(pid)), None)
            .map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It takes its mounts with it before it ends.
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
    /// Start one in `cgroups`, with lxcfs or without.
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
            .and_then(|()| both_said(&ours))
            .and_then(|pid| Ok((pid, open_pidfd(pid)?)));
        let (pid, init) = match started {
            Ok(started) => started,
            Err(error) => {
                drop(ours);
                // It ends by itself when nobody listens.
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

    fn heard(&self) -> Result<FromReader> {
        hear(self.channel()?)
    }

    fn ask(&self, what: &ToReader) -> Result<FromReader> {
        self.channel()?
            .send(what, &[])
            .map_err(|e| Error::io("speak to", "a reader", e))?;
        self.heard()
    }

    /// The files that are not the kernel's.
    pub(super) fn grafts(&self) -> Result<Vec<Graft>> {
        match self.ask(&ToReader::Grafts)? {
            FromReader::Grafts(grafts) => Ok(grafts),
            other => Err(surprise(&other)),
        }
    }

    pub(super) fn measure(&self, job: &Job) -> Result<Sample> {
        match self.ask(&ToReader::Measure(job.clone()))? {
            FromReader::Measured(sample) => Ok(sample),
            other => Err(surprise(&other)),
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
            // It hangs in a read that is never answered. Its stage then ends too, and lxcfs with it.
            let _ = rustix::process::pidfd_send_signal(&self.init, rustix::process::Signal::KILL);
        }
        let _ = self.stage.wait();
    }
}

fn hear(channel: &Channel) -> Result<FromReader> {
    match channel.recv::<FromReader>() {
        Ok(Some((FromReader::Failed(error), _))) => Err(error),
        Ok(Some((said, _))) => Ok(said),
        Ok(None) => Err(Error::new(Kind::System, "a reader has ended")),
        Err(error) => Err(Error::io("hear from", "a reader", error)),
    }
}

/// The stage says which pid the reader has, the reader that it is ready: either may be the first.
fn both_said(channel: &Channel) -> Result<i32> {
    match (hear(channel)?, hear(channel)?) {
        (FromReader::Started(pid), FromReader::Ready)
        | (FromReader::Ready, FromReader::Started(pid)) => Ok(pid),
        (FromReader::Started(_), other) | (other, _) => Err(surprise(&other)),
    }
}

fn surprise(said: &FromReader) -> Error {
    Error::refused(format!("a reader spoke out of turn: {said:?}"))
}

/// Standard input, as the channel that it is.
pub(super) fn channel_of_stdin() -> std::io::Result<Channel> {
    rustix::stdio::stdin()
        .try_clone_to_owned()
        .map(Channel::new)
}

/// The outer process of a reader: lxcfs runs beside it, and its child is pid 1.
pub(in super::super) fn stage(inside: &Inside) -> ExitCode {
    let Ok(channel) = channel_of_stdin() else {
        return ExitCode::FAILURE;
    };
    match contain(inside, channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err((channel, error)) => {
            // If nobody listens there is nobody to tell.
            let _ = channel.send(&FromReader::Failed(error), &[]);
            ExitCode::FAILURE
        }
    }
}

fn contain(inside: &Inside, channel: Channel) -> std::result::Result<(), (Channel, Error)> {
    let started = start(inside, &channel);
    let (mut init, _lxcfs) = match started {
        Ok(started) => started,
        Err(error) => return Err((channel, error)),
    };
    let pid = i32::try_from(init.id()).unwrap_or(0);
    let told = channel.send(&FromReader::Started(pid), &[]);
    drop(channel);
    if told.is_err() {
        let _ = init.kill();
    }
    let _ = init.wait();
    Ok(())
}

fn start(inside: &Inside, channel: &Channel) -> Result<(Child, Option<peer::Running>)> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Error::io("make", "a mount namespace", e))?;
    private()?;
    let lxcfs = inside.lxcfs.then(peer::start).transpose()?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|e| Error::io("make", "a pid namespace", e))?;
    let theirs = channel
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::io("duplicate", "a channel", e))?;
    let mut command = command("bench-read");
    if inside.lxcfs {
        command.arg("--lxcfs");
    }
    let init = command
        .stdin(Stdio::from(theirs))
        .spawn()
        .map_err(|e| Error::io("start", "/proc/self/exe", e))?;
    Ok((init, lxcfs))
}

/// Containers that only are there. They end when this value does, or the bench: their standard input ends then.
#[derive(Debug)]
pub(super) struct Crowd {
    children: Vec<Child>,
    alive: Option<std::io::PipeWriter>,
    stdin: std::io::PipeReader,
}

impl Crowd {
    pub(super) fn new() -> Result<Self> {
        let (stdin, alive) = std::io::pipe().map_err(|e| Error::io("make", "a pipe", e))?;
        Ok(Self {
            children: Vec::new(),
            alive: Some(alive),
            stdin,
        })
    }

    /// Start one more, in `cgroups`; returns its pid.
    pub(super) fn grow(&mut self, cgroups: &Cgroups) -> Result<i32> {
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

impl Drop for Crowd {
    fn drop(&mut self) {
        self.alive = None;
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

/// A container that only is there.
pub(in super::super) fn idle() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Error::io("make", "a mount namespace", e))?;
    private()?;
    rustix::io::write(rustix::stdio::stdout(), b".")
        .map_err(|e| Error::io("speak to", "the bench", e))?;
    let mut rest = Vec::new();
    std::io::stdin()
        .read_to_end(&mut rest)
        .map(drop)
        .map_err(|e| Error::io("wait for", "the bench", e))
}
