//! The interface of all emulated files.

use crate::{Bound, Context, Error, Facts, Tunable, View};

/// One virtual file: a [`View`] or a [`Tunable`].
pub trait Emulator: Send + Sync {
    /// Returns what is known about the file without looking at a container.
    fn facts(&self) -> &Facts;

    /// Appends the text of the file to `out`, and returns its bound.
    ///
    /// # Errors
    /// Fails when a file that it reads is missing or does not have the kernel's format.
    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error>;

    /// Returns whether the container has the file. It has a file that the kernel of this host has.
    fn exists(&self, cx: &Context<'_>) -> bool {
        cx.host.exists(self.facts().path)
    }

    /// Returns whether the container gets a graft of a file that it has. Without one, what is below is right, and the
    /// file is only served to containers that a release before has grafted it into.
    fn is_offered(&self, _cx: &Context<'_>) -> bool {
        true
    }

    /// Returns its permission bits on this host.
    fn mode(&self, _cx: &Context<'_>) -> u16 {
        self.facts().mode
    }

    /// Returns the tunable, if containers can set the file.
    fn tunable(&self) -> Option<&Tunable> {
        None
    }
}

impl std::fmt::Debug for dyn Emulator + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Emulator({})", self.facts().path)
    }
}

impl Emulator for View {
    fn facts(&self) -> &Facts {
        self.facts()
    }

    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
        self.render(cx, out)
    }

    fn is_offered(&self, cx: &Context<'_>) -> bool {
        self.is_offered(cx)
    }
}

impl Emulator for Tunable {
    fn facts(&self) -> &Facts {
        self.facts()
    }

    /// A tunable has no bound, because it is served on the live connection.
    fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
        self.read(cx, out)?;
        Ok(Bound::None)
    }

    /// The container has a tunable if the kernel has the file, and does not itself keep a value for this container.
    fn exists(&self, cx: &Context<'_>) -> bool {
        self.is_emulated(cx.identity()) && cx.host.exists(self.path())
    }

    /// Returns the bits of the kernel's file, which differ between versions.
    fn mode(&self, cx: &Context<'_>) -> u16 {
        self.mode_on(cx.host)
    }

    fn tunable(&self) -> Option<&Tunable> {
        Some(self)
    }
}

/// Appends the text of `emulator` to `out`, and returns its bound. The emulator gets only those parts of `cx` that its row
/// names.
///
/// # Errors
/// Fails as [`Emulator::render`] does, and with [`Error::Undeclared`] when the emulator reads a part that its row
/// does not name.
pub fn render_view(
    emulator: &dyn Emulator,
    cx: &Context<'_>,
    out: &mut Vec<u8>,
) -> Result<Bound, Error> {
    emulator.render(&cx.only(emulator.facts().needs), out)
}
