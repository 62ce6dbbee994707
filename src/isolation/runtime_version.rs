//! The version of a runtime, and what it says of its features, which tell what it can do. The runtime is asked once for each,
//! until the program is replaced.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eci_fs_protocol::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::de::IgnoredAny;

/// The directory in the runtime directory that keeps the answers of runtimes.
const KNOWN: &str = "runtimes";

/// The time that a runtime has to say it.
const LIMIT: Duration = Duration::from_secs(2);

/// The most bytes that are read of what it says. What newer ones say of their features has some 10,000.
const MOST: usize = 64 << 10;

/// The name of a runtime, the parts of its version, and whether it knows filters of system calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version {
    name: String,
    numbers: Vec<u32>,
    has_seccomp: bool,
}

impl Version {
    /// Returns the version in a text such as "runc version 1.3.6".
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (name, "version", version) = (words.next()?, words.next()?, words.next()?) else {
            return None;
        };
        let number = |part: &str| {
            let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse::<u32>().ok()
        };
        let numbers: Option<Vec<u32>> = version.split('.').take(3).map(number).collect();
        Some(Self {
            name: name.to_owned(),
            numbers: numbers?,
            has_seccomp: has_seccomp(text),
        })
    }

    /// Returns the version of a runtime, if it tells that. What is known is kept in `runtime_dir`.
    pub(super) fn of(runtime: &Path, runtime_dir: &Path) -> Option<Self> {
        let is_answer = |text: &str| Self::parse(text).is_some();
        Self::parse(&known_or_said(
            runtime,
            runtime_dir,
            "--version",
            is_answer,
        )?)
    }

    /// Returns true if the runtime was built with filters of system calls.
    pub(super) fn has_seccomp(&self) -> bool {
        self.has_seccomp
    }

    /// Returns true if the runtime is one of these, each with its first version.
    pub(super) fn is_one_of(&self, firsts: &[(&str, [u32; 3])]) -> bool {
        let first = firsts.iter().find(|(name, _)| *name == self.name);
        first.is_some_and(|(_, first)| self.numbers.as_slice() >= first.as_slice())
    }

    /// Returns true if the runtime is one of these, and older than the version beside it.
    pub(super) fn is_older_than_its_entry_in(&self, firsts: &[(&str, [u32; 3])]) -> bool {
        firsts.iter().any(|(name, _)| *name == self.name) && !self.is_one_of(firsts)
    }
}

/// Returns what the runtime says of its features (`features`, a subcommand of the specification of OCI runtimes); none if it
/// says nothing in JSON. What is known is kept in `runtime_dir`.
pub(super) fn features(runtime: &Path, runtime_dir: &Path) -> Option<String> {
    let is_answer = |text: &str| serde_json::from_str::<IgnoredAny>(text).is_ok();
    known_or_said(runtime, runtime_dir, "features", is_answer)
}

/// Returns what is known of a runtime's answer to `question`, and else asks it; none if what it says is no answer.
fn known_or_said(
    runtime: &Path,
    runtime_dir: &Path,
    question: &str,
    is_answer: impl Fn(&str) -> bool,
) -> Option<String> {
    let stat = fs::metadata(runtime).ok()?;
    let (seconds, nanoseconds) = (stat.ctime(), stat.ctime_nsec());
    // Whoever replaces the program changes one of these.
    let identity = format!(
        "{}-{}-{seconds}-{nanoseconds}-{}-{question}",
        stat.dev(),
        stat.ino(),
        stat.len()
    );
    let known = runtime_dir.join(KNOWN).join(identity);
    if let Ok(text) = fs::read_to_string(&known) {
        return is_answer(&text).then_some(text);
    }
    let text = match ask(runtime, question) {
        Ok(text) => text,
        Err(error) => {
            tracing::debug!(%error, question, "a runtime does not answer");
            return None;
        }
    };
    // A script may call another program tomorrow. Where nothing can be written the runtime is asked again, too.
    if !is_script(runtime) {
        let _ = fs::create_dir(runtime_dir.join(KNOWN));
        let new = known.with_extension(std::process::id().to_string());
        let _ = fs::write(&new, &text).and_then(|()| fs::rename(&new, &known));
    }
    is_answer(&text).then_some(text)
}

/// Returns whether a runtime was built with seccomp, by what it says of its version: runc names the library, crun its
/// features.
fn has_seccomp(version: &str) -> bool {
    version.contains("\nlibseccomp: ") || version.split_whitespace().any(|word| word == "+SECCOMP")
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.numbers.iter().map(u32::to_string).collect();
        write!(f, "{} {}", self.name, numbers.join("."))
    }
}

fn is_script(program: &Path) -> bool {
    let mut first = [0; 2];
    fs::File::open(program).is_ok_and(|mut file| file.read_exact(&mut first).is_ok())
        && first == *b"#!"
}

/// Returns what a runtime says to its standard output.
fn ask(runtime: &Path, question: &str) -> Result<String> {
    let trouble = |e: std::io::Error| Error::io(&format!("ask with {question}"), runtime, e);
    let mut child = Command::new(runtime)
        .arg(question)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(trouble)?;
    let said = hear(&mut child).map_err(trouble);
    // It may have ended.
    let _ = child.kill();
    let _ = child.wait();
    said
}

fn hear(child: &mut Child) -> std::io::Result<String> {
    let Some(mut pipe) = child.stdout.take() else {
        return Ok(String::new());
    };
    let end = Instant::now() + LIMIT;
    let mut bytes = vec![0; MOST];
    let mut filled = 0;
    while filled < MOST {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
        let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
        if poll(&mut fds, Some(&left))? == 0 {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        match pipe.read(&mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(String::from_utf8_lossy(&bytes[..filled]).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let firsts = [("runc", [1, 2, 0]), ("crun", [1, 22, 0])];
        for (text, able) in [
            (
                "runc version 1.1.5+ds1\ncommit: x\nspec: 1.0.2-dev\n",
                false,
            ),
            ("runc version 1.2.0-rc.1\n", true),
            ("runc version 1.3.6\n", true),
            ("runc version 1.10.0\n", true),
            ("crun version 1.8.1\ncommit: x\n", false),
            ("crun version 1.22\n", false),
            ("crun version 1.22.1\n", true),
            ("crun version 1.28\n", true),
            ("crun version 1.8.4\n", false),
            ("youki version 0.7.0\n", false),
            ("runc 1.3\n", false),
            ("runc version x\n", false),
            ("", false),
        ] {
            let version = Version::parse(text);
            let is_able = version.is_some_and(|version| version.is_one_of(&firsts));
            assert_eq!(is_able, able, "{text}");
        }
    }

    #[test]
    fn only_an_older_version_of_the_runtime_itself_is_older() {
        let firsts = [("crun", [1, 27, 1])];
        for (text, older) in [
            ("crun version 1.8.1\n", true),
            ("crun version 1.27\n", true),
            ("crun version 1.28\n", false),
            ("runc version 1.1.5\n", false),
        ] {
            let version = Version::parse(text).unwrap();
            assert_eq!(version.is_older_than_its_entry_in(&firsts), older, "{text}");
        }
    }

    #[test]
    fn a_script_is_asked_each_time_and_what_does_not_answer_has_no_version() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("runtime");
        let says = |text: &str| {
            fs::write(&script, format!("#!/bin/sh\necho {text}\n")).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            Version::of(&script, dir.path())
        };
        for text in ["runc version 1.3.6", "crun version 1.22", "hello"] {
            assert_eq!(says(text), Version::parse(text), "{text}");
        }
        let features = |text: &str| {
            fs::write(
                &script,
                format!("#!/bin/sh\n[ $1 = features ] && echo '{text}'\n"),
            )
            .unwrap();
            super::features(&script, dir.path())
        };
        assert_eq!(features("{}").as_deref(), Some("{}\n"));
        assert_eq!(features("unknown command"), None);
        assert!(!dir.path().join(KNOWN).exists());
        assert_eq!(Version::of(Path::new("/nothing"), dir.path()), None);
    }
}
