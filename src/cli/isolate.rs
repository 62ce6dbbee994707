//! Isolation at the calls of a runtime: `create` and `run` put a container into a user namespace, `start` and `exec` keep
//! the standard streams and the engine's view of its files right.

use std::os::fd::AsFd;
use std::path::Path;

use eci_fs_mountd::config::Config;
use eci_fs_mountd::container::open_pidfd;
use eci_fs_mountd::isolation::find;
use eci_fs_mountd::isolation::overlays::forget_names;
use eci_fs_mountd::isolation::stage;
use eci_fs_mountd::regular_file::{MAX_BUNDLE_CONFIG, read_to_string};
use eci_fs_protocol::control::{Isolate, Request};
use eci_fs_protocol::error::{Error, Result};

use crate::cli::client::{Client, call_or_start, isolated};
use crate::cli::hook::{is_rootless, no_daemon, write_log};
use crate::cli::runtime::hook;
use crate::isolation::policy::{Decision, Joined, decide, is_wanted as is_wanted_by, parse_map};
use crate::isolation::{self, Range};
use crate::oci::annotations::{check_host_files, isolate};
use crate::oci::bundle::{self, CONFIG};
use crate::oci::command_line::CommandLine;
use crate::oci::isolation::Container;
use crate::oci::saved_state::SavedState;
use crate::oci::states::{CRUN_VARIABLE, States};

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

/// Refuses to restore a container that is to be isolated from a checkpoint: its user namespace, its mounts and its owners
/// are those of the checkpoint.
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

/// Refuses the option `--no-pivot`. With it the container would see the mounts of the runtime: the host's, and all layers.
fn check_pivot(line: &CommandLine) -> Result<()> {
    if !line.has_no_pivot() {
        return Ok(());
    }
    Err(
        Error::refused("a container that is made with --no-pivot cannot be isolated")
            .remedy("take the option away; Docker gives it where DOCKER_RAMDISK is set"),
    )
}

/// Returns whether the host or the container wants it isolated. A container of a user without privileges is in that user's
/// namespace.
pub(super) fn is_wanted(line: &CommandLine, config: &Config) -> Result<bool> {
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
    let is_wanted = is_wanted_by(&container, &config.isolation)?;
    if is_wanted {
        check_host_files(&container.annotations)?;
    }
    let runtime_dir = &config.hook.runtime_dir;
    let decision = decide(&container, &config.isolation, Path::new("/proc"))?;
    if is_wanted && decision == Decision::LeaveAlone(None) {
        isolation::check_host_files(&line.bundle, &container, &config.isolation)?;
    }
    if !matches!(decision, Decision::LeaveAlone(_)) {
        check_pivot(line)?;
    }
    let joined = match decision {
        Decision::LeaveAlone(None) => return Ok(()),
        Decision::LeaveAlone(Some(why)) => {
            let id = line.id.as_deref().unwrap_or_default();
            write_log(
                runtime_dir,
                format_args!("container {id} is not isolated: {why}"),
            );
            return Ok(());
        }
        Decision::Own => None,
        Decision::Join(joined) => Some(joined),
    };
    let Some(id) = &line.id else {
        // The runtime makes no container.
        return Ok(());
    };
    let key = states(line, runtime)?.key(id, &line.bundle)?;
    let range = ask_for_range(config, config_path, key.clone(), joined.as_ref())?;
    let taken_over = range.stage.join(isolation::TAKEN_OVER);
    let locks = hook(line, config_path, &config.hook, Some(&taken_over))?;
    let bundle = isolation::Bundle {
        dir: &line.bundle,
        config: path,
        text: &text,
        container: &container,
        runtime,
        runtime_dir,
        key: &key,
        joined: joined.as_ref().map(|joined| joined.pid),
        locks: config.isolation.locked_mounts.then_some(locks),
    };
    for note in isolation::enter(&bundle, &range, &config.isolation)? {
        let id = line.id.as_deref().unwrap_or_default();
        write_log(runtime_dir, format_args!("container {id}: {note}"));
    }
    Ok(())
}

/// Asks the daemon for a range of ids, or to be a member of the one that another container has. This process becomes the
/// runtime, so it holds the range until the container does.
fn ask_for_range(
    config: &Config,
    config_path: &Path,
    key: String,
    joined: Option<&Joined>,
) -> Result<Range> {
    let hook = &config.hook;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let pidfd = open_pidfd(pid)?;
    let other = joined.map(|joined| open_pidfd(joined.pid)).transpose()?;
    let fds: Vec<_> = [&pidfd]
        .into_iter()
        .chain(&other)
        .map(AsFd::as_fd)
        .collect();
    let request = match joined {
        None => Request::Isolate(Isolate { key }),
        Some(_) => Request::Join(Isolate { key }),
    };
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
    // Runtimes keep the path of a root without symbolic links.
    let stage = std::fs::canonicalize(&isolated.stage)
        .map_err(|e| Error::io("find", &isolated.stage, e))?;
    Ok(Range {
        first_id: isolated.first_id,
        ids: isolated.ids,
        user_namespace,
        stage,
    })
}

/// Returns the directories in which the runtime may keep the states of its containers.
fn states(line: &CommandLine, runtime: &Path) -> Result<States> {
    States::of(line, runtime, std::env::var_os(CRUN_VARIABLE).as_deref())
}

/// Refuses `exec` by youki in a container with a user namespace, if the host or the container wants isolation.
fn check_youki(state: &SavedState, is_wanted: bool) -> Result<()> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/user"));
    // About one that has ended youki has its own words.
    let Ok(its) = namespace(&state.pid.to_string()) else {
        return Ok(());
    };
    if !is_wanted || is_rootless() || namespace("self").is_ok_and(|own| own == its) {
        return Ok(());
    }
    Err(Error::refused(
        "isolation: `youki exec` does not enter the user namespace of a container (seen with 0.7.0), so the program would \
         be root of the host",
    )
    .remedy("make the container with runc or crun, if programs are to be executed in it"))
}

/// Prepares `start` and `exec` of a container that is isolated. Others are left alone.
///
/// # Errors
/// For `exec` by youki, and when the standard streams cannot be given to the container. An engine's view that stays old only
/// goes to the log.
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
    let states = states(line, runtime)?;
    let all = states.directories();
    let found: Vec<_> = all
        .filter_map(|directory| SavedState::read(directory, id))
        .collect();
    if found.is_empty() {
        // It may be kept where it was not looked for.
        if executes && config.isolation.enabled && !is_rootless() {
            isolation::replace_devices().map_err(|error| error.context("isolation"))?;
        }
        return Ok(());
    }
    if executes {
        for state in found.iter().filter(|state| state.is_of_youki) {
            let key = states.key(id, &state.bundle)?;
            check_youki(
                state,
                config.isolation.enabled || find(runtime_dir, &key)?.is_some(),
            )?;
        }
    }
    let root = stage::real_path(runtime_dir).join(stage::ROOT);
    let mut found = found.into_iter();
    let Some(state) = found.find(|state| state.root.as_ref() == Some(&root)) else {
        return Ok(());
    };
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
