//! Commands that have run to their end.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

/// The result of a command.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command line, for messages.
    pub what: String,
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Runs a command. Its output goes to files, so that nobody waits for a process that it leaves behind.
    ///
    /// # Panics
    /// When the command cannot be started.
    #[track_caller]
    pub fn run(command: &mut Command) -> Self {
        Self::run_reading(command, Stdio::null())
    }

    /// The same with another standard input than /dev/null.
    ///
    /// # Panics
    /// As [`Self::run`].
    #[track_caller]
    pub(crate) fn run_reading(command: &mut Command, input: Stdio) -> Self {
        match Running::start(command, input).and_then(Running::end) {
            Ok(ran) => ran,
            Err(error) => panic!("{command:?} cannot be started: {error}"),
        }
    }

    /// Runs all commands at once, each to its end. Returns the results in the same order.
    ///
    /// # Panics
    /// When a command cannot be started.
    #[track_caller]
    pub fn all(commands: impl IntoIterator<Item = Command>) -> Vec<Self> {
        let running: Vec<_> = commands
            .into_iter()
            .map(|mut command| Running::start(&mut command, Stdio::null()))
            .collect();
        let ended = running
            .into_iter()
            .map(|running| running.and_then(Running::end));
        match ended.collect() {
            Ok(all) => all,
            Err(error) => panic!("one of many cannot be started: {error}"),
        }
    }

    /// Returns the result of a child that was waited for.
    pub fn from_output(what: String, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let signal = output.status.signal();
        let stderr = text(&output.stderr);
        Self {
            what,
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: match signal {
                Some(signal) => format!("{stderr}\n[ended by signal {signal}]"),
                None => stderr,
            },
        }
    }

    /// Returns standard output of a command that succeeded.
    ///
    /// # Panics
    /// When the command failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Checks that the command failed with one line on standard error, and that the line has all of `words`.
    ///
    /// # Panics
    /// When the check fails.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        assert!(self.code.is_some_and(|code| code != 0), "{self:?}");
        assert_eq!(
            self.stdout, "",
            "nothing is done, so nothing is announced: {self:?}"
        );
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {self:?}");
        }
    }
}

/// A running command.
struct Running {
    what: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    fn start(command: &mut Command, input: Stdio) -> std::io::Result<Self> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command
            .stdin(input)
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?);
        Ok(Self {
            what: format!("{command:?}"),
            child: command.spawn()?,
            stdout,
            stderr,
        })
    }

    fn end(mut self) -> std::io::Result<Ran> {
        let mut output = Output {
            status: self.child.wait()?,
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        self.stdout.rewind()?;
        self.stdout.read_to_end(&mut output.stdout)?;
        self.stderr.rewind()?;
        self.stderr.read_to_end(&mut output.stderr)?;
        Ok(Ran::from_output(self.what, &output))
    }
}
