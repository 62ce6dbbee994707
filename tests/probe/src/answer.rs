//! The form of an answer: `{"ok": VALUE}` or `{"error": NAME}`, on one line.

use std::io;

use nix::errno::Errno;
use serde_json::{Value, json};

/// The result of a command.
pub(crate) type Answer = io::Result<Value>;

/// Returns the line that is printed.
pub(crate) fn line(answer: &Answer) -> String {
    match answer {
        Ok(value) => json!({ "ok": value }).to_string(),
        Err(error) => json!({ "error": name(error) }).to_string(),
    }
}

/// Returns the kernel's name of an error ("EROFS"), or the words of one that is not the kernel's.
pub(crate) fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}

/// Returns an error with this message.
pub(crate) fn wrong(why: impl Into<String>) -> io::Error {
    io::Error::other(why.into())
}

/// Returns bytes as text. The files are ASCII; any other byte becomes a replacement character.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
