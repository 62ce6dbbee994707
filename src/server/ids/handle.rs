//! File handles: the numbers of open files.

/// The number of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

impl Handle {
    /// The number of all open files that need none. No other file has it: numbers begin at the nanoseconds since boot.
    pub const NONE: Self = Self(0);

    /// The number of all files that are read from the page cache.
    pub const PAGED: Self = Self(u64::MAX);
}
