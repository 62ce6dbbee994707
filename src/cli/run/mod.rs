//! `eci-fs run`: a command in a new container with limits, and with its own view of them.
//!
//! Four processes take part:
//! - the **parent**, this command: makes the cgroups, writes the id maps and the clock offsets, has the views
//!   grafted, passes signals on, and cleans up;
//! - the **stage**, which unshares the namespaces and waits (only its children are in the new pid and time ones);
//! - the **init**, pid 1 of the container, which mounts /proc, starts the command, and reaps;
//! - the **command**, which an exec of this program becomes.
//!
//! Stage and init are this program again; they speak with the parent over one channel that they inherit.

pub(super) mod cgroup;
mod exec;
mod inherited;
mod init;
pub(super) mod limits;
pub(super) mod signals;
mod stage;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitCode};

use clap::Args;
use eci_fs_mountd::container::open_pidfd;
use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{Attach, Request, Response};
use eci_fs_protocol::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use super::Runtime;
use crate::cli::client::{Client, Private, call_or_start, out_of_turn};
pub(super) use exec::{Become, exec};
pub(super) use init::init;
use limits::Limits;
pub(super) use stage::stage;

/// What `run` exits with when it fails itself, as other engines do.
const FAILED: u8 = 125;

/// Host ids that a container's user namespace gets with `--userns`: 0 to 65535 are these.
const USERNS_FIRST: u32 = 100_000;
const USERNS_COUNT: u32 = 65_536;

/// Options of `eci-fs run`.
#[derive(Debug, Args)]
#[command(trailing_var_arg = true)]
pub(super) struct Options {
    #[command(flatten)]
    limits: Limits,
    /// In a user namespace of its own: root in it is user 100000 outside
    #[arg(long)]
    userns: bool,
    /// The container's name in lists, where an eci-mountd is running
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    runtime: Runtime,
    /// The command and its arguments
    #[arg(required = true, value_name = "CMD", allow_hyphen_values = true)]
    command: Vec<String>,
}

/// What the stage and the init are given.
#[derive(Debug, Args)]
pub(super) struct Inside {
    /// The number of the inherited channel
    #[arg(long)]
    channel: i32,
    /// With a user namespace
    #[arg(long)]
    userns: bool,
    /// The command and its arguments
    #[arg(last = true)]
    command: Vec<String>,
}

/// What the parent says.
#[derive(Debug, Serialize, Deserialize)]
enum ToInside {
    /// Go on with the next step.
    Go,
}

/// What stage and init say.
#[derive(Debug, Serialize, Deserialize)]
enum FromInside {
    /// The stage has its user namespace: the maps can be written.
    HasUserNamespace,
    /// The stage has all others: the clock can be set.
    HasNamespaces,
    /// The stage has started the init, with this pid.
    Started(i32),
    /// The init has mounted what there is to mount.
    Ready,
    /// Something failed.
    Failed(Error),
}

/// The whole command.
#[allow(
    clippy::print_stderr,
    reason = "this is the command's last word to its user"
)]
pub(super) fn main(options: &Options) -> ExitCode {
    match run(options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("eci-fs: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(options: &Options) -> Result<u8> {
    super::need_root("run")?;
    options.limits.check()?;
    // Blocked from here on, so that none is lost between the start of the container and its end.
    let signals = signals::Signals::block()?;
    // With a daemon running, it is used; otherwise one is started that ends with us.
    let (private, running) = match Client::connect(&options.runtime.runtime_dir)? {
        Some(client) => (None, Some(client)),
        None => (Some(Private::start()?), None),
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
    private: Option<&Private>,
    signals: &signals::Signals,
) -> Result<u8> {
    let cgroups = cgroup::Cgroups::create(&options.limits)?;
    let result = contain(options, private, signals, &cgroups);
    // All processes of the container have ended: pid 1 of its pid namespace has.
    let removed = cgroups.remove();
    let code = result?;
    removed.map(|()| code)
}

fn contain(
    options: &Options,
    private: Option<&Private>,
    signals: &signals::Signals,
    cgroups: &cgroup::Cgroups,
) -> Result<u8> {
    let (ours, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
    let mut stage = Ending(spawn_stage(options, theirs.into_inner())?);
    let stage_pid = i32::try_from(stage.0.id()).unwrap_or(0);
    cgroups.join(stage_pid)?;
    go(&ours)?;
    if options.userns {
        expect(&ours, |said| {
            matches!(said, FromInside::HasUserNamespace).then_some(())
        })?;
        let map = format!("0 {USERNS_FIRST} {USERNS_COUNT}\n");
        for file in ["uid_map", "gid_map"] {
            write_proc(stage_pid, file, &map)?;
        }
        go(&ours)?;
    }
    expect(&ours, |said| {
        matches!(said, FromInside::HasNamespaces).then_some(())
    })?;
    set_clocks(stage_pid)?;
    go(&ours)?;
    let init_pid = expect(&ours, |said| match said {
        FromInside::Started(pid) => Some(*pid),
        _ => None,
    })?;
    let init = open_pidfd(init_pid)?;
    // Only now does the init begin to speak: the stage has said its last.
    go(&ours)?;
    expect(&ours, |said| {
        matches!(said, FromInside::Ready).then_some(())
    })?;
    attach(options, private, &init)?;
    go(&ours)?;
    drop(ours);
    let status = signals::pass_on_until_end(signals, &init, &mut stage.0)?;
    Ok(status)
}

/// A child that is killed when it is given up: with it the init, and so the whole container.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // Both fail only when it has been waited for.
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
    inherited::pass(&mut command, &channel)?;
    command.arg("--").args(&options.command);
    command
        .spawn()
        .map_err(|e| Error::io("start", "/proc/self/exe", e))
}

/// Graft the views: by the private daemon, or by the one that is running.
fn attach(options: &Options, private: Option<&Private>, init: &OwnedFd) -> Result<()> {
    let request = Request::Attach(Attach {
        id: options.id.clone(),
        ..Attach::default()
    });
    let fds = [init.as_fd()];
    let response = match private {
        Some(private) => private.client.call(request, &fds)?.0,
        None => call_or_start(&options.runtime.runtime_dir, &request, &fds)?.0,
    };
    match response {
        Response::Attached(_) => Ok(()),
        other => Err(out_of_turn(&other)),
    }
}

/// Set the clocks of the new time namespace to zero, so that uptime, the ages of processes and the kernel's
/// clocks agree. A kernel without time namespaces has no such file; then the views alone count from the start.
fn set_clocks(pid: i32) -> Result<()> {
    let file = format!("/proc/{pid}/timens_offsets");
    if !std::path::Path::new(&file).exists() {
        return Ok(());
    }
    let offset = |clock, name| {
        let now = rustix::time::clock_gettime(clock);
        // The kernel adds seconds and nanoseconds, and wants the latter not to be negative.
        let (seconds, nanoseconds) = match now.tv_nsec {
            0 => (now.tv_sec, 0),
            nanoseconds => (now.tv_sec + 1, 1_000_000_000 - nanoseconds),
        };
        format!("{name} -{seconds} {nanoseconds}\n")
    };
    let text = offset(rustix::time::ClockId::Monotonic, "monotonic")
        + &offset(rustix::time::ClockId::Boottime, "boottime");
    write_proc(pid, "timens_offsets", &text)
}

fn write_proc(pid: i32, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, text).map_err(|e| Error::io("write", path, e))
}

fn go(channel: &Channel) -> Result<()> {
    channel
        .send(&ToInside::Go, &[])
        .map_err(|e| Error::io("speak to", "the new container", e))
}

/// Wait for what `wanted` knows.
fn expect<T>(channel: &Channel, wanted: impl Fn(&FromInside) -> Option<T>) -> Result<T> {
    let heard = channel
        .recv::<FromInside>()
        .map_err(|e| Error::io("hear from", "the new container", e))?;
    match heard {
        Some((FromInside::Failed(error), _)) => Err(error),
        Some((said, _)) => wanted(&said).ok_or_else(|| {
            Error::refused(format!("the new container spoke out of turn: {said:?}"))
        }),
        None => Err(
            Error::new(Kind::System, "the new container ended before it began")
                .remedy("is its memory limit large enough to start a program?"),
        ),
    }
}

/// Wait, inside, until the parent says so.
fn wait_for_go(channel: &Channel) -> Result<()> {
    match channel.recv::<ToInside>() {
        Ok(Some((ToInside::Go, _))) => Ok(()),
        Ok(None) => Err(Error::new(Kind::System, "the parent has ended")),
        Err(error) => Err(Error::io("hear from", "the parent", error)),
    }
}

/// Tell the parent, inside, what went wrong; exit with its code.
fn report(channel: &Channel, error: Error) -> ExitCode {
    // If the parent is gone there is nobody to tell.
    let _ = channel.send(&FromInside::Failed(error), &[]);
    ExitCode::from(FAILED)
}
