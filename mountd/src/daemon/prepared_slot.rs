//! A slot for which clones are prepared.

/// The slot of a container that is going to be attached.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreparedSlot {
    pub(super) slot: u64,
    pub(super) generation: u32,
    /// False if a command came while its clones were made.
    pub(super) is_whole: bool,
}
