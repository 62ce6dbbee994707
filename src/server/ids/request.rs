//! The number of a request, by which another server knows it again.

/// A request of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The number. No other request of the connection ever has it.
    pub number: u64,
    /// True if the kernel sends it again, because the server that had read it is dead. That server may have performed
    /// it.
    pub again: bool,
}
