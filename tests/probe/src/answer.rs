//! The form of an answer: `{"ok": VALUE}` or `{"error": NAME}`, on one line.

use std::io;

use nix::errno::Errno;
use serde_json::{Value, json};

/// What a command comes to.
pub(crate) type Answer = io::Result<Value>;

/// The line that is printed.
pub(crate) fn line(answer: &Answer) -> String {
    match answer {
        Ok(value) => json!({ "ok": value }).to_string(),
        Err(error) => json!({ "error": name(error) }).to_string(),
    }
}

/// The kernel's name of an error ("EROFS"), or the words of one that is not the kernel's.
pub(crate) fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}

/// An error in the caller's words.
pub(crate) fn wrong(why: impl Into<String>) -> io::Error {
    io::Error::other(why.into())
}

/// Bytes as text. The files that are read are ASCII; what is not shows as a replacement character.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
