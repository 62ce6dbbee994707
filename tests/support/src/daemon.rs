//! A mount daemon in the foreground, whose log can be waited for.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{end_within, kill, open_pidfd, status_field};
use crate::{Logged, PATIENCE, Ran};

/// A running daemon. It is ended with the value.
#[derive(Debug)]
pub struct Daemon {
    process: Logged,
    runtime_dir: PathBuf,
}

impl Daemon {
    /// Start one and wait until it is ready.
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

    /// Wait for a line of the log, from where the last one was found.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) -> String {
        self.process.wait_for(words)
    }

    /// What its log has said so far.
    pub fn said(&mut self) -> &[String] {
        self.process.said()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The server that it has now, which may have been started by a daemon before it.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    pub fn server(&self) -> u32 {
        match self.living_server() {
            Some(server) => server,
            None => panic!("the daemon has no server"),
        }
    }

    /// As the daemon has noted it.
    fn living_server(&self) -> Option<u32> {
        noted_server(&self.runtime_dir)
    }

    /// Wait until none of its threads is at work for a command any more, or for the container that comes next.
    ///
    /// # Panics
    /// When one is for long.
    #[track_caller]
    pub fn wait_for_rest(&self) {
        let is_at_work = || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
            // One that has left meanwhile has no name.
            tasks.into_iter().flatten().flatten().any(|task| {
                let name = std::fs::read_to_string(task.path().join("comm"));
                name.is_ok_and(|name| name.starts_with("control"))
            })
        };
        let end = Instant::now() + PATIENCE;
        while is_at_work() {
            assert!(Instant::now() < end, "a thread of the daemon is at work");
        }
    }

    /// Kill the server.
    #[track_caller]
    pub fn kill_server(&self) {
        kill(self.server());
    }

    /// Kill the daemon and its server, as a crash of both would.
    #[track_caller]
    pub fn crash(self) {
        let server = self.server();
        self.die();
        kill(server);
    }

    /// Kill the daemon alone.
    #[track_caller]
    pub fn die(mut self) {
        kill(self.pid());
        self.process.wait();
    }

    /// End it as a service manager would.
    ///
    /// # Panics
    /// When it does not end well.
    #[track_caller]
    pub fn end(mut self) {
        let status = self.process.terminate();
        assert!(status.success(), "{status:?}: {:#?}", self.process.said());
    }

    /// Let it do nothing until [`Self::go_on`].
    pub fn stop(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Let it do what it was about to.
    pub fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }
}

/// The server that the daemon of a runtime directory has noted, if it lives.
pub(crate) fn noted_server(runtime_dir: &Path) -> Option<u32> {
    let noted = std::fs::read_to_string(runtime_dir.join("server")).ok()?;
    let pid = noted.split(' ').next()?.parse().ok()?;
    is_alive(pid).then_some(pid)
}

/// End a daemon of which only the pid is known; what is left of its log is of no interest.
pub(crate) fn is_alive(pid: u32) -> bool {
    status_field(pid, "State:").is_some_and(|state| !state.starts_with('Z'))
}

/// A command that is not waited for yet. Its standard error goes to a file, so that a process which it leaves behind
/// holds up nobody.
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

    /// The child, to write to it or to read from it.
    ///
    /// # Panics
    /// When it has been waited for.
    #[track_caller]
    pub fn child(&mut self) -> &mut Child {
        match &mut self.child {
            Some(child) => child,
            None => panic!("{} has been waited for", self.what),
        }
    }

    /// Its process.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        match &self.child {
            Some(child) => child.id(),
            None => panic!("{} has been waited for", self.what),
        }
    }

    /// Send it a signal.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        let pid = i32::try_from(self.child().id())
            .ok()
            .and_then(Pid::from_raw);
        let sent = pid.map(|pid| kill_process(pid, signal));
        assert!(matches!(sent, Some(Ok(()))), "{}: {sent:?}", self.what);
    }

    /// Wait for its end.
    ///
    /// # Panics
    /// When it cannot be waited for.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        let pidfd = open_pidfd(self.pid());
        // Given up, it is killed by its drop.
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
            // Both fail only when it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
