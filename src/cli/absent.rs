//! A runtime directory where no daemon answers, and what a dead daemon has left there.
//!
//! A daemon that is killed leaves a server that serves on, and a list of the containers that have grafts. To say that
//! nothing is attached would be wrong then. So commands that only ask read that list, and say that the daemon is dead.

use std::path::{Path, PathBuf};
use std::time::Instant;

use eci_fs_mountd::container::lives;
use eci_fs_mountd::container::procfs::Proc;
use eci_fs_mountd::isolation::range_of;
use eci_fs_mountd::output::print_error;
use eci_fs_mountd::registry::{Saved, SavedContainer, read_intent};
use eci_fs_mountd::runtime_dir::{self, RuntimeDir};
use eci_fs_protocol::control::{Listed, Selector};
use eci_fs_protocol::error::{Error, Kind, Result};

use super::{PROGRAM, Runtime};
use crate::cli::client::{Client, is_ending, wait_for_holder};

/// The remedy where a daemon is dead.
pub(super) const START: &str =
    "start eci-mountd again, which takes over: the service, or `eci-fs attach PID`";

/// A runtime directory where no daemon answers.
#[derive(Debug)]
pub(super) struct Absent {
    dir: PathBuf,
    left: Left,
}

/// The state of such a directory.
#[derive(Debug)]
enum Left {
    /// There is no directory.
    NoDirectory,
    /// A daemon that holds the lock, and starts or ends.
    Passing(i32),
    /// No container has anything of ours.
    Nothing,
    /// The daemon has died, and has left something.
    Dead(Dead),
}

/// The remains of a daemon that has died.
#[derive(Debug)]
struct Dead {
    /// The process that the daemon was, as far as is known.
    daemon: Option<i32>,
    /// The process of the server, if it lives.
    server: Option<i32>,
    /// The containers on its list that still run.
    containers: Vec<SavedContainer>,
    /// The process whose attach was cut off.
    cut_off: Option<i32>,
}

/// A daemon, or what there is in its place.
#[derive(Debug)]
pub(super) enum Found {
    Daemon(Client),
    Absent(Absent),
}

/// Connects to the daemon, or looks at what there is in its place. A daemon that starts or ends is waited for.
///
/// # Errors
/// As [`Client::connect`]; when the runtime directory cannot be read.
pub(super) fn find(runtime: &Runtime) -> Result<Found> {
    let dir = &runtime.runtime_dir;
    let deadline = Instant::now() + runtime.answer_limit();
    loop {
        if let Some(client) = Client::connect(dir, runtime.answer_limit())? {
            return Ok(Found::Daemon(client));
        }
        let absent = Absent::look(dir)?;
        if !matches!(absent.left, Left::Passing(_)) || Instant::now() >= deadline {
            return Ok(Found::Absent(absent));
        }
        wait_for_holder(dir);
    }
}

/// Returns the containers of the daemon. Where there is none, returns those that it has left.
///
/// # Errors
/// As [`find`] and [`Client::list`].
pub(super) fn list(runtime: &Runtime) -> Result<(Vec<Listed>, Option<Absent>)> {
    let deadline = Instant::now() + runtime.answer_limit();
    loop {
        let client = match find(runtime)? {
            Found::Daemon(client) => client,
            Found::Absent(absent) => return Ok((absent.listed(), Some(absent))),
        };
        match client.list_with_trouble() {
            Err(error) if is_ending(&error) && Instant::now() < deadline => {
                wait_for_holder(&runtime.runtime_dir);
            }
            other => {
                let (containers, trouble) = other?;
                for words in trouble {
                    print_error(PROGRAM, words);
                }
                return Ok((containers, None));
            }
        }
    }
}

/// Returns the error for a command that needs a daemon and starts none.
pub(super) fn error(runtime: &Runtime) -> Error {
    match Absent::look(&runtime.runtime_dir) {
        Ok(absent) => absent.error(),
        Err(error) => error,
    }
}

impl Absent {
    /// Looks at a runtime directory where no daemon answers.
    ///
    /// # Errors
    /// When the directory cannot be trusted, or a file in it cannot be read.
    pub(super) fn look(dir: &Path) -> Result<Self> {
        let left = match RuntimeDir::open(dir) {
            Ok(runtime) => Left::of(&runtime)?,
            Err(error) if error.kind == Kind::NotFound => Left::NoDirectory,
            Err(error) => return Err(error),
        };
        Ok(Self {
            dir: dir.to_owned(),
            left,
        })
    }

    /// Returns true if something is attached, mounted or cut off all the same, or if that cannot be known.
    pub(super) fn is_wrong(&self) -> bool {
        match self.left {
            // The default directory is made when it is needed. A name that was given may be misspelled.
            Left::NoDirectory => self.dir != Path::new(runtime_dir::DEFAULT),
            Left::Passing(_) | Left::Dead(_) => true,
            Left::Nothing => false,
        }
    }

    /// Returns true if the daemon has died and has left something.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.left, Left::Dead(_))
    }

    /// Returns the containers that a dead daemon has left, as it would list them.
    fn listed(&self) -> Vec<Listed> {
        let proc = Proc::open().ok();
        let listed = |saved: &SavedContainer| Listed {
            id: saved.id.clone(),
            slot: saved.slot,
            pid: saved.pid,
            grafts: saved.grafted.len(),
            mounts: saved.mounts.iter().map(|(dir, _)| dir.clone()).collect(),
            usage: None,
            range: proc
                .as_ref()
                .and_then(|proc| range_of(proc, saved.pid).ok().flatten()),
            locked: saved.locked && !saved.grafted.is_empty(),
            vetted: false,
        };
        self.containers().iter().map(listed).collect()
    }

    fn containers(&self) -> &[SavedContainer] {
        match &self.left {
            Left::Dead(dead) => &dead.containers,
            Left::NoDirectory | Left::Passing(_) | Left::Nothing => &[],
        }
    }

    /// Returns the container that `selector` names, among those that a dead daemon has left.
    pub(super) fn select(&self, selector: &Selector) -> Option<&SavedContainer> {
        let mut containers = self.containers().iter();
        match selector {
            Selector::Id(id) => containers.find(|container| container.id == *id),
            Selector::Pid(pid) => {
                let proc = Proc::open().ok()?;
                let namespace = proc.namespace(*pid, "mnt").ok();
                let is_in = |container: &&SavedContainer| {
                    namespace.is_some() && proc.namespace(container.pid, "mnt").ok() == namespace
                };
                let all = self.containers().iter();
                containers
                    .find(|one| one.pid == *pid)
                    .or_else(|| all.clone().find(is_in))
            }
        }
    }

    /// Returns the container whose views are shown under `dir`, among those that a dead daemon has left.
    pub(super) fn select_mount(&self, dir: &Path) -> Option<&SavedContainer> {
        let is_there =
            |container: &&SavedContainer| container.mounts.iter().any(|(at, _)| at == dir);
        self.containers().iter().find(is_there)
    }

    /// Returns the error for a command that needs the daemon.
    pub(super) fn error(&self) -> Error {
        let dir = self.dir.display();
        match &self.left {
            Left::NoDirectory if self.is_wrong() => Error::not_found(format!(
                "no eci-mountd is running on {dir}: there is no such directory, so nothing is attached there"
            ))
            .remedy("name that of the daemon with --runtime-dir; `eci-fs attach` makes one"),
            Left::NoDirectory => Error::not_found(format!(
                "no eci-mountd is running, and none has run since the host was started: there is no {dir}, so nothing is attached"
            ))
            .remedy("`eci-fs attach` starts one"),
            Left::Passing(pid) => Error::new(
                Kind::Busy,
                format!("eci-mountd (pid {pid}) on {dir} is starting or ending"),
            )
            .remedy("try again"),
            Left::Nothing => Error::not_found(format!(
                "no eci-mountd is running on {dir}, and nothing is attached"
            ))
            .remedy("`eci-fs attach` starts one"),
            Left::Dead(dead) => dead.error(&dir.to_string()),
        }
    }

    /// Returns the error for a command that asks for `wanted` to be done to `container`, which the daemon has left.
    pub(super) fn cannot(&self, wanted: &str, container: &SavedContainer) -> Error {
        let error = self.error();
        let what = format!(
            "{} cannot be {wanted}, and has {} grafts: {}",
            container.id,
            container.grafted.len(),
            error.what
        );
        Error { what, ..error }
    }
}

impl Left {
    fn of(runtime: &RuntimeDir) -> Result<Self> {
        if let Some(pid) = runtime.living_holder() {
            return Ok(Self::Passing(pid));
        }
        let proc = Proc::open()?;
        let boot_id = proc.read("sys/kernel/random/boot_id")?;
        let boot_id = boot_id.trim();
        let saved = Saved::look(runtime)?.filter(|saved| saved.boot_id == boot_id);
        let mut containers = saved.map_or_else(Vec::new, |saved| saved.containers);
        containers.retain(|container| lives(&proc, container.pid, container.start_ticks));
        let intent = read_intent(runtime)?.filter(|intent| {
            intent.boot_id == boot_id && lives(&proc, intent.pid, intent.start_ticks)
        });
        // A container on the list was attached to its end.
        let is_listed = |slot| containers.iter().any(|container| container.slot == slot);
        let cut_off = intent.filter(|intent| !is_listed(intent.slot));
        let server = runtime
            .read_server()?
            .filter(|(pid, start_ticks)| lives(&proc, *pid, *start_ticks));
        if containers.is_empty() && cut_off.is_none() && server.is_none() {
            return Ok(Self::Nothing);
        }
        Ok(Self::Dead(Dead {
            daemon: runtime.lock_holder(),
            server: server.map(|(pid, _)| pid),
            containers,
            cut_off: cut_off.map(|intent| intent.pid),
        }))
    }
}

impl Dead {
    fn error(&self, dir: &str) -> Error {
        let daemon = self
            .daemon
            .map_or_else(String::new, |pid| format!(" (pid {pid})"));
        let containers = super::count(self.containers.len(), "container");
        let mut what = match self.server {
            Some(pid) => format!(
                "eci-mountd{daemon} on {dir} is dead; its server (pid {pid}) serves {containers} on"
            ),
            None => format!(
                "eci-mountd{daemon} on {dir} and its server are dead; the grafts of {containers} cannot be read"
            ),
        };
        if let Some(pid) = self.cut_off {
            what += &format!("; the attach of process {pid} was cut off");
        }
        Error::new(Kind::System, what).remedy(START)
    }
}
