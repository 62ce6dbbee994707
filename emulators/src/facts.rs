//! The facts about a virtual file that are the same for all containers.

use crate::Needs;

/// The row of a file: what it is, what it needs, and what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The id, a part of the FUSE node ids. It is at least 16, and is never given to another file.
    pub id: u16,
    /// The absolute path of the virtual file.
    pub path: &'static str,
    /// The permission bits of the kernel's file.
    pub mode: u16,
    /// The events that change the content.
    pub pace: Pace,
    /// The source of the numbers with cgroup v1, for documents.
    pub source_v1: &'static str,
    /// The source of the numbers with cgroup v2, for documents.
    pub source_v2: &'static str,
    /// The part of the text that no figure of the kernel stands behind, for documents; empty if there is none.
    pub invented: &'static str,
    /// The parts of the context that the text is computed from. [`crate::render_view`] supplies no others.
    pub needs: Needs,
    /// The resource whose pressure the file shows. PSI triggers can be written to such a file, and it can be polled.
    pub pressure: Option<PressureResource>,
}

/// The events that change a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The view changes only with limits, CPUs or hotplug.
    Static,
    /// The view changes all the time, and its size seldom.
    Ticking,
    /// The view changes all the time, and its size often or without a bound.
    Resizing,
}

/// The highest length of a view until a limit or the CPUs of the container change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The view stays as long as it is now.
    Exact,
    /// The view has at most this many bytes.
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
