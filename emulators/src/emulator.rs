//! The interface of all emulated files.

use crate::{Bound, Context, Error, Facts, Pace, Tunable, View};

/// One virtual file: a [`View`] or a [`Tunable`].
pub trait Emulator: Send + Sync {
    /// Returns what is known about the file without looking at a container.
    fn facts(&self) -> &Facts;

    /// Appends the text of the file to `out`, unpadded, and returns its bound.
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

    /// A tunable has no bound and is not padded, because it is served on the live connection.
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

/// Appends the text of `emulator` to `out`. The emulator gets only those parts of `cx` that its row names.
///
/// With `padding`, spaces at the end of the last line lengthen a ticking view to its bound. The size of a file in the
/// page cache must not change between two reads of one reader.
///
/// # Errors
/// Fails as [`Emulator::render`] does, and with [`Error::Undeclared`] when the emulator reads a part that its row
/// does not name.
pub fn render_view(
    emulator: &dyn Emulator,
    cx: &Context<'_>,
    padding: bool,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let facts = emulator.facts();
    let start = out.len();
    let bound = emulator.render(&cx.only(facts.needs), out)?;
    if let Bound::Bytes(bytes) = bound
        && padding
        && facts.pace == Pace::Ticking
    {
        pad(out, start, bytes);
    }
    Ok(())
}
/// Lengthens the text from `start` on to `bound` bytes, with spaces before its final newline. A text that is longer
/// than its bound is not cut: a wrong size is better than a wrong number.
fn pad(out: &mut Vec<u8>, start: usize, bound: usize) {
    let missing = bound.saturating_sub(out.len().saturating_sub(start));
    if missing == 0 || out.len() <= start {
        return;
    }
    let newline = out.last() == Some(&b'\n');
    if newline {
        out.pop();
    }
    out.resize(out.len().saturating_add(missing), b' ');
    if newline {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::pad;

    #[test]
    fn padding_goes_before_the_last_newline() {
        let mut out = b"before|1.00 2.00\n".to_vec();
        pad(&mut out, 7, 15);
        assert_eq!(out, b"before|1.00 2.00     \n");
        assert_eq!(out.len() - 7, 15);
    }

    #[test]
    fn a_text_over_its_bound_and_an_empty_text_stay_as_they_are() {
        let mut out = b"12345\n".to_vec();
        pad(&mut out, 0, 3);
        assert_eq!(out, b"12345\n");
        let mut out = Vec::new();
        pad(&mut out, 0, 3);
        assert!(out.is_empty());
    }
}
