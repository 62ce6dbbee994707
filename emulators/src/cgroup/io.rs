//! Block I/O of a cgroup, as one type for both versions.

use crate::Error;
use crate::cgroup::{Hierarchy, Version, v1, v2};
use crate::text::parse_u64;

/// The I/O of a cgroup on one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DeviceIo {
    /// The major and minor number.
    pub(crate) device: (u64, u64),
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) writes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) discards: u64,
    pub(crate) discarded_bytes: u64,
}

/// Returns the devices that the cgroup has used.
pub(crate) fn read_devices(hierarchy: &Hierarchy) -> Result<Vec<DeviceIo>, Error> {
    match hierarchy.version {
        Version::V1 => v1::io::read_devices(hierarchy),
        Version::V2 => v2::io::read_devices(hierarchy),
    }
}

/// Parses "8:16".
pub(crate) fn parse_device(text: &[u8]) -> Option<(u64, u64)> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let (major, minor) = text.split_at_checked(colon)?;
    Some((parse_u64(major)?, parse_u64(minor.get(1..)?)?))
}
