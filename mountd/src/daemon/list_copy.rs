//! A copy of the list of containers, from which commands are answered while an upgrade holds the state.

use std::os::fd::{AsFd, OwnedFd};

use parking_lot::Mutex;

use crate::container::has_ended;
use crate::registry::Registry;
use eci_fs_protocol::control::{LIST_PAGE, Listed};

/// A copy of the list, while an upgrade holds the state. Nothing comes or goes meanwhile, but containers can end.
#[derive(Debug, Default)]
pub(super) struct ListCopy(Mutex<Option<Vec<Copied>>>);

/// A container as it is listed, and the pidfd of its process.
type Copied = (Listed, Option<OwnedFd>);

/// Keeps the copy of the list. When it is dropped, so is the copy.
pub(super) struct KeptCopy<'a>(&'a ListCopy);

impl ListCopy {
    /// Copies the list, for as long as the value lives that is returned.
    pub(super) fn keep(&self, registry: &Registry) -> KeptCopy<'_> {
        let (listed, _) = registry.list(None, usize::MAX, |_| true);
        let with_process = |listed: Listed| {
            let container = registry.get(listed.slot);
            // Without a descriptor it is taken for one that lives.
            let process = container.and_then(|c| c.subject.pidfd.try_clone().ok());
            (listed, process)
        };
        *self.0.lock() = Some(listed.into_iter().map(with_process).collect());
        KeptCopy(self)
    }

    /// Returns a page of the copy, without containers that have ended, and true if there are more; none if there is no copy.
    pub(super) fn page(&self, after: Option<u64>) -> Option<(Vec<Listed>, bool)> {
        let copy = self.0.lock();
        let all = copy.as_ref()?;
        let first = match after {
            Some(after) => all.iter().position(|(listed, _)| listed.slot == after)? + 1,
            None => 0,
        };
        let lives = |process: &OwnedFd| !has_ended(process.as_fd()).unwrap_or(false);
        let mut rest = all
            .iter()
            .skip(first)
            .filter(|(_, process)| process.as_ref().is_none_or(lives))
            .map(|(listed, _)| listed.clone());
        let page = rest.by_ref().take(LIST_PAGE).collect();
        Some((page, rest.next().is_some()))
    }
}

impl Drop for KeptCopy<'_> {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}
