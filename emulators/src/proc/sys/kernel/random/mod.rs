//! Views in /proc/sys/kernel/random.

pub mod boot_id;

use crate::View;

/// The files of this directory.
pub static VIEWS: &[View] = &[boot_id::VIEW];
