//! The command line. Each subcommand has one file or one folder; this file lists them and prints errors.

mod attach;
mod bench;
pub mod client;
mod detach;
mod doctor;
mod fresh_procfs;
mod hook;
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

use crate::oci::hooks;

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

/// The location of the daemon.
#[derive(Debug, Clone, Args)]
struct Runtime {
    /// The runtime directory of eci-mountd
    #[arg(long, value_name = "DIR", env = "ECI_FS_RUNTIME_DIR", default_value = runtime_dir::DEFAULT)]
    runtime_dir: PathBuf,
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
#[allow(clippy::print_stderr, reason = "errors are printed for the user")]
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
    // The daemon blocks its signals and reads them from a descriptor. The server shall end by signals, so it unblocks
    // them.
    nix::sys::signal::SigSet::all()
        .thread_unblock()
        .map_err(|e| Error::io("unblock", "signals", e))?;
    crate::server::serve(link).map_err(|e| Error::io("serve", "the FUSE connections", e))
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

/// Parses the name of a container: digits are a pid, anything else is an id.
fn selector(text: &str) -> Selector {
    match text.parse() {
        Ok(pid) => Selector::Pid(pid),
        Err(_) => Selector::Id(text.to_owned()),
    }
}

/// Returns the error for a command that needs a daemon and starts none.
fn no_daemon(runtime: &Runtime) -> Error {
    Error::not_found(format!(
        "no eci-mountd is running on {}, so nothing is attached",
        runtime.runtime_dir.display()
    ))
    .remedy("`eci-fs attach` starts one")
}
