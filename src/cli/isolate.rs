//! Isolation at the calls of a runtime: `create` and `run` put a container into a user namespace, `start` and `exec` keep
//! the standard streams and the engine's view of its files right.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use eci_fs_mountd::config::Config;
use eci_fs_mountd::container::open_pidfd;
use eci_fs_mountd::isolation::overlays::forget_names;
use eci_fs_mountd::isolation::stage;
use eci_fs_mountd::regular_file::{MAX_BUNDLE_CONFIG, read_to_string};
use eci_fs_protocol::control::{Isolate, Request};
use eci_fs_protocol::error::{Error, Kind, Result};

use crate::cli::client::{Client, call_or_start, isolated};
use crate::cli::hook::{is_rootless, no_daemon, write_log};
use crate::isolation::policy::{Decision, Joined, decide, parse_map};
use crate::isolation::{self, Range};
use crate::oci::annotations::isolate;
use crate::oci::bundle::{self, CONFIG};
use crate::oci::command_line::CommandLine;
use crate::oci::isolation::Container;
use crate::oci::saved_state::SavedState;

/// Isolates the container that is about to be made, if it shall be. `config_path` is the file of `config`.
///
/// # Errors
/// When it shall be isolated and cannot be. Whatever the reaction to errors of views is: such a container does not start.
pub(super) fn create(
    line: &CommandLine,
    config: &Config,
    config_path: &Path,
    runtime: &Path,
) -> Result<()> {
    if !is_wanted(line, config)? {
        return Ok(());
    }
    let about = |error: Error| error.context("isolation");
    create_isolated(line, config, config_path, runtime).map_err(about)
}

/// Refuses to make a container out of a checkpoint that should be isolated: its user namespace, its mounts and its owners are
/// those of the checkpoint.
///
/// # Errors
/// For `restore` of such a container.
pub(super) fn refuse_restore(line: &CommandLine, config: &Config) -> Result<()> {
    if line.subcommand.as_deref() != Some("restore") || !is_wanted(line, config)? {
        return Ok(());
    }
    Err(Error::refused(
        "isolation: a container cannot be restored from a checkpoint and be isolated",
    )
    .remedy("start it anew, or call the runtime without eci-runc"))
}

/// Refuses an option with which the container would see the mounts of the runtime: the host's, and all layers.
fn check_pivot(line: &CommandLine) -> Result<()> {
    let is_it = |argument: &OsString| {
        let word = argument.as_bytes();
        let dashes = word.iter().take_while(|byte| **byte == b'-').count();
        let option = &word[dashes..];
        (1..=2).contains(&dashes)
            && option.starts_with(b"no-pivot")
            && option != b"no-pivot=false"
            && option != b"no-pivot=0"
    };
    if !line.rest.iter().any(is_it) {
        return Ok(());
    }
    Err(
        Error::refused("a container that is made with --no-pivot cannot be isolated")
            .remedy("take the option away; Docker gives it where DOCKER_RAMDISK is set"),
    )
}

/// Returns whether the host or the container wants it isolated. A container of a user without privileges is in that user's
/// namespace.
fn is_wanted(line: &CommandLine, config: &Config) -> Result<bool> {
    if is_rootless() {
        return Ok(false);
    }
    if config.isolation.enabled {
        return Ok(true);
    }
    // What cannot be read is the runtime's to report.
    match bundle::Bundle::read(&line.bundle, &line.config) {
        Ok(bundle) => Ok(isolate(&bundle.annotations)? == Some(true)),
        Err(_) => Ok(false),
    }
}

fn create_isolated(
    line: &CommandLine,
    config: &Config,
    config_path: &Path,
    runtime: &Path,
) -> Result<()> {
    // What is not found here may be found by a runtime that reads its options in another way.
    let path = &line.bundle.join(&line.config);
    let text = read_to_string(path, MAX_BUNDLE_CONFIG).map_err(|e| Error::io("read", path, e))?;
    let container = Container::parse(&text).map_err(|error| error.context(path.display()))?;
    let runtime_dir = &config.hook.runtime_dir;
    let decision = decide(&container, &config.isolation, Path::new("/proc"))?;
    if !matches!(decision, Decision::LeaveAlone(_)) {
        check_pivot(line)?;
    }
    let range = match decision {
        Decision::LeaveAlone(None) => return Ok(()),
        Decision::LeaveAlone(Some(why)) => {
            let id = line.id.as_deref().unwrap_or_default();
            write_log(
                runtime_dir,
                format_args!("container {id} is not isolated: {why}"),
            );
            return Ok(());
        }
        Decision::Own => {
            let Some(key) = key(line, runtime)? else {
                // Without an id the runtime makes no container.
                return Ok(());
            };
            ask_for_range(config, config_path, key)?
        }
        Decision::Join(joined) => range_of(joined, runtime_dir)?,
    };
    let bundle = isolation::Bundle {
        dir: &line.bundle,
        config: path,
        text: &text,
        container: &container,
    };
    for note in isolation::enter(&bundle, &range, config.isolation.unmapped_volumes)? {
        let id = line.id.as_deref().unwrap_or_default();
        write_log(runtime_dir, format_args!("container {id}: {note}"));
    }
    Ok(())
}

/// Asks the daemon for a range of ids. This process becomes the runtime, so it holds the range until the container does.
fn ask_for_range(config: &Config, config_path: &Path, key: String) -> Result<Range> {
    let hook = &config.hook;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let pidfd = open_pidfd(pid)?;
    let fds = [pidfd.as_fd()];
    let request = Request::Isolate(Isolate { key });
    let answer = if hook.start {
        call_or_start(
            &hook.runtime_dir,
            Some(config_path),
            &request,
            &fds,
            hook.limit(),
        )
    } else {
        let client = Client::connect(&hook.runtime_dir, hook.limit())?;
        let client = client.ok_or_else(|| no_daemon(&hook.runtime_dir))?;
        client.call(request, &fds)
    };
    let (isolated, user_namespace) = isolated(answer)?;
    Ok(Range {
        first_id: isolated.first_id,
        ids: isolated.ids,
        user_namespace,
        stage: isolated.stage,
    })
}

fn range_of(joined: Joined, runtime_dir: &Path) -> Result<Range> {
    let user_namespace =
        std::fs::File::open(&joined.path).map_err(|e| Error::io("open", &joined.path, e))?;
    Ok(Range {
        first_id: joined.first_id,
        ids: joined.ids,
        user_namespace: user_namespace.into(),
        stage: stage::path(runtime_dir),
    })
}

/// Returns what tells the container from all others of the host: the directory of the runtime's states, and its id in it.
fn key(line: &CommandLine, runtime: &Path) -> Result<Option<String>> {
    let Some(id) = &line.id else {
        return Ok(None);
    };
    let key = states(line, runtime)?.join(id);
    key.into_os_string()
        .into_string()
        .map(Some)
        .map_err(|key| Error::new(Kind::Refused, format!("{} is no UTF-8", key.display())))
}

/// Returns the directory of the runtime's states.
fn states(line: &CommandLine, runtime: &Path) -> Result<PathBuf> {
    match &line.root {
        Some(root) => std::path::absolute(root).map_err(|e| Error::io("find", root, e)),
        // runc, crun and youki each have a directory of their name.
        None => Ok(Path::new("/run").join(runtime.file_name().unwrap_or_default())),
    }
}

/// Prepares `start` and `exec` of a container that is isolated. Others are left alone.
///
/// # Errors
/// When the standard streams cannot be given to the container. An engine's view that stays old only goes to the log.
pub(super) fn enter(line: &CommandLine, config: &Config, runtime: &Path) -> Result<()> {
    let executes = match line.subcommand.as_deref() {
        Some("exec") => true,
        Some("start") => false,
        _ => return Ok(()),
    };
    let Some(id) = &line.id else {
        return Ok(());
    };
    let runtime_dir = &config.hook.runtime_dir;
    let Some(state) = SavedState::read(&states(line, runtime)?, id) else {
        // It may be kept where it was not looked for.
        if executes && config.isolation.enabled && !is_rootless() {
            isolation::replace_devices().map_err(|error| error.context("isolation"))?;
        }
        return Ok(());
    };
    if state.root != Some(stage::path(runtime_dir).join(stage::ROOT)) {
        return Ok(());
    }
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", state.pid));
    if let Some((first_id, _)) = map.ok().and_then(|map| parse_map(&map))
        && executes
    {
        isolation::give_streams(first_id).map_err(|error| error.context("isolation"))?;
    }
    let refreshed = bundle::Bundle::read(&state.bundle, Path::new(CONFIG))
        .and_then(|bundle| forget_names(&bundle.root));
    if let Err(error) = refreshed {
        write_log(runtime_dir, format_args!("container {id}: {error}"));
    }
    Ok(())
}
