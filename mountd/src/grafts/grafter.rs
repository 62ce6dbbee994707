//! The thread that grafts.
//!
//! `open_tree(OPEN_TREE_CLONE)` clones only mounts of the caller's own mount namespace, and `setns` into that of a
//! container needs a thread that shares its root with no other. So one thread lives in the namespace of the source
//! mounts. It is sent closures, and runs them one after the other. It touches nothing that a container decides: that is
//! done on visits, whose threads are in the same namespace.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use super::container::{Outcome, Progress};
use super::probe::{LivenessProbe, Probes, gone};
use super::source_mounts::SourceMounts;
use super::visits::Visits;
use crate::container::Subject;
use crate::container::procfs::Proc;
use crate::faults;
use crate::threads::{self, Mend};
use eci_fs_protocol::error::Result;
use eci_fs_protocol::link::Row;

/// Where the source mounts come from.
#[derive(Debug)]
pub enum Origin {
    /// They are mounted on these `/dev/fuse` descriptors.
    Mount([OwnedFd; 2]),
    /// They are in this mount namespace, which a daemon before this one made.
    Namespace(OwnedFd),
}

type Job = Box<dyn FnOnce(&SourceMounts) + Send>;

/// A handle on the thread. When the last one is dropped, the thread ends, and its namespace with it.
#[derive(Debug, Clone)]
pub struct Grafter {
    jobs: mpsc::Sender<Job>,
    visits: Visits,
    probes: Probes,
}

impl Grafter {
    /// Starts the thread with the source mounts of `origin`.
    ///
    /// # Errors
    /// When a namespace cannot be made or a mount is refused; the error says which. When a namespace that was handed
    /// over is not one of source mounts.
    pub fn start(proc: Arc<Proc>, origin: Origin) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        let mut origin = Some((Arc::clone(&proc), origin));
        threads::start("grafter", Mend::End, move || {
            let Some((proc, origin)) = origin.take() else {
                return;
            };
            let made = match origin {
                Origin::Mount(fuse) => SourceMounts::make(proc, &fuse),
                Origin::Namespace(home) => SourceMounts::enter(proc, home),
            };
            let namespace = made.and_then(|mounts| Ok((mounts.namespace()?, mounts)));
            let mounts = match namespace {
                Ok((namespace, mounts)) => {
                    let _ = ready.send(Ok(namespace));
                    mounts
                }
                Err(error) => return drop(ready.send(Err(error))),
            };
            for job in &inbox {
                faults::at("grafter");
                // The one that waits for it is told.
                let _ = threads::guard("grafter", || job(&mounts));
            }
        })?;
        let namespace = made.recv().map_err(|_| gone())??;
        Ok(Self {
            jobs,
            visits: Visits::start(&proc, &namespace)?,
            probes: Probes::start()?,
        })
    }

    /// Returns a probe of the connections. It does not use the grafter, which may be waiting for a server itself.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn liveness_probe(&self) -> Result<LivenessProbe> {
        let roots = self.run(SourceMounts::roots)?;
        Ok(LivenessProbe::new(self.probes.clone(), roots))
    }

    /// Grafts `rows` into the container in `slot`, whose directory in both connections is `top`, and takes clones that are
    /// prepared for it.
    ///
    /// # Errors
    /// As [`attach`](super::container::attach) and [`Visits::visit`].
    pub fn attach(
        &self,
        subject: &Subject,
        progress: Progress,
        slot: u64,
        top: String,
        rows: Vec<Row>,
    ) -> Result<Outcome> {
        self.visits.visit(subject, move |visit, subject| {
            super::container::attach(visit, subject, &progress, slot, top, &rows)
        })
    }

    /// Locks the mounts of a container that is being made, as [`lock`](super::container::lock) does.
    ///
    /// # Errors
    /// As [`lock`](super::container::lock) and [`Visits::visit`].
    pub fn lock(&self, subject: &Subject, progress: Progress) -> Result<()> {
        self.visits.visit(subject, move |visit, subject| {
            super::container::lock(visit, subject, &progress)
        })
    }

    /// Takes the grafts at `paths` out of a container, as [`detach`](super::container::detach) does.
    ///
    /// # Errors
    /// As [`detach`](super::container::detach) and [`Visits::visit`].
    pub fn detach(
        &self,
        subject: &Subject,
        root: Option<PathBuf>,
        slot: Option<u64>,
        paths: Vec<String>,
    ) -> Result<usize> {
        self.visits.visit(subject, move |visit, subject| {
            super::container::detach(visit, subject, root.as_deref(), slot, &paths)
        })
    }

    /// Looks whether the container lets itself be looked into, without any lock that others need.
    ///
    /// # Errors
    /// [`Kind::Busy`](eci_fs_protocol::error::Kind::Busy) when it does not; the kernel's.
    pub fn knock(&self, subject: &Subject) -> Result<()> {
        self.visits.visit(subject, super::target::knock)
    }

    /// Prepares clones for the container that is going to be in `slot`, with this generation. `rows` are those of
    /// another container: the next one mostly gets the same. When `waiting` is not zero any more, the rest is left out.
    /// Returns false then: the next call makes the rest.
    ///
    /// # Errors
    /// When there are no more threads.
    pub fn prepare(
        &self,
        slot: u64,
        generation: u32,
        rows: Vec<Row>,
        waiting: Arc<AtomicUsize>,
    ) -> Result<bool> {
        self.visits.prepare(slot, generation, rows, waiting)
    }

    /// Returns the pids of the containers that do not let themselves be looked into, as far as that was tried.
    pub fn hanging(&self) -> Vec<i32> {
        self.visits.hanging()
    }

    /// Runs `work` on the thread and returns its result.
    ///
    /// # Errors
    /// The error of `work`; [`eci_fs_protocol::error::Kind::System`] when the thread has ended.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SourceMounts) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (done, result) = mpsc::channel();
        self.jobs
            .send(Box::new(move |mounts| drop(done.send(work(mounts)))))
            .map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }
}
