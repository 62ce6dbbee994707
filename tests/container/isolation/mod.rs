//! Isolated containers: a user namespace each, and files that are right inside and on the disk.

mod cgroups;
mod clocks;
mod devices;
mod disks;
mod ends;
mod files;
mod hostile;
mod locked;
mod namespaces;
mod networks;
mod pinned;
mod promises;
mod ranges;
mod refused;
mod restricted;
mod rig;
mod streams;
mod system_calls;
mod volumes;
