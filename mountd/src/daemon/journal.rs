//! The records in the runtime directory, for the next daemon. A private daemon writes none.

use std::sync::Arc;

use crate::container::procfs::Proc;
use crate::registry::{self, Intent, Registry};
use crate::runtime_dir::RuntimeDir;
use crate::supervisor::Server;
use eci_fs_protocol::error::{Error, Result};

/// The records in the runtime directory.
#[derive(Debug)]
pub(super) struct Journal {
    proc: Arc<Proc>,
    runtime: Option<RuntimeDir>,
}

impl Journal {
    pub(super) fn new(proc: Arc<Proc>, runtime: Option<RuntimeDir>) -> Self {
        Self { proc, runtime }
    }

    /// Writes down what has changed on the list.
    ///
    /// # Errors
    /// As [`Registry::write`].
    pub(super) fn save(&self, registry: &mut Registry) -> Result<()> {
        match &self.runtime {
            Some(runtime) => registry.write(runtime),
            None => Ok(()),
        }
    }

    /// Writes the whole list down for a daemon of any version.
    ///
    /// # Errors
    /// As [`Registry::write_whole`].
    pub(super) fn save_whole(&self, registry: &mut Registry) -> Result<()> {
        match &self.runtime {
            Some(runtime) => registry.write_whole(runtime),
            None => Ok(()),
        }
    }

    /// Writes down what an attach is about to do.
    ///
    /// # Errors
    /// When the disk is full or the directory is read-only.
    pub(super) fn begin(&self, intent: Option<Intent>) -> Result<()> {
        let (Some(runtime), Some(intent)) = (&self.runtime, intent) else {
            return Ok(());
        };
        let text = serde_json::to_string(&intent)
            .map_err(|e| Error::io("encode", registry::INTENT, std::io::Error::from(e)))?;
        runtime.write(registry::INTENT, &text)
    }

    /// Removes what [`Self::begin`] has written, once it is done or undone.
    ///
    /// # Errors
    /// When the directory is read-only.
    pub(super) fn finish(&self) -> Result<()> {
        match &self.runtime {
            Some(runtime) => runtime.remove(registry::INTENT),
            None => Ok(()),
        }
    }

    /// Returns what a daemon that was killed had begun and not finished.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(super) fn unfinished(&self) -> Result<Option<Intent>> {
        match &self.runtime {
            Some(runtime) => registry::read_intent(runtime),
            None => Ok(None),
        }
    }

    /// Writes down which process is the server, for a daemon that cannot speak to it.
    pub(super) fn note_server(&self, server: &Server) {
        let Some(runtime) = &self.runtime else {
            return;
        };
        let noted = self
            .proc
            .process(server.pid())
            .and_then(|process| runtime.note_server(process.pid, process.start_ticks));
        if let Err(error) = noted {
            tracing::warn!(%error, "which process is the server is not written down, ignoring");
        }
    }

    /// Removes the control socket, so that nobody connects to a daemon that ends.
    pub(super) fn remove_socket(&self) {
        if let Some(runtime) = &self.runtime {
            let _ = std::fs::remove_file(runtime.socket());
        }
    }

    /// Removes what means nothing once the server has ended.
    pub(super) fn remove_rest(&self) {
        let Some(runtime) = &self.runtime else {
            return;
        };
        let _ = std::fs::remove_file(runtime.rendezvous());
        runtime.forget_server();
        for dir in [runtime.mounts(), runtime.path().join(registry::DIR)] {
            // A directory that is not empty stays.
            let _ = std::fs::remove_dir(dir);
        }
    }
}
