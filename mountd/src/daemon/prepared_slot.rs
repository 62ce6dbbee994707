//! A slot for which clones are prepared.

/// The slot of a container that is going to be attached.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreparedSlot {
    pub(super) slot: u64,
    pub(super) generation: u32,
    /// True if all its clones are made; false if a command interrupted that.
    pub(super) is_whole: bool,
}
