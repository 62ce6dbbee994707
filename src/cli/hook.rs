//! `eci-fs hook`: what runtimes call while they make a container.
//!
//! It is light, because every start of a container waits for it: it reads what it is given, asks the daemon one thing,
//! and returns when that is done. It leaves no process behind that has its outputs, for which a runtime would wait.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use eci_fs_mountd::container::open_pidfd;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::{Attach, CgroupChoice, Request, Response};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::hook_log::{go_on, say, write_log};
use crate::cli::client::{Client, call_or_start_within, out_of_turn};
use crate::cli::config::{self, Config, OnError};
use crate::oci::bundle::{Bundle, CONFIG};
use crate::oci::decision::{Decision, decide};
use crate::oci::state::{State, name_of};

/// The command.
pub(super) const NAME: &str = "hook";

/// Bytes that a state may have; runtimes write a few hundred, and the annotations.
const MAX_STATE: u64 = 16 << 20;

/// Options of `eci-fs hook`. What is not given is taken from the configuration.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// When it is called: createRuntime (or prestart) attaches, poststop forgets; for LXC, NAME lxc start-host
    #[arg(value_name = "STAGE")]
    words: Vec<String>,
    /// What becomes of a container whose views cannot be grafted
    #[arg(long, value_enum, value_name = "WHAT")]
    on_error: Option<OnError>,
    /// How long it may take
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: Option<u64>,
    /// Start a daemon where none listens; it ends with its last container
    #[arg(long)]
    start: bool,
    /// Take the container from the environment that LXC sets, and not from standard input
    #[arg(long)]
    lxc: bool,
    /// An annotation that the container has besides its own
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// The file of the container's configuration in its bundle
    #[arg(long, value_name = "FILE", default_value = CONFIG, hide = true)]
    bundle_config: PathBuf,
    /// The configuration of the host
    #[arg(long, value_name = "FILE", env = "ECI_FS_CONFIG", default_value = config::DEFAULT)]
    config: PathBuf,
    /// The runtime directory of eci-mountd
    #[arg(long, value_name = "DIR", env = "ECI_FS_RUNTIME_DIR")]
    runtime_dir: Option<PathBuf>,
}

/// What the hook is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Attach,
    Forget,
}

/// What is done, and how.
#[derive(Debug)]
struct Hook {
    config: config::Hook,
    /// When the time is up.
    end: Instant,
}

/// The container, as the engine describes it.
#[derive(Debug)]
struct Subject {
    name: String,
    pid: i32,
    /// Where its root file system lies, while it has not entered it.
    root: Option<PathBuf>,
    unmasked: bool,
    annotations: BTreeMap<String, String>,
}

/// The command line of a hook, by itself: all commands take longer to describe than one.
#[derive(Debug, Parser)]
#[command(name = "eci-fs", max_term_width = 100, disable_help_subcommand = true)]
struct Alone {
    #[command(subcommand)]
    command: Called,
}

#[derive(Debug, Subcommand)]
enum Called {
    /// Attach a container while its runtime makes it: an OCI or LXC hook
    Hook(Options),
}

/// Run as `eci-fs hook`, which the first argument says.
pub(super) fn alone() -> ExitCode {
    let Alone {
        command: Called::Hook(options),
    } = Alone::parse();
    main(&options)
}

/// Run with these options.
#[allow(
    clippy::print_stderr,
    reason = "this is the program's last word to its runtime"
)]
pub(super) fn main(options: &Options) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("eci-fs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let (mut config, read) = match Config::read(&options.config) {
        Ok(config) => (config.hook, Ok(())),
        Err(error) => (config::Hook::default(), Err(error)),
    };
    config.on_error = options.on_error.unwrap_or(config.on_error);
    config.timeout = options.timeout.unwrap_or(config.timeout);
    config.start |= options.start;
    if let Some(dir) = &options.runtime_dir {
        config.runtime_dir.clone_from(dir);
    }
    let end = begun + config.limit();
    let hook = Hook { config, end };
    let result = read.and_then(|()| hook.run(options));
    let Err(error) = result else {
        return Ok(());
    };
    let error = error.context("hook");
    match hook.config.on_error {
        OnError::Ignore => {
            go_on(&hook.config.runtime_dir, &error);
            Ok(())
        }
        OnError::Fail => {
            write_log(&hook.config.runtime_dir, &error);
            Err(error)
        }
    }
}

/// There is no daemon, and none is started.
pub(super) fn no_daemon(runtime_dir: &Path) -> Error {
    let dir = runtime_dir.display();
    Error::not_found(format!("no eci-mountd is listening on {dir}"))
        .remedy("start the service eci-mountd, or set on-error to ignore")
}

/// What is to be done at the moment that `words` name. LXC adds the name of the container and "lxc" before it.
fn stage(words: &[String], lxc: bool) -> Result<Stage> {
    let from_environment = std::env::var("LXC_HOOK_TYPE").ok().filter(|_| lxc);
    let word = words.last().cloned().or(from_environment);
    match (word.as_deref(), lxc) {
        (None | Some("createRuntime" | "prestart"), false) | (None | Some("start-host"), true) => {
            Ok(Stage::Attach)
        }
        (Some("poststop"), false) | (Some("post-stop"), true) => Ok(Stage::Forget),
        (Some(other), false) => Err(Error::refused(format!("there is nothing to do at {other}"))
            .remedy("call it as a createRuntime hook, and as a poststop hook")),
        (Some(other), true) => Err(Error::refused(format!("there is nothing to do at {other}"))
            .remedy("set lxc.hook.start-host to it")),
    }
}

impl Hook {
    fn run(&self, options: &Options) -> Result<()> {
        let stage = stage(&options.words, options.lxc)?;
        let mut subject = if options.lxc {
            of_environment()?
        } else {
            let state = State::parse(&read_state(self.end)?)?;
            if stage == Stage::Forget {
                // The bundle may be gone by now.
                return self.forget(&name_of(&state.id));
            }
            of_state(state, &options.bundle_config)?
        };
        if stage == Stage::Forget {
            return self.forget(&subject.name);
        }
        for pair in &options.annotations {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Error::refused(format!("--annotation {pair:?} is no KEY=VALUE")))?;
            subject.annotations.insert(key.into(), value.into());
        }
        let name = subject.name.clone();
        self.decide_and_attach(subject)
            .map_err(|error| error.context(format!("container {name}")))
    }

    fn decide_and_attach(&self, subject: Subject) -> Result<()> {
        let decision = match decide(&subject.annotations, &self.config.allow) {
            Err(error) if self.config.on_error == OnError::Ignore => {
                write_log(&self.config.runtime_dir, &error);
                Decision::Attach(Choices::default())
            }
            other => other?,
        };
        let Decision::Attach(choices) = decision else {
            return Ok(());
        };
        match self.attach(subject, choices) {
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Denied) && is_rootless() => {
                // It is a user's own, out of the daemon's reach as the daemon is out of the user's.
                say(&error);
                Ok(())
            }
            other => other,
        }
    }

    fn attach(&self, subject: Subject, choices: Choices) -> Result<()> {
        let pidfd = open_pidfd(subject.pid)?;
        let mut attach = Attach {
            id: Some(subject.name),
            cgroup: CgroupChoice::Own,
            root: subject.root,
            unmasked: subject.unmasked,
            choices,
        };
        let fds = [pidfd.as_fd()];
        let answer = match self.call(Request::Attach(attach.clone()), &fds) {
            // Two engines, or two roots of one, may have a container of the same name.
            Err(error) if error.reason == Some(Reason::NameTaken) => {
                attach.id = attach.id.map(|id| format!("{id:.100}-{}", subject.pid));
                self.call(Request::Attach(attach), &fds)?
            }
            // Two hooks, of which the first had to give it another name.
            Err(error) if error.reason == Some(Reason::OtherName) => {
                return Ok(());
            }
            other => other?,
        };
        match answer {
            Response::Attached(_) => Ok(()),
            other => Err(out_of_turn(&other)),
        }
    }

    /// The daemon sees for itself when a container ends; it is told all the same, and not waited for.
    fn forget(&self, name: &str) -> Result<()> {
        let client = match Client::connect_within(&self.config.runtime_dir, self.left()?) {
            Ok(Some(client)) => client,
            Ok(None) => return Ok(()),
            Err(_) if is_rootless() => return Ok(()),
            Err(error) => return Err(error),
        };
        // Who asks for the name or the list before that is done is told of no container that has ended.
        client.tell(Request::Forget { id: name.into() }, &[])
    }

    fn call(&self, request: Request, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<Response> {
        let dir = &self.config.runtime_dir;
        if self.config.start {
            return Ok(call_or_start_within(dir, &request, fds, self.left()?)?.0);
        }
        let client = Client::connect_within(dir, self.left()?)?.ok_or_else(|| no_daemon(dir))?;
        Ok(client.call(request, fds)?.0)
    }

    /// What is left of its time.
    fn left(&self) -> Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(Error::new(
                Kind::System,
                format!("it was not done within {:?}", self.config.limit()),
            )
            .remedy("see the log of eci-mountd, or give it more with --timeout"));
        }
        Ok(left)
    }
}

/// The state that the runtime writes.
fn read_state(end: Instant) -> Result<Vec<u8>> {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        return Err(
            Error::refused("a runtime calls this, with a state on standard input")
                .remedy("by hand use `eci-fs attach PID`"),
        );
    }
    let mut state = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Error::refused("the time limit"))?;
        let ready = rustix::event::poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&left));
        if ready.is_ok_and(|ready| ready == 0) {
            return Err(Error::new(
                Kind::System,
                "the runtime did not write the whole state in time",
            ));
        }
        let read = input.read(&mut part);
        match read.map_err(|e| Error::io("read", "standard input", e))? {
            0 => return Ok(state),
            count => state.extend_from_slice(&part[..count]),
        }
        if state.len() as u64 > MAX_STATE {
            return Err(Error::refused("what stands on standard input is too long"));
        }
    }
}

fn of_state(state: State, config: &Path) -> Result<Subject> {
    let name = name_of(&state.id);
    if state.pid <= 0 {
        return Err(Error::refused(format!(
            "the state of container {name} has no process of this host"
        ))
        .remedy("call it as a createRuntime hook"));
    }
    let bundle = Bundle::read(&state.bundle, config)?;
    let mut annotations = bundle.annotations;
    annotations.extend(state.annotations.unwrap_or_default());
    Ok(Subject {
        name,
        pid: state.pid,
        root: Some(bundle.root),
        unmasked: bundle.unmasked,
        annotations,
    })
}

/// What LXC tells a hook (lxc.container.conf(5), "Container hooks environment variables"). Its init has entered its
/// root by the time of start-host, and waits.
fn of_environment() -> Result<Subject> {
    let get = |name: &str| {
        std::env::var(name).map_err(|_| {
            Error::refused(format!("{name} is not set"))
                .remedy("LXC sets it for the hook lxc.hook.start-host")
        })
    };
    let pid = std::env::var("LXC_PID").unwrap_or_default();
    Ok(Subject {
        name: name_of(&get("LXC_NAME")?),
        pid: pid.parse().unwrap_or(0),
        root: None,
        unmasked: false,
        annotations: BTreeMap::new(),
    })
}

/// Whether we are in a user namespace of somebody who is not root on the host.
pub(super) fn is_rootless() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all = ["0", "0", "4294967295"];
    !map.split_ascii_whitespace().eq(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_known_by_the_names_of_runtimes_and_of_lxc() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (text, lxc, wanted) in [
            ("createRuntime", false, Stage::Attach),
            ("prestart", false, Stage::Attach),
            ("poststop", false, Stage::Forget),
            ("web lxc start-host", true, Stage::Attach),
            ("web lxc post-stop", true, Stage::Forget),
        ] {
            assert_eq!(stage(&words(text), lxc).unwrap(), wanted, "{text}");
        }
        assert_eq!(stage(&[], false).unwrap(), Stage::Attach);
        for (text, lxc) in [
            ("poststart", false),
            ("web lxc mount", true),
            ("start-host", false),
        ] {
            assert!(stage(&words(text), lxc).is_err(), "{text}");
        }
    }
}
