//! Files of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst).

pub(crate) mod cpu;
pub(crate) mod io;
pub(crate) mod memory;
