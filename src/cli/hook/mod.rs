//! `eci-fs hook`: the program that runtimes call while they create a container.
//!
//! Every start of a container waits for the hook, so it does little: it reads its input, sends one request to the
//! daemon, and returns. It leaves no process behind that holds its outputs, because a runtime would wait for that
//! process.

mod container;
mod log;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use eci_fs_mountd::config::{self, Config, Location, OnError};
use eci_fs_mountd::container::open_pidfd;
use eci_fs_mountd::isolation::stage;
use eci_fs_mountd::output::{self, print_error};
use eci_fs_mountd::regular_file::{MAX_BUNDLE_CONFIG, read_to_string};
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::{Attach, CgroupChoice, Lock, Request, Response, Watch};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};
use eci_fs_protocol::locks::Locks;

use crate::cli::PROGRAM;
use crate::cli::client::{Client, call_or_start, unexpected_answer};
use crate::isolation::{self, Overlays};
use crate::oci::bundle::CONFIG;
use crate::oci::decision::{Decision, decide};
use crate::oci::isolation::TakenOver;
use crate::oci::state::{State, name_of};
use container::{ContainerInfo, read_state};
pub(super) use log::continue_without_views;
use log::print_reason;
pub(super) use log::write_log;

/// The name of the subcommand.
pub(super) const NAME: &str = "hook";

/// The time beyond the time limit that the hook has to say by itself what took so long.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Options of `eci-fs hook`. The configuration of the host gives the values of missing options.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// The point at which it is called: createRuntime (or prestart) attaches, poststop forgets; for LXC, NAME lxc
    /// start-host
    #[arg(value_name = "STAGE")]
    words: Vec<String>,
    /// The reaction to a container whose views cannot be grafted
    #[arg(long, value_enum, value_name = "WHAT")]
    on_error: Option<OnError>,
    /// The time limit of the hook
    #[arg(long, value_name = "SECONDS", value_parser = parse_timeout)]
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
    /// The file that says what isolation takes over from the runtime. An error ends the start of the container then,
    /// whatever --on-error says
    #[arg(long, value_name = "FILE", hide = true)]
    taken_over: Option<PathBuf>,
    /// The configuration of the host [default: /etc/eci-fs/config.toml, if it exists]
    #[arg(long, value_name = "FILE", env = config::VARIABLE)]
    config: Option<PathBuf>,
    /// The runtime directory of eci-mountd
    #[arg(long, value_name = "DIR", env = "ECI_FS_RUNTIME_DIR")]
    pub(super) runtime_dir: Option<PathBuf>,
}

/// Parses the time limit of the hook, in seconds.
fn parse_timeout(text: &str) -> std::result::Result<u64, String> {
    match text.parse() {
        Ok(seconds) if (1..=config::MAX_TIMEOUT).contains(&seconds) => Ok(seconds),
        _ => Err(format!(
            "{text:?} is no time; write seconds, from 1 to {}",
            config::MAX_TIMEOUT
        )),
    }
}

/// The action of the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Attach,
    Forget,
}

/// One call of the hook.
#[derive(Debug, Clone)]
struct HookCall {
    config: config::Hook,
    isolation: config::Isolation,
    /// The file with a [`TakenOver`], if anything is taken over from the runtime.
    taken_over: Option<PathBuf>,
    /// The configuration, if it was named. A daemon that the hook starts reads the same one.
    config_path: Option<PathBuf>,
    /// The time at which the time limit is over.
    deadline: Instant,
}

/// The command line with this one subcommand. Parsing it takes less time than parsing that of all commands.
#[derive(Debug, Parser)]
#[command(name = "eci-fs", max_term_width = 100, disable_help_subcommand = true)]
struct HookCommandLine {
    #[command(subcommand)]
    command: HookCommand,
}

#[derive(Debug, Subcommand)]
enum HookCommand {
    /// Attach a container while its runtime makes it: an OCI or LXC hook
    Hook(Options),
}

/// Parses the command line of `eci-fs hook`, and runs it.
pub(super) fn main_of_command_line() -> ExitCode {
    match output::parse::<HookCommandLine>(PROGRAM) {
        Ok(HookCommandLine {
            command: HookCommand::Hook(options),
        }) => main(&options),
        Err(code) => code,
    }
}

/// Runs the hook with these options.
pub(super) fn main(options: &Options) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(PROGRAM, error);
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let (read, result) = match Config::read(&Location::of(options.config.as_deref())) {
        Ok(config) => (config, Ok(())),
        Err(error) => (Config::default(), Err(error)),
    };
    let mut config = read.hook;
    config.on_error = options.on_error.unwrap_or(config.on_error);
    config.timeout = options.timeout.unwrap_or(config.timeout);
    config.start |= options.start;
    if let Some(dir) = &options.runtime_dir {
        config.runtime_dir.clone_from(dir);
    }
    let deadline = begun + config.limit();
    let call = HookCall {
        config,
        isolation: read.isolation,
        taken_over: options.taken_over.clone(),
        config_path: options.config.clone(),
        deadline,
    };
    let result = result.and_then(|()| call.run_in_time(options));
    let Err(error) = result else {
        return Ok(());
    };
    let error = error.context("hook");
    match call.config.on_error {
        // Without the hook the container would be laxer than its configuration says.
        OnError::Ignore if options.taken_over.is_none() => {
            continue_without_views(&call.config.runtime_dir, &error);
            Ok(())
        }
        OnError::Ignore | OnError::Fail => {
            write_log(&call.config.runtime_dir, &error);
            Err(error)
        }
    }
}

/// Returns the error for a missing daemon that the hook is not allowed to start.
pub(super) fn no_daemon(runtime_dir: &Path) -> Error {
    let dir = runtime_dir.display();
    Error::not_found(format!("no eci-mountd is listening on {dir}"))
        .remedy("start the service eci-mountd, or set on-error to ignore")
}

/// Returns the action for the arguments of the hook. LXC puts the name of the container and "lxc" before the hook
/// type.
fn action_for(words: &[String], lxc: bool) -> Result<Action> {
    let from_environment = std::env::var("LXC_HOOK_TYPE").ok().filter(|_| lxc);
    let word = words.last().cloned().or(from_environment);
    match (word.as_deref(), lxc) {
        (None | Some("createRuntime" | "prestart"), false) | (None | Some("start-host"), true) => {
            Ok(Action::Attach)
        }
        (Some("poststop"), false) | (Some("post-stop"), true) => Ok(Action::Forget),
        (Some(other), false) => Err(Error::refused(format!("there is nothing to do at {other}"))
            .remedy("call it as a createRuntime hook, and as a poststop hook")),
        (Some(other), true) => Err(Error::refused(format!("there is nothing to do at {other}"))
            .remedy("set lxc.hook.start-host to it")),
    }
}

impl HookCall {
    /// Runs the hook on a thread of its own. A file system that does not answer holds that thread alone, and it ends with
    /// the process.
    fn run_in_time(&self, options: &Options) -> Result<()> {
        let (done, result) = mpsc::channel();
        let (call, options) = (self.clone(), options.clone());
        std::thread::Builder::new()
            .name("hook".to_owned())
            .spawn(move || drop(done.send(call.run(&options))))
            .map_err(|e| Error::io("start", "a thread", e))?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        match result.recv_timeout(left + LAST_WORDS) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(self.late()),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::new(Kind::System, "a thread of the hook panicked"))
            }
        }
    }

    fn run(&self, options: &Options) -> Result<()> {
        let action = action_for(&options.words, options.lxc)?;
        let mut container = if options.lxc {
            ContainerInfo::of_lxc()?
        } else {
            let state = State::parse(&read_state(self.deadline)?)?;
            if action == Action::Forget {
                // The bundle may be removed already.
                return self.forget(&name_of(&state.id));
            }
            let stage = stage::real_path(&self.config.runtime_dir);
            ContainerInfo::of_state(state, &options.bundle_config, &stage)?
        };
        if action == Action::Forget {
            return self.forget(&container.name);
        }
        for pair in &options.annotations {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| Error::refused(format!("--annotation {pair:?} is no KEY=VALUE")))?;
            container.annotations.insert(key.into(), value.into());
        }
        let name = container.name.clone();
        self.delegate_cgroup(&container);
        self.decide_and_attach(container)
            .map_err(|error| error.context(format!("container {name}")))
    }

    /// Gives an isolated container its cgroup, if it can write to that. Without it the container starts all the same.
    fn delegate_cgroup(&self, container: &ContainerInfo) {
        let runtime_dir = &self.config.runtime_dir;
        let isolated = stage::real_path(runtime_dir).join(stage::ROOT);
        if !container.writable_cgroup || container.root.as_ref() != Some(&isolated) {
            return;
        }
        if let Err(error) = isolation::delegate_cgroups(container.pid, &self.isolation) {
            let name = &container.name;
            write_log(runtime_dir, format_args!("container {name}: {error}"));
        }
    }

    fn decide_and_attach(&self, container: ContainerInfo) -> Result<()> {
        let decision = match decide(&container.annotations, &self.config.allow) {
            Err(error) if self.config.on_error == OnError::Ignore => {
                write_log(&self.config.runtime_dir, &error);
                Decision::Attach(Choices::default())
            }
            other => other?,
        };
        let pidfd = open_pidfd(container.pid)?;
        let taken_over = self.taken_over.as_deref().map(read_taken_over);
        let taken_over = taken_over.transpose()?;
        if let Some(taken_over) = &taken_over {
            isolation::sysctls_inside::write(pidfd.as_fd(), &taken_over.sysctls)?;
        }
        let locks = taken_over.map(|taken_over| taken_over.locks);
        match (decision, locks) {
            (Decision::LeaveAlone, locks) => {
                if let Err(error) = self.watch_overlays(&pidfd, &container) {
                    let name = &container.name;
                    write_log(
                        &self.config.runtime_dir,
                        format_args!(
                            "container {name}: its engine may see old names in its files: {error}"
                        ),
                    );
                }
                match locks {
                    None => Ok(()),
                    Some(locks) => self.lock(&pidfd, container.root, locks),
                }
            }
            (Decision::Attach(choices), None) => {
                match self.attach(&pidfd, container, choices, None) {
                    Err(error)
                        if matches!(error.kind, Kind::NotFound | Kind::Denied) && is_rootless() =>
                    {
                        // The container belongs to a user, and the daemon of the host cannot reach it.
                        print_reason(&error);
                        Ok(())
                    }
                    other => other,
                }
            }
            (Decision::Attach(choices), locks) => self.attach(&pidfd, container, choices, locks),
        }
    }

    /// Has the daemon keep the overlays of an isolated container in step that has no views.
    fn watch_overlays(&self, pidfd: &OwnedFd, container: &ContainerInfo) -> Result<()> {
        let stage = stage::real_path(&self.config.runtime_dir);
        let root = container.root.as_deref();
        let overlays = root.map(|root| Overlays::below(&stage, root)).transpose()?;
        let Some(overlays) = overlays.flatten() else {
            return Ok(());
        };
        let fds = [pidfd, &overlays.engine, &overlays.container].map(AsFd::as_fd);
        let engine_root = overlays.path.clone();
        match self.call(Request::Watch(Watch { engine_root }), &fds)? {
            Response::Watched => Ok(()),
            other => Err(unexpected_answer(&other)),
        }
    }

    /// Has the mounts of a container locked that gets no views.
    fn lock(&self, pidfd: &OwnedFd, root: Option<PathBuf>, locks: Locks) -> Result<()> {
        let request = Request::Lock(Lock {
            root: root.ok_or_else(no_root)?,
            locks,
            views: None,
        });
        match self.call(request, &[pidfd.as_fd()])? {
            Response::Locked => Ok(()),
            other => Err(unexpected_answer(&other)),
        }
    }

    /// Has views grafted into a container, and its mounts locked, if it gets locks.
    fn attach(
        &self,
        pidfd: &OwnedFd,
        container: ContainerInfo,
        choices: Choices,
        locks: Option<Locks>,
    ) -> Result<()> {
        let stage = stage::real_path(&self.config.runtime_dir);
        let overlays = match &container.root {
            Some(root) => Overlays::below(&stage, root)?,
            None => None,
        };
        let mut attach = Attach {
            id: Some(container.name),
            cgroup: CgroupChoice::Own,
            root: container.root,
            unmasked: container.unmasked,
            choices,
            measures_cpus: container.measures_cpus,
            engine_root: overlays.as_ref().map(|overlays| overlays.path.clone()),
        };
        let mut fds = vec![pidfd.as_fd()];
        if let Some(overlays) = &overlays {
            fds.extend([overlays.engine.as_fd(), overlays.container.as_fd()]);
        }
        let request = |attach: Attach| match &locks {
            None => Ok(Request::Attach(attach)),
            Some(locks) => Ok(Request::Lock(Lock {
                root: attach.root.clone().ok_or_else(no_root)?,
                locks: locks.clone(),
                views: Some(attach),
            })),
        };
        let answer = match self.call(request(attach.clone())?, &fds) {
            // Two engines, or two roots of one engine, may have containers of the same name.
            Err(error) if error.reason == Some(Reason::NameTaken) => {
                attach.id = attach.id.map(|id| format!("{id:.100}-{}", container.pid));
                self.call(request(attach)?, &fds)?
            }
            // Two hooks were called, and the first had to give the container another name.
            Err(error) if error.reason == Some(Reason::OtherName) && locks.is_none() => {
                return Ok(());
            }
            other => other?,
        };
        match answer {
            Response::Attached(_) => Ok(()),
            other => Err(unexpected_answer(&other)),
        }
    }

    /// Tells the daemon that the container has ended, and does not wait for the answer. The daemon also notices the
    /// end by itself.
    fn forget(&self, name: &str) -> Result<()> {
        let client = match Client::connect(&self.config.runtime_dir, self.time_left()?) {
            Ok(Some(client)) => client,
            Ok(None) => return Ok(()),
            Err(_) if is_rootless() => return Ok(()),
            Err(error) => return Err(error),
        };
        // Lists and requests by name never show a container that has ended, even before this request is handled.
        client.send(Request::Forget { id: name.into() }, &[])
    }

    fn call(&self, request: Request, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<Response> {
        let dir = &self.config.runtime_dir;
        if self.config.start {
            return Ok(call_or_start(
                dir,
                self.config_path.as_deref(),
                &request,
                fds,
                self.time_left()?,
            )?
            .0);
        }
        let client = Client::connect(dir, self.time_left()?)?.ok_or_else(|| no_daemon(dir))?;
        Ok(client.call(request, fds)?.0)
    }

    /// Returns the time that is left.
    fn time_left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(self.late());
        }
        Ok(left)
    }

    fn late(&self) -> Error {
        Error::new(
            Kind::System,
            format!("it was not done within {:?}", self.config.limit()),
        )
        .remedy("see the log of eci-mountd, or give it more with --timeout")
    }
}

/// Reads what is taken over from the runtime.
fn read_taken_over(path: &Path) -> Result<TakenOver> {
    let text = read_to_string(path, MAX_BUNDLE_CONFIG).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::io("read", path, std::io::Error::from(e)))
}

fn no_root() -> Error {
    Error::refused("only a runtime that makes a container can have its mounts locked")
}

/// Returns whether this process is in a user namespace other than the host's.
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
            ("createRuntime", false, Action::Attach),
            ("prestart", false, Action::Attach),
            ("poststop", false, Action::Forget),
            ("web lxc start-host", true, Action::Attach),
            ("web lxc post-stop", true, Action::Forget),
        ] {
            assert_eq!(action_for(&words(text), lxc).unwrap(), wanted, "{text}");
        }
        assert_eq!(action_for(&[], false).unwrap(), Action::Attach);
        for (text, lxc) in [
            ("poststart", false),
            ("web lxc mount", true),
            ("start-host", false),
        ] {
            assert!(action_for(&words(text), lxc).is_err(), "{text}");
        }
    }
}
