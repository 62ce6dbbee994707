//! Ranges of ids for containers that have a user namespace of their own.
//!
//! A *range* is 65,536 ids of the host that one container has alone, or several that share a user namespace. Its
//! *members* are the processes that hold it: first the wrapper, which becomes the runtime, then the init of each container
//! in it. The wrapper of a container that joins the user namespace of another one is a member of that one's range, too.
//! When the last member has ended, and no other process has an id of the range, it is free. Free ranges are given in turn,
//! so that the one that became free last is given last.
//!
//! | file | content |
//! |---|---|
//! | [`ranges`] | the ids that may be given |
//! | [`claims`] | the ranges that are given by all daemons of the host |
//! | [`record`] | the file of a container that has a range |
//! | `giving`, `freeing` | the choice of a range, and the end of one |
//! | `joining`, `ends` | the members of a range, as they come and go |
//! | `prepared` | the prepared user namespace |
//! | `state` | the ranges that are given, as the daemon knows them |
//! | `in_use` | the ids that processes have |
//! | `user_namespace` | a user namespace with a range |
//! | [`stage`] | the mount below which files of containers are put together |
//! | [`overlays`] | the engine's overlay of a container, and its own |
//! | `without_views` | the overlays of containers that are isolated and have no views |

pub mod claims;
mod ends;
mod freeing;
mod giving;
mod in_use;
mod joining;
pub mod overlays;
mod prepared;
pub mod ranges;
pub mod record;
pub mod stage;
mod state;
mod user_namespace;
mod without_views;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::epoll;

use crate::container::procfs::Proc;
use crate::container::{has_ended, open_pidfd};
use crate::faults;
use crate::runtime_dir::RuntimeDir;
use claims::Claims;
use eci_fs_protocol::control::{Isolated, MAX_KEY};
use eci_fs_protocol::error::{Error, Kind, Reason, Result};
use in_use::InUse;
pub use joining::range_of;
use overlays::Overlays;
use prepared::Prepared;
use ranges::{Files, IDS};
pub use record::{Found, Member, find};
use state::{Held, Place, State};
pub(crate) use user_namespace::copy_mounts;
pub use user_namespace::make as make_user_namespace;

/// The capability that a runtime needs in the user namespace's parent to set limits, if the owner is not root.
const CAP_SYS_RESOURCE: u32 = 24;

/// The ranges of a daemon.
pub struct Isolation {
    proc: Arc<Proc>,
    overlays: Arc<Overlays>,
    state: Mutex<State>,
    /// The members, by their tokens.
    epoll: OwnedFd,
    /// Called when a range has become free, or nothing is held any more.
    wake: Box<dyn Fn() + Send + Sync>,
    prepared: Mutex<Option<Prepared>>,
}

impl Isolation {
    /// Returns the ranges of a daemon that gives none yet. `overlays` are those of its containers. `wake` is called when a
    /// range has become free.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub(crate) fn new(
        proc: Arc<Proc>,
        overlays: Arc<Overlays>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| Error::io("make", "an epoll set", e))?;
        Ok(Self {
            proc,
            overlays,
            state: Mutex::default(),
            epoll,
            wake: Box::new(wake),
            prepared: Mutex::default(),
        })
    }

    /// Takes over what the daemon before has written down in `runtime`, and gives ranges of `user` from now on. What is
    /// given is noted in the directory `claims`. What cannot be taken over must not keep the daemon from serving.
    pub fn open(&self, runtime: RuntimeDir, claims: PathBuf, user: String) {
        let mut state = self.state.lock();
        let has_records = runtime.path().join(record::DIR).exists();
        state.place = Some(Place {
            runtime,
            claims,
            files: Files::below(Path::new("/")),
            user,
        });
        if has_records && let Err(error) = self.take_over(&mut state) {
            // Processes that have ids of a range are found before it is given again.
            tracing::error!(%error, "not all ranges are taken over");
        }
    }

    /// Reads the ids of all processes, so that the first container does not wait for that.
    pub fn prepare(&self) {
        // The first container finds out why it fails.
        let _ = self.state.lock().watch.begin(&self.proc);
    }

    fn take_over(&self, state: &mut State) -> Result<()> {
        let place = state.place()?;
        let (records, locked) = (place.records()?, Claims::lock(&place.claims)?);
        for name in records.names()? {
            let path = records.path().join(&name);
            let record = record::read(&path).and_then(|record| match record {
                Some(record) if state.overlaps(record.first_id) => Err(Error::refused(format!(
                    "{} has ids of another container",
                    path.display()
                ))),
                record => Ok(record),
            });
            let record = match record {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => {
                    // Processes that have ids of the range are found before it is given again.
                    tracing::error!(%error, "the record is removed");
                    records.remove(&name)?;
                    continue;
                }
            };
            let (first_id, first) = (record.first_id, record.members.first().copied());
            let other = locked.of(first_id).filter(|claim| claim.record != path);
            if other.is_some_and(|claim| claim.is_held(&self.proc, first_id)) {
                tracing::error!(
                    key = record.key,
                    first_id,
                    "another daemon has given the range"
                );
                records.remove(&name)?;
                continue;
            }
            if let Some(first) = first {
                locked.put(first_id, first, &path)?;
            }
            let mut members = Vec::new();
            for member in record.members {
                // One that cannot be opened has ended.
                if let Ok(pidfd) = open_pidfd(member.pid)
                    && member.lives(&self.proc)
                {
                    members.push(self.watch(state, member, pidfd)?);
                }
            }
            self.watch_again(&mut members, &record.overlays);
            tracing::info!(
                key = record.key,
                first_id,
                members = members.len(),
                "range taken over"
            );
            let key = record.key;
            state.held.insert(first_id, Held { key, members });
        }
        Ok(())
    }

    /// Gives the container `key` a range, which the process behind `pidfd` holds. One that has a range which nobody else
    /// holds gets the same again.
    ///
    /// # Errors
    /// [`Reason::NoRange`] when there is no free range, and [`Reason::NameTaken`] when another process holds the range of
    /// this container.
    pub fn isolate(self: &Arc<Self>, key: String, pidfd: OwnedFd) -> Result<(Isolated, OwnedFd)> {
        check_key(&key)?;
        let member = self.member(pidfd.as_fd())?;
        let pid = member.pid;
        let owned_by_root = !has_capability(&self.proc, pid, CAP_SYS_RESOURCE)?;
        let hold = |pidfd: OwnedFd| -> Result<(u32, PathBuf)> {
            let mut state = self.state.lock();
            let stage = stage::ensure(&state.place_to_hold()?.runtime)?;
            self.start_thread(&mut state)?;
            Ok((self.hold(&mut state, &key, member, pidfd)?, stage))
        };
        let again = pidfd
            .try_clone()
            .map_err(|e| Error::io("duplicate", "a pidfd", e))?;
        let (first_id, stage) = match hold(pidfd) {
            // The thread may not have heard yet that the members of a range have ended.
            Err(error) if error.reason == Some(Reason::NoRange) => {
                self.free_those_that_have_ended();
                hold(again)?
            }
            held => held?,
        };
        faults::kill_at("isolate-held");
        let namespace = self.namespace_of(first_id, owned_by_root);
        let namespace = namespace.inspect_err(|_| {
            let mut state = self.state.lock();
            if let Some(held) = state.held.get_mut(&first_id) {
                held.members.retain(|one| one.member != member);
            }
            // No process had an id of it.
            self.settle(&mut state, first_id, &InUse::default());
        })?;
        faults::kill_at("isolate-answer");
        let mut state = self.state.lock();
        state.expected = state.next_after(first_id).map(|next| (next, owned_by_root));
        drop(state);
        tracing::info!(key, first_id, pid, "range given");
        let isolated = Isolated {
            first_id,
            ids: IDS,
            stage,
        };
        Ok((isolated, namespace))
    }

    /// Returns the process behind a pidfd.
    ///
    /// # Errors
    /// When it has ended.
    fn member(&self, pidfd: BorrowedFd<'_>) -> Result<Member> {
        let pid = self.proc.pid_of(pidfd)?;
        let process = self.proc.process(pid)?;
        if has_ended(pidfd)? {
            return Err(Error::process_ended());
        }
        Ok(Member {
            pid,
            start_ticks: process.start_ticks,
        })
    }

    /// Makes a process a member of a range that the container `key` gets, or has.
    fn hold(&self, state: &mut State, key: &str, member: Member, pidfd: OwnedFd) -> Result<u32> {
        let had = state.held.iter().find(|(_, held)| held.key == key);
        if let Some((first_id, held)) = had {
            let first_id = *first_id;
            let others = held.members.iter().filter(|one| one.member != member);
            for other in others {
                if !has_ended(other.pidfd.as_fd())? {
                    return Err(Error::new(
                        Kind::Busy,
                        format!(
                            "process {} has the ids of the container {key}",
                            other.member.pid
                        ),
                    )
                    .remedy("delete that container first")
                    .because(Reason::NameTaken));
                }
            }
            self.add_member(state, first_id, member, pidfd)?;
            return Ok(first_id);
        }
        let live = self.watch(state, member, pidfd)?;
        let first_id = self.take(state, key, member)?;
        let (key, members) = (key.to_owned(), vec![live]);
        state.held.insert(first_id, Held { key, members });
        Ok(first_id)
    }

    /// Returns true if no range is given.
    pub fn is_idle(&self) -> bool {
        self.state.lock().is_idle()
    }

    /// Gives no ranges any more, and takes the stage away if none is given. Those that are given are left to the next
    /// daemon.
    pub fn end(&self) {
        self.free_those_that_have_ended();
        let mut state = self.state.lock();
        state.ending = true;
        let Some(place) = state.place.as_ref().filter(|_| state.is_idle()) else {
            return;
        };
        stage::remove(&place.runtime);
        // It is not there if no range was given, and stays if a later daemon's record is in it.
        let _ = std::fs::remove_dir(place.runtime.path().join(record::DIR));
    }
}

impl std::fmt::Debug for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Isolation")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

fn check_key(key: &str) -> Result<()> {
    if !key.is_empty() && key.len() <= MAX_KEY {
        return Ok(());
    }
    Err(Error::refused(format!(
        "the key of a container has {} bytes, and must have 1 to {MAX_KEY}",
        key.len()
    )))
}

/// Returns true if a process has a capability.
fn has_capability(proc: &Proc, pid: i32, capability: u32) -> Result<bool> {
    let status = proc.read(&format!("{pid}/status"))?;
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    Ok(set.is_some_and(|set| set & (1 << capability) != 0))
}

/// Returns the directory of claims that is used when no option names one.
pub fn default_claims() -> PathBuf {
    match std::env::var_os(claims::VARIABLE) {
        Some(dir) if !dir.is_empty() => dir.into(),
        _ => claims::DEFAULT.into(),
    }
}
