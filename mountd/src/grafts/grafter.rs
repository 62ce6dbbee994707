//! The thread that grafts.
//!
//! `open_tree(OPEN_TREE_CLONE)` clones only mounts of the caller's own mount namespace, and `setns` into that of a
//! container needs a thread that shares its root with no other. So one thread lives in the namespace of the source
//! mounts. It is sent closures, and runs them one after the other.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;

use super::probe::{Probes, gone};
use super::source_mounts::SourceMounts;
use crate::container::procfs::Proc;
use eci_fs_protocol::error::{Error, Result};

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
}

impl Grafter {
    /// Starts the thread with the source mounts of `origin`.
    ///
    /// # Errors
    /// When a namespace cannot be made or a mount is refused; the error says which. When a namespace that was handed
    /// over is not one of source mounts.
    pub fn start(proc: Arc<Proc>, origin: Origin) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let probes = Probes::start()?;
        let (ready, made) = mpsc::channel();
        std::thread::Builder::new()
            .name("grafter".to_owned())
            .spawn(move || {
                let made = match origin {
                    Origin::Mount(fuse) => SourceMounts::make(proc, probes, &fuse),
                    Origin::Namespace(home) => SourceMounts::enter(proc, probes, home),
                };
                let mounts = match made {
                    Ok(mounts) => mounts,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                drop(ready.send(Ok(())));
                for job in inbox {
                    job(&mounts);
                }
            })
            .map_err(|e| Error::io("start", "the grafter thread", e))?;
        made.recv().map_err(|_| gone())??;
        Ok(Self { jobs })
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
