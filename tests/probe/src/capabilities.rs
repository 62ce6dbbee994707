//! The capabilities of a container.

use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// The capabilities with which a container can measure CPUs.
const MEASURING: [CapabilitySet; 3] = [
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::PERFMON,
    CapabilitySet::BPF,
];

/// The inode number of the initial user namespace (`PROC_USER_INIT_INO`). In another one nobody can measure CPUs.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Takes them out of the bounding set, as engines do. The process and all that it executes as root keep them, because they
/// are inheritable: tests make containers in containers. What an engine has left stays if it allows no change, and so
/// does the set of a container whose /proc is something else.
///
/// # Errors
/// The kernel's.
pub fn leave_bounding_set() -> io::Result<()> {
    let namespace = std::fs::metadata("/proc/self/ns/user").map(|namespace| namespace.ino());
    let mut sets = capabilities(None)?;
    let may = sets.effective.contains(CapabilitySet::SETPCAP);
    if !may || namespace.ok() != Some(INITIAL_USER_NAMESPACE) {
        return Ok(());
    }
    sets.inheritable = sets.permitted;
    set_capabilities(None, sets)?;
    for capability in MEASURING {
        // A kernel that does not know it says EINVAL.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    Ok(())
}
