//! What a request takes, which decides by which thread it may be answered. Nothing is computed here, and nothing waited
//! for: the tables of the server tell.

use std::sync::Arc;

use eci_fs_emulators::EMULATORS;
use eci_fs_protocol::link::Connection;
use eci_fs_protocol::root_only;

use super::FileSystem;
use crate::server::account::Account;
use crate::server::container::Sampler;
use crate::server::fs::containers::{View, directory};
use crate::server::fs::permission;
use crate::server::fs::request::{FsRequest, Operation, Replies};
use crate::server::ids::{Handle, Node, NodeId};

/// What a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server::fs) enum Class {
    /// It is the daemon's: a name on the way to the views, which only the daemon walks. It takes no more than sorting does.
    Walk,
    /// It closes a file. The kernel has one bound for all containers on such requests, so none may be held.
    Closes,
    /// It takes no more than sorting does: the answer is in a table.
    Cheap,
    /// A view has to be computed, or permissions be looked at.
    Computes,
    /// It may sleep, for a driver of the host or for the daemon; or it takes long.
    Sleeps,
}

impl FileSystem {
    /// Returns the account of the container in `slot`. Requests for slots in which nothing is have one account.
    pub(in crate::server::fs) fn account(&self, slot: u64) -> Arc<Account> {
        match self.containers.get(slot) {
            Ok(container) => Arc::clone(&container.account),
            Err(_) => Arc::clone(&self.strangers),
        }
    }

    /// Returns what a request takes.
    pub(in crate::server::fs) fn class<R: Replies>(&self, request: &FsRequest<'_, R>) -> Class {
        let id = request.id;
        match &request.operation {
            Operation::Release { .. } => return Class::Closes,
            Operation::Poll { .. } => return Class::Cheap,
            Operation::ReadLink { .. } => return Class::Sleeps,
            Operation::Lookup { .. } | Operation::Attr { .. } if self.is_walked(id) => {
                return Class::Walk;
            }
            _ => {}
        }
        match (request.connection, id.node()) {
            (_, Node::Root | Node::Directory { .. }) => match request.operation {
                // The files of directories that are grafted one by one are listed on the host.
                Operation::Entries { .. } => Class::Sleeps,
                _ => Class::Cheap,
            },
            (Connection::Cached, _) => self.class_on_cached(id, &request.operation),
            (Connection::Live, Node::Below { .. }) => match request.operation {
                Operation::Read { handle, offset, .. } if self.is_stored(id, handle, offset) => {
                    Class::Cheap
                }
                _ => Class::Sleeps,
            },
            (Connection::Live, Node::View { emulator, .. }) => match directory(emulator) {
                Some(graft) => match request.operation {
                    Operation::Attr { .. } => Class::Computes,
                    Operation::Lookup { .. } if !graft.is_namespaced() => Class::Computes,
                    _ => Class::Sleeps,
                },
                None => self.class_of_live(id, &request.operation),
            },
        }
    }

    /// Returns whether a node lies on the way to the views, or in a slot whose container is still to come: nobody but the
    /// daemon walks there. The daemon walks to single files too, below a directory that is no graft.
    fn is_walked(&self, id: NodeId) -> bool {
        id.is_walked() || self.directories.is_prepared(id.slot())
    }

    fn class_on_cached<R: Replies>(&self, id: NodeId, operation: &Operation<'_, R>) -> Class {
        let Ok(view) = self.containers.view(id) else {
            return Class::Cheap;
        };
        let is_present = match operation {
            Operation::Attr { handle, .. } | Operation::SetAttr { handle, .. } => {
                self.cached.is_fresh(&view, handle.is_some())
            }
            Operation::Read { .. } => view.container.version(view.index).is_some(),
            _ => true,
        };
        self.class_of(&view, is_present)
    }

    fn class_of_live<R: Replies>(&self, id: NodeId, operation: &Operation<'_, R>) -> Class {
        let Ok(view) = self.containers.view(id) else {
            return Class::Cheap;
        };
        if matches!(operation, Operation::Write { .. }) && permission::takes_capability(id) {
            // The daemon is asked for the user namespace of the caller.
            return Class::Sleeps;
        }
        // The daemon is asked for those, so that takes long.
        if root_only::is_tunable(EMULATORS[view.index].facts().path)
            && !self.sysctls.is_fresh(&view)
        {
            return Class::Sleeps;
        }
        let is_tunable = view.tunable().is_some();
        let is_present = match operation {
            Operation::Write { .. } => false,
            Operation::Read { handle, .. } if *handle == Handle::PAGED => {
                self.sysctls.is_fresh(&view)
            }
            Operation::Read { handle, offset, .. } => self.is_stored(id, *handle, *offset),
            Operation::Attr { .. } | Operation::SetAttr { .. } | Operation::Open { .. }
                if is_tunable =>
            {
                self.sysctls.is_fresh(&view)
            }
            Operation::Attr { handle, .. } | Operation::SetAttr { handle, .. } => {
                handle.is_some_and(|handle| self.snapshots.size(id, handle).is_some())
            }
            Operation::Open { .. } => self.live.is_measured(&view),
            _ => true,
        };
        self.class_of(&view, is_present)
    }

    /// Returns what a request for a view takes, of which there is a version that answers it, or not.
    fn class_of(&self, view: &View, is_present: bool) -> Class {
        match is_present {
            true => Class::Cheap,
            false
                if EMULATORS[view.index].facts().needs.load && Sampler::is_due(&view.container) =>
            {
                Class::Sleeps
            }
            false => Class::Computes,
        }
    }

    /// Returns whether a read of an open file is answered from its snapshot.
    fn is_stored(&self, id: NodeId, handle: Handle, offset: u64) -> bool {
        self.snapshots.is_stored(id, handle, offset)
    }
}
