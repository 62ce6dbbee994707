//! What an emulator is: one virtual file, its facts and its text.

use crate::{Context, Error};

/// Computes the view of one file.
pub trait Emulator: Send + Sync {
    /// What is known about the file without looking at a container.
    fn facts(&self) -> &Facts;

    /// Appends the text of the view to `out`, unpadded.
    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Error>;

    /// The most bytes that [`Emulator::render`] can produce until a limit or the CPUs of the
    /// container change; `None` when there is no bound.
    fn bound(&self, cx: &Context<'_>) -> Result<Option<usize>, Error>;

    /// Renders and tells the bound in one pass, for emulators that learn both from the same files.
    fn render_bounded(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Option<usize>, Error> {
        let bound = self.bound(cx)?;
        self.render(cx, out)?;
        Ok(bound)
    }

    /// Whether the view exists for this container on this machine: the kernel has the file.
    fn exists(&self, cx: &Context<'_>) -> bool {
        cx.host.exists(self.facts().path)
    }

    /// Its permission bits on this machine.
    fn mode(&self, _cx: &Context<'_>) -> u16 {
        self.facts().mode
    }
}

impl std::fmt::Debug for dyn Emulator + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Emulator({})", self.facts().path)
    }
}

/// What is true of a file for every container.
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
}

/// How often a view changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Only with limits, CPUs or hotplug.
    Static,
    /// With every look.
    Ticking,
}
