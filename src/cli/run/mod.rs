//! `eci-fs run`: runs a command in a new container with limits, and with its own view of them.
//!
//! Four processes take part:
//! - the **parent**, this command: it makes the cgroups, writes the id maps and the clock offsets, has the views
//!   grafted, passes signals on, and cleans up;
//! - the **stage**: it unshares the namespaces and waits, because only its children are in the new pid and time
//!   namespaces. With `--isolate` it enters a user namespace of the daemon;
//! - the **init**, pid 1 of the container: it mounts /proc, starts the command, and reaps;
//! - the **command**, which an exec of this program becomes.
//!
//! Stage and init run this program too. They speak with the parent over one channel that they inherit.

pub(super) mod cgroup;
mod exec;
mod inherited;
mod init;
pub(super) mod limits;
pub(super) mod signals;
mod stage;

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitCode};

use clap::Args;
use eci_fs_mountd::container::open_pidfd;
use eci_fs_mountd::output::print_error;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::choices::{Choices, CpuQuota};
use eci_fs_protocol::control::{Attach, Isolate, Request, Response};
use eci_fs_protocol::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use super::{PROGRAM, Runtime};
use crate::cli::client::{Client, PrivateDaemon, call_or_start, isolated, unexpected_answer};
use crate::isolation::offsets_to_zero;
pub(super) use exec::{ExecOptions, exec};
pub(super) use init::init;
use limits::Limits;
pub(super) use stage::stage;

/// The exit code of `run` when it fails itself, as of other engines.
const FAILED: u8 = 125;

/// The first host id of a container's user namespace with `--userns`, and the number of ids from there on.
const USERNS_FIRST: u32 = 100_000;
const USERNS_COUNT: u32 = 65_536;

/// Options of `eci-fs run`.
#[derive(Debug, Args)]
#[command(
    trailing_var_arg = true,
    override_usage = "eci-fs run [OPTIONS] [--] COMMAND [ARGS...]"
)]
pub(super) struct Options {
    #[command(flatten)]
    limits: Limits,
    /// In a user namespace of its own: root in it is user 100000 outside
    #[arg(long)]
    userns: bool,
    /// In a user namespace with 65,536 ids that no other container and no user of the host has
    #[arg(long, conflicts_with = "userns")]
    isolate: bool,
    /// The CPUs that are online with --cpus: as many as that amounts to (online), or all of the cpuset (ignore), as perf
    /// and bpftrace need them; online, unless the daemon has another setting
    #[arg(long, value_name = "EFFECT")]
    cpu_quota: Option<CpuQuota>,
    /// The container's name in lists, where an eci-mountd is running
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    pub(super) runtime: Runtime,
    /// The command and its arguments; the options of `run` come before it
    #[arg(required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Options of the hidden subcommands `run-stage` and `run-init`.
#[derive(Debug, Args)]
pub(super) struct ChildOptions {
    /// The number of the inherited channel
    #[arg(long)]
    channel: i32,
    /// With a user namespace
    #[arg(long)]
    userns: bool,
    /// With the user namespace that the first message carries
    #[arg(long)]
    isolate: bool,
    /// The command and its arguments
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// A message of the parent to the stage or the init.
#[derive(Debug, Serialize, Deserialize)]
enum ParentMessage {
    /// The next step may begin.
    Go,
}

/// A message of the stage or the init to the parent.
#[derive(Debug, Serialize, Deserialize)]
enum ChildMessage {
    /// The stage has its user namespace, so the id maps can be written.
    HasUserNamespace,
    /// The stage has all other namespaces, so the clock offsets can be written.
    HasNamespaces,
    /// The stage has started the init, with this pid.
    Started(i32),
    /// The init has made its mounts.
    Ready,
    /// A step failed.
    Failed(Error),
}

/// Runs the whole command.
pub(super) fn main(options: &Options) -> ExitCode {
    match run(options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print_error(PROGRAM, error);
            ExitCode::from(FAILED)
        }
    }
}

fn run(options: &Options) -> Result<u8> {
    super::need_root("run")?;
    options.limits.check()?;
    // Signals are blocked from here on, so that none is lost before the container has ended.
    let signals = signals::Signals::block()?;
    // A running daemon is used. Otherwise a private one is started, which ends with this command.
    let limit = options.runtime.change_limit();
    let (private, running) = match Client::connect(&options.runtime.runtime_dir, limit)? {
        Some(client) => (None, Some(client)),
        // A private daemon gives no ids: one in the background is started when they are asked for.
        None if options.isolate => (None, None),
        None => (Some(PrivateDaemon::start(limit, &[])?), None),
    };
    let result = with_cgroups(options, private.as_ref(), &signals);
    drop(running);
    if let Some(private) = private {
        private.end();
    }
    result
}

fn with_cgroups(
    options: &Options,
    private: Option<&PrivateDaemon>,
    signals: &signals::Signals,
) -> Result<u8> {
    let cgroups = cgroup::Cgroups::create(&options.limits)?;
    let result = contain(options, private, signals, &cgroups);
    // Pid 1 of the pid namespace has ended, and so have all other processes of the container.
    let removed = cgroups.remove();
    let code = result?;
    removed.map(|()| code)
}

fn contain(
    options: &Options,
    private: Option<&PrivateDaemon>,
    signals: &signals::Signals,
    cgroups: &cgroup::Cgroups,
) -> Result<u8> {
    let (ours, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
    let mut stage = KillOnDrop(spawn_stage(options, theirs.into_inner())?);
    let stage_pid = i32::try_from(stage.0.id()).unwrap_or(0);
    cgroups.join(stage_pid)?;
    let namespace = match options.isolate {
        true => Some(ask_for_range(options, stage_pid)?),
        false => None,
    };
    let begun = begin(options, &ours, stage_pid, namespace);
    let init = begun.map_err(|error| explain(error, options))?;
    attach(options, private, &init)?;
    allow_next_step(&ours)?;
    drop(ours);
    let status = signals::pass_on_until_end(signals, &init, &mut stage.0)?;
    Ok(status)
}

/// Asks the daemon for a range of ids. The stage holds it until the init does. Returns the user namespace.
fn ask_for_range(options: &Options, stage: i32) -> Result<OwnedFd> {
    let runtime = &options.runtime;
    let pidfd = open_pidfd(stage)?;
    let answer = call_or_start(
        &runtime.runtime_dir,
        None,
        &Request::Isolate(Isolate {
            key: format!("eci-fs run {stage}"),
        }),
        &[pidfd.as_fd()],
        runtime.change_limit(),
    );
    isolated(answer).map(|(_, namespace)| namespace)
}

/// Leads the stage and the init to where the views can be grafted. Returns the pidfd of the init.
fn begin(
    options: &Options,
    channel: &Channel,
    stage: i32,
    namespace: Option<OwnedFd>,
) -> Result<OwnedFd> {
    let fds: Vec<_> = namespace.iter().map(AsFd::as_fd).collect();
    channel
        .send(&ParentMessage::Go, &fds)
        .map_err(|e| Error::io("speak to", "the new container", e))?;
    if options.userns {
        expect(channel, |message| {
            matches!(message, ChildMessage::HasUserNamespace).then_some(())
        })?;
        let map = format!("0 {USERNS_FIRST} {USERNS_COUNT}\n");
        for file in ["uid_map", "gid_map"] {
            write_proc(stage, file, &map)?;
        }
        allow_next_step(channel)?;
    }
    expect(channel, |message| {
        matches!(message, ChildMessage::HasNamespaces).then_some(())
    })?;
    set_clocks(stage)?;
    allow_next_step(channel)?;
    let init = expect(channel, |message| match message {
        ChildMessage::Started(pid) => Some(*pid),
        _ => None,
    })?;
    let init = open_pidfd(init)?;
    // The stage has sent its last message; only the init sends from here on.
    allow_next_step(channel)?;
    expect(channel, |message| {
        matches!(message, ChildMessage::Ready).then_some(())
    })?;
    Ok(init)
}

/// Returns the error of a container that did not begin. If its processes were killed, it does not name the step at
/// which that was noticed.
fn explain(error: Error, options: &Options) -> Error {
    let gone = [libc::ESRCH, libc::ENOENT, libc::ECONNRESET, libc::EPIPE];
    let killed = error.errno.is_some_and(|errno| gone.contains(&errno));
    match error.errno {
        _ if killed => ended_early(),
        Some(libc::EAGAIN) if options.limits.pids.is_some() => error.remedy("give it more --pids"),
        _ => error,
    }
}

/// Returns the error of a container whose processes ended before its command was started.
fn ended_early() -> Error {
    Error::new(Kind::System, "the new container ended before it began")
        .remedy("is its memory limit large enough to start a program?")
}

/// A child that is killed when this value is dropped. The init ends with it, and so does the whole container.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Both calls fail only after the child was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn_stage(options: &Options, channel: OwnedFd) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("run-stage");
    if options.userns {
        command.arg("--userns");
    }
    if options.isolate {
        command.arg("--isolate");
    }
    inherited::pass(&mut command, &channel)?;
    command.arg("--").args(&options.command);
    command
        .spawn()
        .map_err(|e| Error::io("start", "/proc/self/exe", e))
}

/// Has the views grafted, by the private daemon or by the running one.
fn attach(options: &Options, private: Option<&PrivateDaemon>, init: &OwnedFd) -> Result<()> {
    let request = Request::Attach(Attach {
        id: options.id.clone(),
        choices: Choices {
            cpu_quota: options.cpu_quota,
            ..Choices::default()
        },
        // The command has all capabilities, and mostly no use for them.
        measures_cpus: Some(false),
        ..Attach::default()
    });
    let fds = [init.as_fd()];
    let response = match private {
        Some(private) => private.call(request, &fds)?.0,
        None => {
            let runtime = &options.runtime;
            call_or_start(
                &runtime.runtime_dir,
                None,
                &request,
                &fds,
                runtime.change_limit(),
            )?
            .0
        }
    };
    match response {
        Response::Attached(_) => Ok(()),
        other => Err(unexpected_answer(&other)),
    }
}

/// Sets the clocks of the new time namespace to zero, so that uptime, the ages of processes and the kernel's clocks
/// agree. A kernel without time namespaces has no such file; then only the views count from the start.
fn set_clocks(pid: i32) -> Result<()> {
    let file = format!("/proc/{pid}/timens_offsets");
    if !std::path::Path::new(&file).exists() {
        return Ok(());
    }
    write_proc(pid, "timens_offsets", &offsets_to_zero())
}

fn write_proc(pid: i32, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, text).map_err(|e| Error::io("write", path, e))
}

fn allow_next_step(channel: &Channel) -> Result<()> {
    channel
        .send(&ParentMessage::Go, &[])
        .map_err(|e| Error::io("speak to", "the new container", e))
}

/// Receives a message, and returns the value that `wanted` finds in it.
fn expect<T>(channel: &Channel, wanted: impl Fn(&ChildMessage) -> Option<T>) -> Result<T> {
    let received = channel
        .recv::<ChildMessage>()
        .map_err(|e| Error::io("hear from", "the new container", e))?;
    match received {
        Some((ChildMessage::Failed(error), _)) => Err(error),
        Some((message, _)) => wanted(&message).ok_or_else(|| {
            Error::refused(format!("the new container spoke out of turn: {message:?}"))
        }),
        None => Err(ended_early()),
    }
}

/// Waits in the stage or the init until the parent allows the next step. Returns the descriptor that it may need for that.
fn wait_for_parent(channel: &Channel) -> Result<Option<OwnedFd>> {
    match channel.recv::<ParentMessage>() {
        Ok(Some((ParentMessage::Go, mut fds))) => Ok(fds.pop()),
        Ok(None) => Err(Error::new(Kind::System, "the parent has ended")),
        Err(error) => Err(Error::io("hear from", "the parent", error)),
    }
}

/// Sends an error from the stage or the init to the parent, and returns the exit code.
fn report(channel: &Channel, error: Error) -> ExitCode {
    // Without a parent nobody needs the error.
    let _ = channel.send(&ChildMessage::Failed(error), &[]);
    ExitCode::from(FAILED)
}
