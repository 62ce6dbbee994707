//! The error type of the mount daemon and the commands: an event, its path, and advice for people.
//!
//! The error crosses the control protocol as it is, so that the person who typed a command reads the sentence of the daemon.
//! Containers never meet it: they are given an errno.

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::channel::Fault;

/// The kind of a failure, for programs that act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The request names something that does not exist: a pid, a container, a directory.
    NotFound,
    /// The request is malformed or asks for what is never done.
    Refused,
    /// The caller may not do this.
    Denied,
    /// Somebody else holds it: a socket, a lock, a directory.
    Busy,
    /// The host, or a limit of descriptors or memory, did not allow it.
    System,
    /// The two programs speak different versions of the protocol.
    Version,
    /// A later version sent a kind that this one does not know.
    #[serde(other)]
    Other,
}

/// The case of a [`Kind`] that a program tells from the others of it. Older programs do not read it: they act on the
/// kind alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The daemon begins nothing new, because it ends: the next one can be asked.
    Ending,
    /// The process that the request is about has ended.
    ProcessEnded,
    /// Another container has the name that was asked for.
    NameTaken,
    /// The container is attached already, under another name.
    OtherName,
    /// The container has no view at the path: a file there is the kernel's own.
    NotAView,
    /// All ranges of ids for isolated containers are in use.
    NoRange,
    /// The command that asked has gone before its request was begun.
    CommandGone,
    /// A later version sent a reason that this one does not know.
    #[serde(other)]
    Other,
}

/// A one-line error with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// For programs.
    pub kind: Kind,
    /// The sentence for people: the event, and the path or process that it was about.
    pub what: String,
    /// The advice for people, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The case of [`Self::kind`], where programs tell cases apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The errno of the system call that failed, as the kernel numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

/// The result of everything that can fail in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns an error of `kind` that says `what`.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            remedy: None,
            reason: None,
            errno: None,
        }
    }

    /// Returns the error of a daemon that ends. Another request reaches the next daemon.
    pub fn ending() -> Self {
        Self::new(Kind::Busy, "eci-mountd is ending")
            .remedy("try again")
            .because(Reason::Ending)
    }

    /// Returns the error of a request whose command has gone before it was begun. It is done neither now nor later.
    pub fn command_gone() -> Self {
        Self::new(
            Kind::Refused,
            "the command that asked has gone, so nothing is done",
        )
        .because(Reason::CommandGone)
    }

    /// Returns the error about a process that has ended.
    pub fn process_ended() -> Self {
        Self::not_found("the process has ended").because(Reason::ProcessEnded)
    }

    /// Returns an error of [`Kind::Refused`].
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(Kind::Refused, what)
    }

    /// Returns an error of [`Kind::NotFound`].
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, what)
    }

    /// Returns the error of a failed system call: `verb` ("open", "mount"), the path it failed on, and the kernel's
    /// word.
    pub fn io(verb: &str, path: impl AsRef<Path>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            _ => Kind::System,
        };
        let this = Self::new(
            kind,
            format!(
                "cannot {verb} {}: {}",
                path.as_ref().display(),
                plain(&error)
            ),
        );
        this.with_errno(errno_of(&error))
    }

    /// Returns the error with the reason on which programs act.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Returns the error with the errno of the system call that failed, if there is one.
    #[must_use]
    pub fn with_errno(mut self, errno: Option<i32>) -> Self {
        self.errno = errno;
        self
    }

    /// Returns the error with advice for people.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Returns the error as a part of a larger undertaking.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.what = format!("{context}: {}", self.what);
        self
    }
}

/// Returns the errno of an error of the kernel, or of a [`Fault`] that stands for one.
fn errno_of(error: &io::Error) -> Option<i32> {
    error
        .raw_os_error()
        .or_else(|| Fault::of(error).and_then(Fault::errno))
}

/// Returns the kernel's word without Rust's "(os error N)", which helps nobody.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The line stays one line: a path may hold a newline.
        let one_line = |s: &str| s.replace(['\n', '\r'], "?");
        f.write_str(&one_line(&self.what))?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {}", one_line(remedy)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_path_and_remedy() {
        let error = Error::io(
            "open",
            "/run/a\nb",
            io::Error::from_raw_os_error(libc::ENOENT),
        )
        .remedy("create it");
        assert_eq!(
            error.to_string(),
            "cannot open /run/a?b: No such file or directory; create it"
        );
        assert_eq!(error.kind, Kind::NotFound);
        assert_eq!(error.errno, Some(libc::ENOENT));
    }

    #[test]
    fn descriptors_that_found_no_room_have_the_errno_of_that() {
        let lost = io::Error::new(io::ErrorKind::InvalidData, Fault::NoRoom);
        let error = Error::io("speak to", "the server", lost);
        assert_eq!(
            (error.kind, error.errno),
            (Kind::System, Some(libc::EMFILE))
        );
    }

    #[test]
    fn what_a_later_version_says_is_understood_as_far_as_it_is_known() {
        let later = r#"{"kind":"quota","what":"x","reason":"disk","errno":122,"device":"sda"}"#;
        let error: Error = serde_json::from_str(later).unwrap();
        assert_eq!(error.kind, Kind::Other);
        assert_eq!(error.reason, Some(Reason::Other));
        assert_eq!(error.errno, Some(libc::EDQUOT));
    }
}
