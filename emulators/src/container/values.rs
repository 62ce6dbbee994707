//! The values that one container has written to tunables.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The container's own values by the id of the tunable, in the kernel's format.
#[derive(Debug, Default)]
pub struct Values {
    own: Mutex<BTreeMap<u16, Arc<[u8]>>>,
}

impl Values {
    /// Returns the value of a tunable; `None` before the container has written it.
    pub fn get(&self, id: u16) -> Option<Arc<[u8]>> {
        self.own.lock().get(&id).cloned()
    }

    /// Restores a value that was saved.
    pub fn restore(&self, id: u16, value: &[u8]) {
        self.own.lock().insert(id, value.into());
    }

    /// Returns all values, sorted by id.
    pub fn all(&self) -> Vec<(u16, Arc<[u8]>)> {
        let own = self.own.lock();
        own.iter()
            .map(|(id, value)| (*id, Arc::clone(value)))
            .collect()
    }

    /// Writes a value. `write` gets the present value, and returns the new values with their ids, and an answer. No
    /// other thread writes meanwhile.
    pub(crate) fn update<T>(
        &self,
        id: u16,
        write: impl FnOnce(Option<&[u8]>) -> ([Option<(u16, Arc<[u8]>)>; 2], T),
    ) -> T {
        let mut own = self.own.lock();
        let (values, answer) = write(own.get(&id).map(|value| &**value));
        own.extend(values.into_iter().flatten());
        answer
    }
}
