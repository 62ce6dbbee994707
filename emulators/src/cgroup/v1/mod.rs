//! Files of cgroup v1 (Documentation/admin-guide/cgroup-v1).

pub(crate) mod cpu;
pub(crate) mod io;
pub(crate) mod memory;
