//! The command line. One file a command; this one says which there are, and how an error is shown.

mod attach;
mod bench;
pub mod client;
pub mod config;
mod detach;
mod doctor;
mod hook;
mod hook_log;
mod install;
mod list;
mod mount;
pub mod program;
mod run;
mod runtime;
mod show;
mod unmount;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use eci_fs_mountd::{daemon, runtime_dir, telemetry};
use eci_fs_protocol::control::Selector;
use eci_fs_protocol::error::{Error, Kind, Result};

use crate::oci::edit;

/// Show containers their own /proc and /sys.
///
/// Views are grafted over those entries of a container's /proc and /sys where the kernel would tell it about the
/// whole machine; everything else stays the kernel's own file.
#[derive(Debug, Parser)]
#[command(name = "eci-fs", version, max_term_width = 100)]
struct CommandLine {
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
    /// Say whether this machine has what eci-fs needs, which engines use it, and what to change
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
    /// The outer process of `run`
    #[command(hide = true)]
    RunStage(run::Inside),
    /// The init process of `run`
    #[command(hide = true)]
    RunInit(run::Inside),
    /// What becomes the command of `run`
    #[command(hide = true)]
    RunExec(run::Become),
    /// The outer process of a reader of `bench`
    #[command(hide = true)]
    BenchStage(bench::Inside),
    /// A reader of `bench`
    #[command(hide = true)]
    BenchRead(bench::Inside),
    /// A container of `bench` that only is there
    #[command(hide = true)]
    BenchIdle,
}

/// Where the daemon is.
#[derive(Debug, Clone, Args)]
struct Runtime {
    /// The runtime directory of eci-mountd
    #[arg(long, value_name = "DIR", env = "ECI_FS_RUNTIME_DIR", default_value = runtime_dir::DEFAULT)]
    runtime_dir: PathBuf,
}

/// The program `eci-runc`: a runtime, or the hook that it put into a bundle, which is called by the name `eci-fs`.
pub fn called_by_engines() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| name == edit::NAME) {
        return hook::alone();
    }
    runtime::become_runtime(arguments.collect())
}

/// The whole program.
#[allow(
    clippy::print_stderr,
    reason = "this is the program's last word to its user"
)]
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
        return hook::alone();
    }
    let line = CommandLine::parse();
    telemetry::start();
    let result = match line.command {
        Command::Run(options) => return run::main(&options),
        Command::RunStage(inside) => return run::stage(inside),
        Command::RunInit(inside) => return run::init(inside),
        Command::RunExec(what) => return run::exec(&what),
        Command::BenchStage(inside) => return bench::stage(&inside),
        Command::BenchRead(inside) => return bench::read(&inside),
        Command::BenchIdle => bench::idle(),
        Command::Bench(options) => bench::main(&options),
        Command::Mountd(options) => return daemon::main(&options),
        Command::Runtime(options) => return runtime::main(&options),
        Command::Serve => serve(),
        Command::Attach(options) => attach::main(&options),
        Command::Detach(options) => detach::main(&options),
        Command::Mount(options) => mount::main(&options),
        Command::Unmount(options) => unmount::main(&options),
        Command::Doctor(options) => return doctor::main(&options),
        Command::Install(options) => install::install(&options),
        Command::Uninstall(options) => install::uninstall(&options),
        Command::Hook(options) => return hook::main(&options),
        Command::Upgrade(options) => upgrade::main(&options),
        Command::List(options) => list::main(&options),
        Command::Show(options) => show::main(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("eci-fs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    use std::os::fd::AsFd;
    let link = rustix::stdio::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::io("duplicate", "standard input", e))?;
    if !rustix::net::sockopt::socket_type(&link)
        .is_ok_and(|kind| kind == rustix::net::SocketType::SEQPACKET)
    {
        return Err(Error::refused("`serve` is started by eci-mountd only")
            .remedy("use `eci-fs run` or `attach`"));
    }
    // The daemon reads its signals from a descriptor, and has them blocked; the server shall end by them.
    nix::sys::signal::SigSet::all()
        .thread_unblock()
        .map_err(|e| Error::io("unblock", "signals", e))?;
    crate::server::serve(link).map_err(|e| Error::io("serve", "the FUSE connections", e))
}

/// Refuse to go on without root, before anything else fails in words that do not say so.
fn need_root(command: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(
        Error::new(Kind::Denied, format!("`eci-fs {command}` needs root"))
            .remedy("run it with sudo"),
    )
}

/// A container as a person names it: digits are a pid, all else is a name.
fn selector(text: &str) -> Selector {
    match text.parse() {
        Ok(pid) => Selector::Pid(pid),
        Err(_) => Selector::Id(text.to_owned()),
    }
}

/// There is no daemon, and this command starts none.
fn no_daemon(runtime: &Runtime) -> Error {
    Error::not_found(format!(
        "no eci-mountd is running on {}, so nothing is attached",
        runtime.runtime_dir.display()
    ))
    .remedy("`eci-fs attach` starts one")
}
