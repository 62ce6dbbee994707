//! A program in the foreground, whose log can be waited for.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::PATIENCE;
use crate::process::{end_within, open_pidfd, wait_for_end};

/// A running program. It is ended with the value.
#[derive(Debug)]
pub struct Logged {
    child: Child,
    log: Receiver<String>,
    said: Vec<String>,
}

impl Logged {
    /// Start one. Its log is its standard error.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{command:?} cannot be started: {error}"),
        };
        let (lines, log) = channel();
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    // A test that is over does not read on.
                    let _ = lines.send(line);
                }
            });
        }
        Self {
            child,
            log,
            said: Vec::new(),
        }
    }

    /// Wait for a line of the log, from where the last one was found.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(_) => panic!("the log does not say {words:?} but: {:#?}", self.said),
            }
        }
    }

    /// What the log has said so far.
    pub fn said(&mut self) -> &[String] {
        self.said.extend(self.log.try_iter());
        &self.said
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Wait for its end, which somebody has seen to.
    ///
    /// # Panics
    /// When it cannot be waited for.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        match self.child.wait() {
            Ok(status) => status,
            Err(error) => panic!("{} cannot be waited for: {error}", self.pid()),
        }
    }

    /// End it as a service manager would.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        let pidfd = open_pidfd(self.pid());
        self.signal(Signal::TERM);
        // One that is stopped would not hear of it.
        self.signal(Signal::CONT);
        wait_for_end(&pidfd);
        self.wait()
    }
}

impl Logged {
    /// Send it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            // It fails only when the program has ended.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pidfd = open_pidfd(self.pid());
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
        let ended = end_within(&pidfd, PATIENCE);
        if !ended {
            self.signal(Signal::KILL);
        }
        // While the test fails already, this is not to end the process before the rest is taken away.
        if !std::thread::panicking() {
            assert!(ended, "{} does not end: {:#?}", self.pid(), self.said());
            self.wait();
        }
    }
}
