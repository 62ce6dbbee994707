//! The capabilities that a confined program keeps.

use caps::errors::CapsError;
use caps::{CapSet, CapsHashSet};

/// Leaves all capabilities but `kept` out of the bounding set. This comes before the program becomes another user, because it
/// takes CAP_SETPCAP.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn bound(kept: &CapsHashSet) -> Result<(), CapsError> {
    for cap in caps::all() {
        if !kept.contains(&cap) && caps::has_cap(None, CapSet::Bounding, cap).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, cap)?;
        }
    }
    Ok(())
}

/// Gives up all capabilities but `kept`.
///
/// # Errors
/// When the kernel refuses, or the program does not have those.
pub(crate) fn keep(kept: &CapsHashSet) -> Result<(), CapsError> {
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set)?;
    }
    // The effective set comes first: it must not be more than the permitted one.
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, kept)?;
    }
    Ok(())
}
