//! What is known about a virtual file without looking at a container.

use crate::Needs;

/// The row of a file in the table of all files: what it is, what it needs and what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Part of the FUSE node ids. Given once and never again to another file; from 16 on.
    pub id: u16,
    /// The absolute path of the virtual file.
    pub path: &'static str,
    /// Permission bits, the kernel's.
    pub mode: u16,
    /// How often the content changes.
    pub pace: Pace,
    /// Where the numbers come from with cgroup v1.
    pub source_v1: &'static str,
    /// Where the numbers come from with cgroup v2.
    pub source_v2: &'static str,
    /// What no kernel figure stands behind; empty if nothing.
    pub invented: &'static str,
    /// What its text is computed from. [`crate::render_view`] hands out nothing else.
    pub needs: Needs,
    /// The resource whose pressure it shows: PSI triggers for it can be written here, and polled.
    pub pressure: Option<PressureResource>,
}

/// How often a view changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Only with limits, CPUs or hotplug.
    Static,
    /// With every look.
    Ticking,
}

/// How long a view can become until a limit or the CPUs of the container change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// As long as it is now.
    Exact,
    /// At most this many bytes.
    Bytes(usize),
    /// There is no bound.
    None,
}

impl Bound {
    /// Returns the bound in bytes, for a view whose text has `length` bytes now; `None` if there is no bound.
    pub fn bytes(self, length: usize) -> Option<usize> {
        match self {
            Bound::Exact => Some(length),
            Bound::Bytes(bytes) => Some(bytes),
            Bound::None => None,
        }
    }
}

/// A resource for which the kernel accounts pressure (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum PressureResource {
    Cpu,
    Memory,
    Io,
    Irq,
}

impl PressureResource {
    /// Returns the name of its file in a v2 cgroup.
    pub fn cgroup_file(self) -> &'static str {
        match self {
            PressureResource::Cpu => "cpu.pressure",
            PressureResource::Memory => "memory.pressure",
            PressureResource::Io => "io.pressure",
            PressureResource::Irq => "irq.pressure",
        }
    }
}
