//! `eci-fs install` and `eci-fs uninstall`: a change to an engine's configuration that gives its containers views, and
//! the way back.
//!
//! For each engine one file has a function from the old text to the new text. This file reads, shows and writes. The
//! only record of a change is a copy of the original file. An entry of eci-fs is known by its name and by the programs
//! that it calls.

pub(super) mod containerd;
pub(super) mod crio;
pub(super) mod docker;
mod file;
pub(super) mod podman;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use eci_fs_mountd::output::Output;
use eci_fs_protocol::error::{Error, Result};

use file::File;

/// The name of the runtime in the configurations of engines: `docker run --runtime=eci`.
pub(super) const RUNTIME: &str = "eci";

/// The program that engines call as a runtime.
const RUNTIME_PROGRAM: &str = "eci-runc";

/// The program that engines call as a hook.
const HOOK_PROGRAM: &str = "eci-fs";

/// Options of `eci-fs install`.
#[derive(Debug, Args)]
pub(super) struct Install {
    #[command(flatten)]
    target: Target,
    /// Use it for every container for which no runtime is named
    #[arg(long)]
    default_runtime: bool,
    /// The directory of eci-fs and eci-runc, as the engine sees it; by default that of this program
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// Options of `eci-fs uninstall`.
#[derive(Debug, Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    target: Target,
}

/// Options of both commands.
#[derive(Debug, Args)]
struct Target {
    /// The engine
    #[arg(long, value_enum)]
    engine: Engine,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// The root of the file system that the engine is in
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Engines whose configuration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Engine {
    /// Docker
    Docker,
    /// Podman
    Podman,
    /// containerd, for `ctr` and for Kubernetes
    Containerd,
    /// CRI-O
    Crio,
}

/// An installation in an engine's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installation {
    /// The directory of the programs, as the engine sees it.
    pub(super) bin_dir: String,
    /// True if containers that name no runtime use this one.
    pub(super) default: bool,
}

impl Installation {
    /// Returns the path of the runtime.
    fn runtime(&self) -> String {
        format!("{}/{RUNTIME_PROGRAM}", self.bin_dir)
    }

    /// Returns the path of the hook.
    fn hook(&self) -> String {
        format!("{}/{HOOK_PROGRAM}", self.bin_dir)
    }

    /// Returns the programs of eci-fs that the engine calls.
    pub(super) fn programs(&self, engine: Engine) -> Vec<String> {
        match engine {
            Engine::Podman => vec![self.hook()],
            _ => vec![self.runtime(), self.hook()],
        }
    }

    /// Returns whether containers that name no runtime use this one.
    pub(super) fn is_default(&self) -> bool {
        self.default
    }

    /// Returns the installation that the path of a program tells. Returns none for another program.
    fn of(path: &str, program: &str, default: bool) -> Option<Self> {
        let bin_dir = path.strip_suffix(program)?.strip_suffix('/')?.to_owned();
        Some(Self { bin_dir, default })
    }
}

/// A file of an engine's configuration.
pub(super) trait EngineConfig: Sync {
    /// Returns the path in the engine's file system.
    fn path(&self) -> &'static str;

    /// Returns the installation that is in the text.
    fn installed(&self, text: &str) -> Result<Option<Installation>>;

    /// Returns the text with the installation added. Returns the same text if it is there already. `text` is none if
    /// there is no file yet.
    fn install(&self, text: Option<&str>, installation: &Installation) -> Result<String>;

    /// Returns the text with the installation removed, or none if nothing else is left. `before` is the text before
    /// the installation, if it is known.
    fn uninstall(&self, text: &str, before: Option<&str>) -> Result<Option<String>>;
}

impl Engine {
    /// Returns the files of the engine that are changed.
    pub(super) fn config_files(self) -> &'static [&'static dyn EngineConfig] {
        match self {
            Self::Docker => &[&docker::DaemonJson],
            Self::Podman => &[&podman::CREATE, &podman::STOP],
            Self::Containerd => &[&containerd::ConfigToml],
            Self::Crio => &[&crio::DropIn],
        }
    }

    /// Returns whether the engine can use the runtime by default. Otherwise all its containers have a hook.
    fn has_default_runtime(self) -> bool {
        self != Self::Podman
    }

    /// Returns the last step, which the user has to do.
    fn next_step(self) -> &'static str {
        match self {
            Self::Docker => "to make it known: systemctl reload docker",
            Self::Podman => "every container that starts from now on has its views",
            Self::Containerd => "to make it known: systemctl restart containerd",
            Self::Crio => "to make it known: systemctl restart crio",
        }
    }
}

pub(super) fn install(options: &Install, out: &mut Output) -> Result<()> {
    let engine = options.target.engine;
    if options.default_runtime && !engine.has_default_runtime() {
        return Err(Error::refused(
            "podman needs no default runtime: its hook is for every container",
        )
        .remedy("leave out --default-runtime"));
    }
    let installation = Installation {
        bin_dir: bin_dir(options.bin_dir.as_deref())?,
        default: options.default_runtime,
    };
    let mut changes = Vec::new();
    for config in engine.config_files() {
        let file = File::read(&options.target.root, config.path())?;
        let inside = |error: Error| error.context(file.path().display());
        let installation = match file.text() {
            // A default runtime that was chosen before stays.
            Some(text) => {
                let was = config.installed(text).map_err(inside)?;
                let default = installation.default || was.is_some_and(|was| was.default);
                Installation {
                    default,
                    ..installation.clone()
                }
            }
            None => installation.clone(),
        };
        let text = config.install(file.text(), &installation).map_err(inside)?;
        // A file that has an installation already must not be copied as the original.
        let ours = match file.text() {
            Some(text) => config.installed(text).map_err(inside)?.is_some(),
            None => false,
        };
        if file.text() != Some(&text) {
            changes.push((file, text, !ours));
        }
    }
    if changes.is_empty() {
        writeln!(out, "installed already: nothing was changed");
        return Ok(());
    }
    if options.target.dry_run {
        for (file, text, _) in &changes {
            write!(out, "{}", file.diff(Some(text)));
        }
        return Ok(());
    }
    for (file, text, back_up) in &changes {
        if *back_up && let Some(copy) = file.back_up()? {
            writeln!(out, "{}: as it was", copy.display());
        }
        file.write(text)?;
        writeln!(out, "{}: written", file.path().display());
    }
    writeln!(out, "{}", engine.next_step());
    Ok(())
}

pub(super) fn uninstall(options: &Uninstall, out: &mut Output) -> Result<()> {
    let engine = options.target.engine;
    let mut changes = Vec::new();
    for config in engine.config_files() {
        let file = File::read(&options.target.root, config.path())?;
        let inside = |error: Error| error.context(file.path().display());
        let Some(text) = file.text() else { continue };
        let Some(installation) = config.installed(text).map_err(inside)? else {
            continue;
        };
        let before = file.backup()?;
        // If nothing else has changed in the file, the original is restored byte for byte.
        let undone = config
            .install(before.as_deref(), &installation)
            .is_ok_and(|installed| installed == text);
        let after = if undone {
            before
        } else {
            config.uninstall(text, before.as_deref()).map_err(inside)?
        };
        changes.push((file, after));
    }
    if changes.is_empty() {
        writeln!(out, "not installed: nothing was changed");
        return Ok(());
    }
    if options.target.dry_run {
        for (file, after) in &changes {
            write!(out, "{}", file.diff(after.as_deref()));
        }
        return Ok(());
    }
    for (file, after) in &changes {
        match after {
            Some(text) => file.write(text)?,
            None => file.remove()?,
        }
        file.remove_backup()?;
        let done = if after.is_some() {
            "written"
        } else {
            "removed"
        };
        writeln!(out, "{}: {done}", file.path().display());
    }
    if engine != Engine::Podman {
        writeln!(out, "{}", engine.next_step());
    }
    Ok(())
}

/// Returns the installation in an engine's configuration below `root`.
pub(super) fn installation(engine: Engine, root: &Path) -> Result<Option<Installation>> {
    let mut found = None;
    for config in engine.config_files() {
        let file = File::read(root, config.path())?;
        let inside = |error: Error| error.context(file.path().display());
        if let Some(text) = file.text() {
            found = found.or(config.installed(text).map_err(inside)?);
        }
    }
    Ok(found)
}

/// Returns the directory of the programs.
fn bin_dir(given: Option<&Path>) -> Result<String> {
    let dir = match given {
        Some(dir) => dir.to_owned(),
        None => {
            let own =
                std::env::current_exe().map_err(|e| Error::io("find", "/proc/self/exe", e))?;
            own.parent().unwrap_or(&own).to_owned()
        }
    };
    match dir.to_str() {
        Some(text) if dir.is_absolute() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(
            Error::refused(format!("{} is no absolute path of letters", dir.display()))
                .remedy("name the directory of eci-fs and eci-runc with --bin-dir"),
        ),
    }
}
