//! A mount daemon in the foreground. Tests can wait for lines of its log.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{end_within, kill, let_time_pass, open_pidfd, status_field};
use crate::{Logged, PATIENCE, Ran};

/// The time for which no thread of a daemon has worked when it is at rest: longer than the one that prepares waits before it
/// begins.
const RESTS: Duration = Duration::from_millis(400);

/// A running daemon. It is ended when this value is dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Logged,
    runtime_dir: PathBuf,
}

impl Daemon {
    /// Starts a daemon and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(mut command: Command, runtime_dir: PathBuf) -> Self {
        command.env("ECI_FS_LOG", "info");
        let mut process = Logged::start(command);
        process.wait_for("ready");
        Self {
            process,
            runtime_dir,
        }
    }

    /// Waits for a line of the log that contains `text`, after the last line that was found.
    ///
    /// # Panics
    /// When no such line comes.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) -> String {
        self.process.wait_for(words)
    }

    /// Returns the lines of the log so far.
    pub fn log_lines(&mut self) -> &[String] {
        self.process.log_lines()
    }

    /// Returns the pid of the daemon.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the pid of the current server. An earlier daemon may have started it.
    ///
    /// # Panics
    /// When there is no server.
    #[track_caller]
    pub fn server(&self) -> u32 {
        match self.living_server() {
            Some(server) => server,
            None => panic!("the daemon has no server"),
        }
    }

    /// Returns the pid of the server that the daemon has noted, if it lives.
    fn living_server(&self) -> Option<u32> {
        noted_server(&self.runtime_dir)
    }

    /// Waits until no thread of the daemon works for a command or prepares for the next container.
    ///
    /// # Panics
    /// When a thread works for too long.
    #[track_caller]
    pub fn wait_for_rest(&self) {
        let is_at_work = || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
            // A thread that has ended meanwhile has no name.
            tasks.into_iter().flatten().flatten().any(|task| {
                let file = |name| std::fs::read_to_string(task.path().join(name));
                let name = file("comm").unwrap_or_default();
                let waits = || file("wchan").is_ok_and(|place| place.starts_with("futex"));
                name.starts_with("control") || (name.starts_with("preparer") && !waits())
            })
        };
        let end = Instant::now() + PATIENCE;
        let mut began = Instant::now();
        // The thread that prepares waits for a tenth of a second before it begins.
        while began.elapsed() < RESTS {
            if is_at_work() {
                began = Instant::now();
            }
            assert!(Instant::now() < end, "a thread of the daemon is at work");
            let_time_pass(Duration::from_millis(5));
        }
    }

    /// Kills the server.
    #[track_caller]
    pub fn kill_server(&self) {
        kill(self.server());
    }

    /// Kills the daemon and its server, like a crash of both.
    #[track_caller]
    pub fn crash(self) {
        let server = self.server();
        self.die();
        kill(server);
    }

    /// Kills the daemon alone.
    #[track_caller]
    pub fn die(mut self) {
        kill(self.pid());
        self.process.wait();
    }

    /// Ends the daemon with SIGTERM, as a service manager does.
    ///
    /// # Panics
    /// When the daemon fails or does not end.
    #[track_caller]
    pub fn end(mut self) {
        let status = self.process.terminate();
        assert!(
            status.success(),
            "{status:?}: {:#?}",
            self.process.log_lines()
        );
    }

    /// Stops the daemon until [`Self::go_on`] is called.
    pub fn stop(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets a stopped daemon continue.
    pub fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }
}

/// Returns the server that the daemon of a runtime directory has noted, if it lives.
pub(crate) fn noted_server(runtime_dir: &Path) -> Option<u32> {
    let noted = std::fs::read_to_string(runtime_dir.join("server")).ok()?;
    let pid = noted.split(' ').next()?.parse().ok()?;
    is_alive(pid).then_some(pid)
}

/// Returns whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    status_field(pid, "State:").is_some_and(|state| !state.starts_with('Z'))
}

/// A running command. Its standard error goes to a file, so that nobody waits for a process that it leaves behind.
#[derive(Debug)]
pub struct Pending {
    what: String,
    child: Option<Child>,
    stderr: File,
}

impl Pending {
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let what = format!("{command:?}");
        let started = tempfile::tempfile().and_then(|stderr| {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(stderr.try_clone()?);
            Ok((command.spawn()?, stderr))
        });
        match started {
            Ok((child, stderr)) => Self {
                what,
                child: Some(child),
                stderr,
            },
            Err(error) => panic!("{what} cannot be started: {error}"),
        }
    }

    /// Returns the child, whose streams can be written to and read from.
    ///
    /// # Panics
    /// When the child has been waited for.
    #[track_caller]
    pub fn child(&mut self) -> &mut Child {
        match &mut self.child {
            Some(child) => child,
            None => panic!("{} has been waited for", self.what),
        }
    }

    /// Returns the pid of the command.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        match &self.child {
            Some(child) => child.id(),
            None => panic!("{} has been waited for", self.what),
        }
    }

    /// Sends a signal to the command.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        let pid = i32::try_from(self.child().id())
            .ok()
            .and_then(Pid::from_raw);
        let sent = pid.map(|pid| kill_process(pid, signal));
        assert!(matches!(sent, Some(Ok(()))), "{}: {sent:?}", self.what);
    }

    /// Waits for the end of the command.
    ///
    /// # Panics
    /// When the command does not end or cannot be waited for.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        let pidfd = open_pidfd(self.pid());
        // If the assertion fails, `drop` kills the command.
        assert!(end_within(&pidfd, PATIENCE), "{} does not end", self.what);
        let Some(child) = self.child.take() else {
            panic!("{} has been waited for", self.what);
        };
        let output = child.wait_with_output().and_then(|mut output| {
            self.stderr.rewind()?;
            self.stderr.read_to_end(&mut output.stderr)?;
            Ok(output)
        });
        match output {
            Ok(output) => Ran::from_output(self.what.clone(), &output),
            Err(error) => panic!("{} cannot be waited for: {error}", self.what),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both calls fail only when the command has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
