//! Requests, as far as another server must know them again.

/// A request of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Its number. No other request of the connection ever has it.
    pub number: u64,
    /// Whether the kernel sends it again, because the server that had read it is dead. That one may have done what
    /// is asked.
    pub again: bool,
}
