//! Directories of the host under which a container's views are shown: `eci-fs mount` and `unmount`.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;

use super::operations::{Daemon, vanished};
use crate::container::describe;
use crate::grafts;
use crate::registry::Exposure;
use eci_fs_protocol::choices::Choices;
use eci_fs_protocol::control::{CgroupChoice, Response};
use eci_fs_protocol::error::{Error, Kind, Result};

impl Daemon {
    /// Show the views of the container of the process behind `pidfd` on the directory `dir`, in the mount
    /// namespace of the process behind `client`.
    ///
    /// # Errors
    /// As [`describe`] and [`grafts::expose`].
    pub fn mount(
        &self,
        pidfd: BorrowedFd<'_>,
        dir: OwnedFd,
        path: &Path,
        created: bool,
        client: i32,
    ) -> Result<Response> {
        let described = describe(&self.proc, pidfd, None, CgroupChoice::NamespaceRoot)?;
        let namespace = self
            .proc
            .open_at(&format!("{client}/ns/mnt"), OFlags::RDONLY)?;
        let _turn = self.begin()?;
        let mut state = self.state.lock();
        if state.registry.find_mount(path).is_some() {
            return Err(Error::new(
                Kind::Busy,
                format!("{} shows a container already", path.display()),
            )
            .remedy("unmount it first, or name another directory"));
        }
        let slot = self.enter(
            &mut state,
            described,
            CgroupChoice::NamespaceRoot,
            Choices::default(),
            None,
        )?;
        drop(state);
        let result = self.expose(
            slot,
            dir,
            Exposure {
                dir: path.to_owned(),
                created,
                namespace,
            },
        );
        if result.is_err() {
            self.forget_if_unused(slot);
        }
        result
    }

    pub(super) fn expose(&self, slot: u64, dir: OwnedFd, exposure: Exposure) -> Result<Response> {
        let rows = {
            let state = self.state.lock();
            let container = state.registry.get(slot).ok_or_else(vanished)?;
            container.rows.clone()
        };
        let namespace = exposure
            .namespace
            .try_clone()
            .map_err(|e| Error::io("duplicate", "a namespace", e))?;
        let grafts = self
            .grafter
            .run(move |place| grafts::expose(place, slot, &rows, &dir, namespace))?;
        let path = exposure.dir.clone();
        let (id, saved) = {
            let mut state = self.state.lock();
            let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
            container.mounts.push(exposure);
            (container.id.clone(), self.save(&mut state))
        };
        if let Err(error) = saved {
            let withdrawn = self.withdraw(slot, &path);
            tracing::warn!(?withdrawn, "the list cannot be written: unmounting again");
            return Err(error);
        }
        tracing::info!(%id, slot, grafts, dir = %path.display(), "mounted");
        Ok(Response::Mounted { id, grafts })
    }

    pub(super) fn withdraw(&self, slot: u64, dir: &Path) -> Result<()> {
        let exposure = {
            let mut state = self.state.lock();
            let container = state.registry.get_mut(slot).ok_or_else(vanished)?;
            let at = container
                .mounts
                .iter()
                .position(|mount| mount.dir == dir)
                .ok_or_else(vanished)?;
            container.mounts.remove(at)
        };
        self.grafter
            .run(move |place| {
                grafts::withdraw(place, &exposure.dir, &exposure.namespace)?;
                Ok(exposure)
            })
            .map(|exposure| {
                if exposure.created {
                    // It can only fail because somebody has put something there, and then it shall stay.
                    let _ = std::fs::remove_dir(&exposure.dir);
                }
            })
    }

    /// Take a directory that shows a container away again.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such directory.
    pub fn unmount(&self, dir: &Path) -> Result<Response> {
        let _turn = self.begin()?;
        let slot = self.state.lock().registry.find_mount(dir);
        let slot = slot.ok_or_else(|| {
            Error::not_found(format!("{} shows no container", dir.display()))
                .remedy("see `eci-fs list`")
        })?;
        self.withdraw(slot, dir)?;
        self.forget_if_unused(slot);
        self.save(&mut self.state.lock())?;
        Ok(Response::Unmounted)
    }

    /// Take away all directories that show a container. One that stays is logged: nobody waits for an answer.
    pub(super) fn withdraw_all(&self, slot: u64) {
        let dirs: Vec<_> = match self.state.lock().registry.get(slot) {
            Some(container) => container.mounts.iter().map(|m| m.dir.clone()).collect(),
            None => return,
        };
        for dir in dirs {
            if let Err(error) = self.withdraw(slot, &dir) {
                tracing::warn!(%error, "a directory stays mounted, ignoring");
            }
        }
    }
}
