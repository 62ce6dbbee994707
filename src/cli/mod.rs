//! The command line. Each subcommand has one file or one folder; this file lists them and prints errors.

mod absent;
mod attach;
mod bench;
pub mod client;
mod detach;
mod doctor;
mod fresh_procfs;
mod hook;
mod install;
mod isolate;
mod list;
mod mount;
pub mod program;
mod run;
mod runtime;
mod show;
mod sigpipe;
mod unmount;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use eci_fs_mountd::output::{Output, print_error, print_usage};
use eci_fs_mountd::{daemon, runtime_dir, telemetry};
use eci_fs_protocol::control::Selector;
use eci_fs_protocol::error::{Error, Kind, Result};

use crate::oci::hooks;

/// Show containers their own /proc and /sys.
///
/// Views are grafted over those entries of a container's /proc and /sys where the kernel would tell it about the
/// whole host; everything else stays the kernel's own file.
#[derive(Debug, Parser)]
#[command(name = "eci-fs", version, max_term_width = 100)]
struct CommandLine {
    /// The runtime directory of eci-mountd, as each command takes it
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command in a new container with limits, and with its own view of them
    Run(run::Options),
    /// Graft all views into a running container
    Attach(attach::Options),
    /// Take all grafts out of a container again
    Detach(detach::Options),
    /// Show under a directory what a process would see, without touching its container
    Mount(mount::Options),
    /// Take such a directory away again
    Unmount(unmount::Options),
    /// List attached and mounted containers
    List(list::Options),
    /// Put other versions of the programs in the place of those that run
    Upgrade(upgrade::Options),
    /// Print one view of a container
    Show(show::Options),
    /// Measure how long reads take, beside the kernel's own files and other programs
    Bench(bench::Options),
    /// Attach a container while its runtime makes it: an OCI or LXC hook
    Hook(hook::Options),
    /// Say whether this host has what eci-fs needs, which engines use it, and what to change
    Doctor(doctor::Options),
    /// Change an engine's configuration so that its containers get their views
    Install(install::Install),
    /// Take such a change back
    Uninstall(install::Uninstall),
    /// Be an OCI runtime: add the hook to the bundle, and execute the real one (the same as `eci-runc`)
    Runtime(runtime::Options),
    /// Run the mount daemon (the same as `eci-mountd`)
    Mountd(daemon::Options),
    /// The FUSE server; only eci-mountd starts it
    #[command(hide = true)]
    Serve,
    /// The supervisor of system calls
    #[command(hide = true)]
    Vet,
    /// The outer process of `run`
    #[command(hide = true)]
    RunStage(run::ChildOptions),
    /// The init process of `run`
    #[command(hide = true)]
    RunInit(run::ChildOptions),
    /// The process that executes the command of `run`
    #[command(hide = true)]
    RunExec(run::ExecOptions),
    /// The outer process of a reader of `bench`
    #[command(hide = true)]
    BenchStage(bench::ReaderOptions),
    /// A reader of `bench`
    #[command(hide = true)]
    BenchRead(bench::ReaderOptions),
    /// An idle container of `bench`
    #[command(hide = true)]
    BenchIdle,
}

/// The name of the program in its messages.
const PROGRAM: &str = "eci-fs";

/// The time that a command waits for an answer to a question, or to a request to take something away.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The time that a command waits for something new: the daemon may have to replace a server that hangs first.
const CHANGE_LIMIT: Duration = Duration::from_secs(30);

/// The location of the daemon, and the time that it is given.
#[derive(Debug, Clone, Args)]
struct Runtime {
    /// The runtime directory of eci-mountd; ECI_FS_RUNTIME_DIR sets the default
    #[arg(long, value_name = "DIR", default_value_os_t = runtime_dir::default())]
    runtime_dir: PathBuf,
    /// The time for an answer of eci-mountd; 5 by default, and 30 for what it attaches, mounts or replaces
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
}

impl Runtime {
    /// Returns the time for an answer to a question, or to a request to take something away.
    fn answer_limit(&self) -> Duration {
        self.timeout.unwrap_or(ANSWER_LIMIT)
    }

    /// Returns the time for an answer to a request that makes something new.
    fn change_limit(&self) -> Duration {
        self.timeout.unwrap_or(CHANGE_LIMIT)
    }
}

/// Parses a time limit in seconds, with or without a fraction: from a millisecond to a day.
fn parse_seconds(text: &str) -> std::result::Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!("{text:?} is no time; write seconds, as 5 or 0.5")),
    }
}

/// Parses the number of a process. Whether there is such a process is found out later.
fn parse_pid(text: &str) -> std::result::Result<i32, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no process id; `eci-fs list` and `ps -e` show them"))
}

/// Runs `eci-runc`: as a runtime, or as the hook that it added to a bundle. The hook's name for the program is
/// `eci-fs`.
pub fn eci_runc_main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments
        .next()
        .is_some_and(|name| name == hooks::HOOK_NAME)
    {
        return hook::main_of_command_line();
    }
    runtime::become_runtime(arguments.collect())
}

/// Runs the whole program.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().map(PathBuf::from).unwrap_or_default();
    if name.file_name() == Some(program::RUNTIME.as_ref()) {
        return runtime::become_runtime(arguments.collect());
    }
    if arguments
        .next()
        .is_some_and(|command| command == hook::NAME)
    {
        return hook::main_of_command_line();
    }
    let command = match parse() {
        Ok(command) => command,
        Err(error) => return print_usage(PROGRAM, error),
    };
    telemetry::start();
    let mut out = Output::default();
    let code = match perform(command, &mut out) {
        Ok(code) => code,
        Err(error) => {
            print_error(PROGRAM, error);
            ExitCode::FAILURE
        }
    };
    out.end(PROGRAM, code)
}

/// Parses the command line. A runtime directory that is named before the command is that of the command.
///
/// # Errors
/// A command line that is wrong, or asks for the help or the version.
fn parse() -> std::result::Result<Command, clap::Error> {
    let matches = CommandLine::command().try_get_matches()?;
    let CommandLine {
        runtime_dir,
        mut command,
    } = CommandLine::from_arg_matches(&matches)?;
    let (Some(dir), Some((name, own))) = (runtime_dir, matches.subcommand()) else {
        return Ok(command);
    };
    let Some(place) = command.runtime_dir() else {
        let text = format!("`eci-fs {name}` has no option --runtime-dir");
        return Err(CommandLine::command().error(ErrorKind::UnknownArgument, text));
    };
    if own.value_source("runtime_dir") != Some(ValueSource::CommandLine) {
        *place = dir;
    }
    Ok(command)
}

/// Performs a command. Its answer goes to `out`.
fn perform(command: Command, out: &mut Output) -> Result<ExitCode> {
    match command {
        Command::Run(options) => return Ok(run::main(&options)),
        Command::RunStage(inside) => return Ok(run::stage(inside)),
        Command::RunInit(inside) => return Ok(run::init(inside)),
        Command::RunExec(what) => return Ok(run::exec(&what)),
        Command::BenchStage(inside) => return Ok(bench::stage(&inside)),
        Command::BenchRead(inside) => return Ok(bench::read(&inside)),
        Command::BenchIdle => bench::idle(),
        Command::Bench(options) => bench::main(&options, out),
        Command::Mountd(options) => return Ok(daemon::main(&options)),
        Command::Runtime(options) => return Ok(runtime::main(&options)),
        Command::Serve => serve(),
        Command::Vet => vet(),
        Command::Attach(options) => attach::main(&options, out),
        Command::Detach(options) => detach::main(&options, out),
        Command::Mount(options) => mount::main(&options, out),
        Command::Unmount(options) => unmount::main(&options),
        Command::Doctor(options) => return Ok(doctor::main(&options, out)),
        Command::Install(options) => install::install(&options, out),
        Command::Uninstall(options) => install::uninstall(&options, out),
        Command::Hook(options) => return Ok(hook::main(&options)),
        Command::Upgrade(options) => upgrade::main(&options, out),
        Command::List(options) => list::main(&options, out),
        Command::Show(options) => show::main(&options, out),
    }?;
    Ok(ExitCode::SUCCESS)
}

impl Command {
    /// Returns the runtime directory that the command uses, to change it; none for a command without that option.
    fn runtime_dir(&mut self) -> Option<&mut PathBuf> {
        let runtime = match self {
            Self::Run(options) => &mut options.runtime,
            Self::Attach(options) => &mut options.runtime,
            Self::Detach(options) => &mut options.runtime,
            Self::Mount(options) => &mut options.runtime,
            Self::Unmount(options) => &mut options.runtime,
            Self::List(options) => &mut options.runtime,
            Self::Upgrade(options) => &mut options.runtime,
            Self::Show(options) => &mut options.runtime,
            Self::Doctor(options) => &mut options.runtime,
            Self::Mountd(options) => return Some(&mut options.runtime_dir),
            Self::Hook(options) => {
                return Some(options.runtime_dir.get_or_insert_with(runtime_dir::default));
            }
            Self::Bench(_)
            | Self::Install(_)
            | Self::Uninstall(_)
            | Self::Runtime(_)
            | Self::Serve
            | Self::Vet
            | Self::RunStage(_)
            | Self::RunInit(_)
            | Self::RunExec(_)
            | Self::BenchStage(_)
            | Self::BenchRead(_)
            | Self::BenchIdle => return None,
        };
        Some(&mut runtime.runtime_dir)
    }
}

fn serve() -> Result<()> {
    let link = channel_of_daemon("serve")?;
    crate::server::serve(link).map_err(|e| Error::io("serve", "the FUSE connections", e))
}

/// Runs the supervisor of system calls. Standard input is the channel to the daemon.
fn vet() -> Result<()> {
    let channel = channel_of_daemon("vet")?;
    crate::vet::serve(channel).map_err(|e| Error::io("supervise", "system calls", e))
}

/// Returns standard input, at whose other end is the daemon that started this process.
fn channel_of_daemon(command: &str) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd;
    let link = rustix::stdio::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::io("duplicate", "standard input", e))?;
    if !rustix::net::sockopt::socket_type(&link)
        .is_ok_and(|kind| kind == rustix::net::SocketType::SEQPACKET)
    {
        return Err(
            Error::refused(format!("`{command}` is started by eci-mountd only"))
                .remedy("use `eci-fs run` or `attach`"),
        );
    }
    // The daemon blocks its signals and reads them from a descriptor. This process shall end by signals, so it unblocks
    // them.
    nix::sys::signal::SigSet::all()
        .thread_unblock()
        .map_err(|e| Error::io("unblock", "signals", e))?;
    Ok(link)
}

/// Refuses to run without root. Without this check a later step fails with a less clear error.
fn need_root(command: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(
        Error::new(Kind::Denied, format!("`eci-fs {command}` needs root"))
            .remedy("run it with sudo"),
    )
}

/// Returns a number of things in words: "1 container", "2 containers".
fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// Parses the name of a container: digits are a pid, anything else is an id.
fn selector(text: &str) -> Selector {
    match text.parse() {
        Ok(pid) => Selector::Pid(pid),
        Err(_) => Selector::Id(text.to_owned()),
    }
}
