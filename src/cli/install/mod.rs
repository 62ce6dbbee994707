//! `eci-fs install` and `eci-fs uninstall`: the change to an engine's configuration that gives every container of it
//! its views, and the way back.
//!
//! What a configuration becomes is a function from text to text, one file for each engine. What is here reads, shows
//! and writes. Nothing is kept about what was done but a copy of the file as it was: what is ours is known by its name,
//! and by the programs that it calls.

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
use eci_fs_protocol::error::{Error, Result};

use file::File;

/// The name of our runtime in the configurations of engines: `docker run --runtime=eci`.
pub(super) const RUNTIME: &str = "eci";

/// The program that engines call as a runtime.
const RUNTIME_PROGRAM: &str = "eci-runc";

/// The program that engines call as a hook.
const HOOK_PROGRAM: &str = "eci-fs";

/// Options of `eci-fs install`.
#[derive(Debug, Args)]
pub(super) struct Install {
    #[command(flatten)]
    what: What,
    /// Use it for every container for which no runtime is named
    #[arg(long)]
    default_runtime: bool,
    /// Where eci-fs and eci-runc are, as the engine sees it; where this program is otherwise
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// Options of `eci-fs uninstall`.
#[derive(Debug, Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    what: What,
}

/// What both commands are about.
#[derive(Debug, Args)]
struct What {
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

/// What is to stand in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    /// The directory of our programs, as the engine sees it.
    pub(super) bin_dir: String,
    /// Whether our runtime is the one that is used when none is named.
    pub(super) default: bool,
}

impl Wish {
    /// The path of our runtime.
    fn runtime(&self) -> String {
        format!("{}/{RUNTIME_PROGRAM}", self.bin_dir)
    }

    /// The path of our hook.
    fn hook(&self) -> String {
        format!("{}/{HOOK_PROGRAM}", self.bin_dir)
    }

    /// The programs of ours that this engine calls.
    pub(super) fn programs(&self, engine: Engine) -> Vec<String> {
        match engine {
            Engine::Podman => vec![self.hook()],
            _ => vec![self.runtime(), self.hook()],
        }
    }

    /// Whether containers for which no runtime is named use ours.
    pub(super) fn is_default(&self) -> bool {
        self.default
    }

    /// The wish that a path of a program of ours tells; none if it is somebody else's.
    fn of(path: &str, program: &str, default: bool) -> Option<Self> {
        let bin_dir = path.strip_suffix(program)?.strip_suffix('/')?.to_owned();
        Some(Self { bin_dir, default })
    }
}

/// A file of an engine's configuration.
pub(super) trait Edit: Sync {
    /// Its path on the engine's file system.
    fn path(&self) -> &'static str;

    /// What of ours is in it.
    fn installed(&self, text: &str) -> Result<Option<Wish>>;

    /// The file with what is ours; the same text if it is there already. There may be no file yet.
    fn install(&self, text: Option<&str>, wish: &Wish) -> Result<String>;

    /// The file without what is ours, if anything is left of it. `before` is what it was when ours was added, if that
    /// is known.
    fn uninstall(&self, text: &str, before: Option<&str>) -> Result<Option<String>>;
}

impl Engine {
    /// The files that are changed.
    pub(super) fn edits(self) -> &'static [&'static dyn Edit] {
        match self {
            Self::Docker => &[&docker::DaemonJson],
            Self::Podman => &[&podman::CREATE, &podman::STOP],
            Self::Containerd => &[&containerd::ConfigToml],
            Self::Crio => &[&crio::DropIn],
        }
    }

    /// Whether its containers can be given our runtime by default, instead of all having a hook.
    fn has_default_runtime(self) -> bool {
        self != Self::Podman
    }

    /// What is left to be done by the reader, after the configuration was changed.
    fn then(self) -> &'static str {
        match self {
            Self::Docker => "to make it known: systemctl reload docker",
            Self::Podman => "every container that starts from now on has its views",
            Self::Containerd => "to make it known: systemctl restart containerd",
            Self::Crio => "to make it known: systemctl restart crio",
        }
    }
}

#[allow(clippy::print_stdout, reason = "the answer of the command")]
pub(super) fn install(options: &Install) -> Result<()> {
    let engine = options.what.engine;
    if options.default_runtime && !engine.has_default_runtime() {
        return Err(Error::refused(
            "podman needs no default runtime: its hook is for every container",
        )
        .remedy("leave out --default-runtime"));
    }
    let wish = Wish {
        bin_dir: bin_dir(options.bin_dir.as_deref())?,
        default: options.default_runtime,
    };
    let mut changes = Vec::new();
    for edit in engine.edits() {
        let file = File::read(&options.what.root, edit.path())?;
        let inside = |error: Error| error.context(file.path().display());
        let wish = match file.text() {
            // What was chosen before stays chosen.
            Some(text) => {
                let was = edit.installed(text).map_err(inside)?;
                let default = wish.default || was.is_some_and(|was| was.default);
                Wish {
                    default,
                    ..wish.clone()
                }
            }
            None => wish.clone(),
        };
        let text = edit.install(file.text(), &wish).map_err(inside)?;
        // A copy of a file in which ours is already would be no way back.
        let ours = match file.text() {
            Some(text) => edit.installed(text).map_err(inside)?.is_some(),
            None => false,
        };
        if file.text() != Some(&text) {
            changes.push((file, text, !ours));
        }
    }
    if changes.is_empty() {
        println!("installed already: nothing was changed");
        return Ok(());
    }
    if options.what.dry_run {
        for (file, text, _) in &changes {
            print!("{}", file.diff(Some(text)));
        }
        return Ok(());
    }
    for (file, text, back_up) in &changes {
        if *back_up && let Some(copy) = file.back_up()? {
            println!("{}: as it was", copy.display());
        }
        file.write(text)?;
        println!("{}: written", file.path().display());
    }
    println!("{}", engine.then());
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the answer of the command")]
pub(super) fn uninstall(options: &Uninstall) -> Result<()> {
    let engine = options.what.engine;
    let mut changes = Vec::new();
    for edit in engine.edits() {
        let file = File::read(&options.what.root, edit.path())?;
        let inside = |error: Error| error.context(file.path().display());
        let Some(text) = file.text() else { continue };
        let Some(wish) = edit.installed(text).map_err(inside)? else {
            continue;
        };
        let before = file.backup()?;
        // If that is all that has happened to the file, it is undone to the byte.
        let undone = edit
            .install(before.as_deref(), &wish)
            .is_ok_and(|installed| installed == text);
        let after = if undone {
            before
        } else {
            edit.uninstall(text, before.as_deref()).map_err(inside)?
        };
        changes.push((file, after));
    }
    if changes.is_empty() {
        println!("not installed: nothing was changed");
        return Ok(());
    }
    if options.what.dry_run {
        for (file, after) in &changes {
            print!("{}", file.diff(after.as_deref()));
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
        println!("{}: {done}", file.path().display());
    }
    if engine != Engine::Podman {
        println!("{}", engine.then());
    }
    Ok(())
}

/// What of ours is in an engine's configuration below `root`.
pub(super) fn wired(engine: Engine, root: &Path) -> Result<Option<Wish>> {
    let mut wired = None;
    for edit in engine.edits() {
        let file = File::read(root, edit.path())?;
        let inside = |error: Error| error.context(file.path().display());
        if let Some(text) = file.text() {
            wired = wired.or(edit.installed(text).map_err(inside)?);
        }
    }
    Ok(wired)
}

/// Where our programs are.
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
