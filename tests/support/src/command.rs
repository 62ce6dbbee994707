//! A command that has been run to its end.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

/// How it ended and what it said.
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
    /// Run a command. What it says goes to files, so that a process which it leaves behind holds up nobody.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn run(command: &mut Command) -> Self {
        match Running::start(command).and_then(Running::end) {
            Ok(ran) => ran,
            Err(error) => panic!("{command:?} cannot be started: {error}"),
        }
    }

    /// Run commands at once, each to its end; in their order.
    ///
    /// # Panics
    /// When one cannot be started.
    #[track_caller]
    pub fn all(commands: impl IntoIterator<Item = Command>) -> Vec<Self> {
        let running: Vec<_> = commands
            .into_iter()
            .map(|mut command| Running::start(&mut command))
            .collect();
        let ended = running
            .into_iter()
            .map(|running| running.and_then(Running::end));
        match ended.collect() {
            Ok(all) => all,
            Err(error) => panic!("one of many cannot be started: {error}"),
        }
    }

    /// What a child came to that was waited for.
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

    /// What it printed, if it ended well.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// That it failed with one line on standard error, in which all of `words` stand.
    ///
    /// # Panics
    /// When one of that is not so.
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

/// A command that runs.
struct Running {
    what: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    fn start(command: &mut Command) -> std::io::Result<Self> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command
            .stdin(Stdio::null())
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
