//! What one container has written.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The values that a container has for itself, by the ids of tunables, in the kernel's format.
#[derive(Debug, Default)]
pub struct Values {
    own: Mutex<BTreeMap<u16, Arc<[u8]>>>,
}

impl Values {
    /// The value of one; none before it was written.
    pub fn get(&self, id: u16) -> Option<Arc<[u8]>> {
        self.own.lock().get(&id).cloned()
    }

    /// Has a value that was saved before.
    pub fn restore(&self, id: u16, value: &[u8]) {
        self.own.lock().insert(id, value.into());
    }

    /// All of them, by id.
    pub fn all(&self) -> Vec<(u16, Arc<[u8]>)> {
        let own = self.own.lock();
        own.iter()
            .map(|(id, value)| (*id, Arc::clone(value)))
            .collect()
    }

    /// Writes one: `write` is given the present value, and returns the new one, if it sets any, and an answer. Nobody
    /// else writes meanwhile.
    pub(crate) fn update<T>(
        &self,
        id: u16,
        write: impl FnOnce(Option<&[u8]>) -> (Option<Arc<[u8]>>, T),
    ) -> T {
        let mut own = self.own.lock();
        let (value, answer) = write(own.get(&id).map(|value| &**value));
        if let Some(value) = value {
            own.insert(id, value);
        }
        answer
    }
}
