//! The disposition of SIGPIPE, which a program inherits from the one that executes it.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Gives SIGPIPE its default disposition again. Rust ignores it in each program, and the command would inherit that:
/// `yes | head` in a container would end with an error message.
#[allow(unsafe_code, reason = "a disposition is changed by such a call only")]
pub(super) fn reset() -> nix::Result<()> {
    // SAFETY: the default disposition calls no handler.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map(drop)
}
