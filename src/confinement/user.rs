//! The user that a confined program becomes.

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// Becomes the first of these users that the user namespace has, with a group of the same number, and leaves all other groups.
///
/// # Errors
/// The kernel's.
pub(crate) fn become_user([own, other]: [u32; 2]) -> Result<(), Errno> {
    match become_number(own) {
        // The number is not in the map of the user namespace.
        Err(Errno::EINVAL) => become_number(other),
        done => done,
    }
}

fn become_number(number: u32) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(number), Gid::from_raw(number));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}
