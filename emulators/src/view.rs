//! A view as it is served: the text of an emulator, padded where its size must not move.

use crate::{Context, Emulator, Error, Pace};

/// Appends the view of `emulator` to `out`.
///
/// With `padding`, a ticking view ends its last line with spaces, up to the emulator's bound: the
/// size of a file in the page cache must not change while a reader is between two reads.
pub fn render_view(
    emulator: &dyn Emulator,
    cx: &Context<'_>,
    padding: bool,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    if !padding || emulator.facts().pace == Pace::Static {
        return emulator.render(cx, out);
    }
    let start = out.len();
    if let Some(bound) = emulator.render_bounded(cx, out)? {
        pad(out, start, bound);
    }
    Ok(())
}

/// Lengthens the text from `start` on to `bound` bytes, with spaces before its final newline.
/// A text that is longer than its bound stays whole: a wrong size is better than a wrong number.
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
