//! `eci-runc`, also called `eci-fs runtime`: an OCI runtime for engines that have no directory of hooks.
//!
//! The wrapper adds the hook to the bundle of a new container, and then executes the real runtime in its own place. The real
//! runtime gets the same arguments, descriptors, environment, signals and parent process.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use eci_fs_mountd::config::{self, Config, Location, OnError};
use eci_fs_mountd::output::print_error;
use eci_fs_mountd::runtime_dir;
use eci_fs_protocol::error::{Error, Result};
use nix::unistd::execv;

use crate::cli::client::Client;
use crate::cli::program::{self, RUNTIME as PROGRAM, USUAL_DIRECTORIES};
use crate::cli::sigpipe;
use crate::oci::bundle::{Bundle, CONFIG};
use crate::oci::command_line::CommandLine;
use crate::oci::decision::{Decision, decide};
use crate::oci::hooks::{self, HOOK_NAME, Hook};
use crate::oci::runtime_log;

/// The runtimes that are looked for when the configuration names none.
const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// The seconds that a runtime waits for the hook beyond the hook's own time limit. The hook's own error says more than
/// the runtime's.
const GRACE: u64 = 5;

/// The point at which the hook is called. There is no poststop hook: the daemon notices the end of a container earlier
/// than a new program could report it.
const STAGE: &str = "createRuntime";

/// Options of `eci-fs runtime`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Options {
    /// The command line of an OCI runtime; before the subcommand also --eci-runtime-path FILE (the runtime that is
    /// executed) and --eci-config FILE
    #[arg(
        value_name = "ARG",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    arguments: Vec<OsString>,
}

/// Runs as `eci-fs runtime ARG...`.
pub(super) fn main(options: &Options) -> ExitCode {
    become_runtime(options.arguments.clone())
}

/// Edits the bundle if there is one, and executes the real runtime. Returns only when that fails.
pub(super) fn become_runtime(arguments: Vec<OsString>) -> ExitCode {
    let line = CommandLine::parse(arguments);
    let Err(error) = execute(&line);
    if let Some(log) = &line.log {
        runtime_log::write(log, line.log_json, &error);
    }
    print_error(PROGRAM, &error);
    ExitCode::FAILURE
}

fn execute(line: &CommandLine) -> Result<Infallible> {
    let location = match &line.host_config {
        Some(path) => Location::named(path),
        None => Location::of_environment(),
    };
    let config = Config::read(&location)?;
    let wanted = line.runtime.clone();
    let wanted = wanted
        .or_else(|| std::env::var_os("ECI_FS_RUNTIME").map(PathBuf::from))
        .or_else(|| config.runtime.path.clone());
    let runtime = find_runtime(wanted.as_deref())?;
    if line.creates_container() {
        let added = add_hook(line, &location.path, &config);
        if let Err(error) = added {
            match config.hook.on_error {
                OnError::Fail => return Err(error),
                OnError::Ignore => {
                    super::hook::continue_without_views(&config.hook.runtime_dir, &error)
                }
            }
        }
        super::isolate::create(line, &config, &location.path, &runtime)?;
    } else {
        super::isolate::refuse_restore(line, &config)?;
        super::isolate::enter(line, &config, &runtime)?;
    }
    let Err(error) = become_program(&runtime, &line.rest);
    Err(Error::io("execute the runtime", &runtime, error)
        .remedy("name one that is there: [runtime] path in the configuration"))
}

/// Executes the real runtime. The call of the standard library would unblock all signals, and the runtime has to find
/// blocked what its engine has blocked.
fn become_program(program: &Path, arguments: &[OsString]) -> std::io::Result<Infallible> {
    sigpipe::reset()?;
    let words =
        std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
    let words: Vec<CString> = words
        .map(|word| CString::new(word.as_bytes()))
        .collect::<std::result::Result<_, _>>()?;
    Ok(execv(&words[0], &words)?)
}

/// Adds the hook to the bundle of the container that is about to be created.
fn add_hook(line: &CommandLine, config_path: &Path, host: &Config) -> Result<()> {
    let config = &host.hook;
    let path = line.bundle.join(&line.config);
    if !path.exists() {
        // The real runtime reports this, in words that its engine knows.
        return Ok(());
    }
    let bundle = Bundle::read(&line.bundle, &line.config)?;
    match decide(&bundle.annotations, &config.allow) {
        // Isolation wants it without views, too.
        Ok(Decision::LeaveAlone) if !super::isolate::is_wanted(line, host)? => return Ok(()),
        Ok(_) => {}
        // The hook logs this error, and attaches without any choice.
        Err(_) if config.on_error == OnError::Ignore => {}
        Err(error) => return Err(error),
    }
    if config.on_error == OnError::Fail && !config.start {
        // This is checked here because some runtimes do not pass on the error of a hook.
        let client = Client::connect(&config.runtime_dir, config.limit());
        if super::hook::is_rootless() && !matches!(client, Ok(Some(_))) {
            return Ok(());
        }
        client?.ok_or_else(|| super::hook::no_daemon(&config.runtime_dir))?;
    }
    hooks::add_hooks(&path, &[hook(line, config_path, config, None)?])
}

/// Returns the hook for the bundle of a container, with its stage. With `taken_over` it also does what the file of that path
/// says, and a container for which it cannot do it is not started.
///
/// # Errors
/// When a path cannot be found.
pub(super) fn hook(
    line: &CommandLine,
    config_path: &Path,
    config: &config::Hook,
    taken_over: Option<&Path>,
) -> Result<(&'static str, Hook)> {
    let mut args = vec![HOOK_NAME.to_owned(), "hook".to_owned()];
    let mut option = |name: &str, value: &Path| {
        args.extend([name.to_owned(), value.display().to_string()]);
    };
    // The runtime calls the hook in another directory.
    let config_path = std::path::absolute(config_path);
    let config_path = config_path.map_err(|e| Error::io("find", "the configuration", e))?;
    let paths = [
        ("--config", config_path.as_path(), config::DEFAULT),
        ("--runtime-dir", &config.runtime_dir, runtime_dir::DEFAULT),
        ("--bundle-config", &line.config, CONFIG),
    ];
    for (name, path, default) in paths {
        if path != Path::new(default) {
            option(name, path);
        }
    }
    if let Some(path) = taken_over {
        option("--taken-over", path);
    }
    args.push(STAGE.to_owned());
    let hook = Hook {
        path: program::path()?,
        args,
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        timeout: config.timeout + GRACE,
    };
    Ok((STAGE, hook))
}

/// Returns the runtime that is executed: the given path, the given name in PATH, or one of the usual runtimes.
fn find_runtime(wanted: Option<&Path>) -> Result<PathBuf> {
    let found = match wanted {
        Some(path) if path.as_os_str().as_encoded_bytes().contains(&b'/') => Some(path.to_owned()),
        Some(name) => in_path(name.as_os_str()),
        None => RUNTIMES.iter().find_map(|name| in_path(OsStr::new(name))),
    };
    let found = found.ok_or_else(|| {
        let what = wanted.map_or_else(|| RUNTIMES.join(" or "), |name| name.display().to_string());
        Error::not_found(format!("there is no {what} in PATH"))
            .remedy("install it, or name another one: [runtime] path in the configuration")
    })?;
    let own = std::fs::canonicalize("/proc/self/exe").ok();
    if own.is_some() && std::fs::canonicalize(&found).ok() == own {
        return Err(Error::refused(format!(
            "the runtime {} is {PROGRAM} itself",
            found.display()
        ))
        .remedy("name the real one: [runtime] path in the configuration"));
    }
    Ok(found)
}

fn in_path(name: &OsStr) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(USUAL_DIRECTORIES.map(PathBuf::from))
        .collect();
    dirs.into_iter()
        .map(|dir| dir.join(name))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}
