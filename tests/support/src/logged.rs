//! A program in the foreground. Tests can wait for lines of its log.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::PATIENCE;
use crate::process::{end_within, open_pidfd, wait_for_end};

/// A running program. It is ended when this value is dropped.
#[derive(Debug)]
pub struct Logged {
    child: Child,
    log: Receiver<String>,
    said: Vec<String>,
}

impl Logged {
    /// Starts a program. Its standard error is the log.
    ///
    /// # Panics
    /// When the program cannot be started.
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
                    // A test that is over no longer reads.
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

    /// Waits for a line of the log, after the last line that was found.
    ///
    /// # Panics
    /// When no such line comes.
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

    /// Returns the lines of the log so far.
    pub fn log_lines(&mut self) -> &[String] {
        self.said.extend(self.log.try_iter());
        &self.said
    }

    /// Returns the pid of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the program, which the caller has caused.
    ///
    /// # Panics
    /// When the program cannot be waited for.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        match self.child.wait() {
            Ok(status) => status,
            Err(error) => panic!("{} cannot be waited for: {error}", self.pid()),
        }
    }

    /// Ends the program with SIGTERM, as a service manager does.
    ///
    /// # Panics
    /// When the program does not end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        let pidfd = open_pidfd(self.pid());
        self.signal(Signal::TERM);
        // A stopped program does not receive SIGTERM.
        self.signal(Signal::CONT);
        wait_for_end(&pidfd);
        self.wait()
    }
}

impl Logged {
    /// Kills the program, and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn kill(&mut self) {
        let pidfd = open_pidfd(self.pid());
        self.signal(Signal::KILL);
        wait_for_end(&pidfd);
        self.wait();
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            // This fails only when the program has ended.
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
        // In a test that is failing, a second panic would abort the process before the cleanup is done.
        if !std::thread::panicking() {
            assert!(
                ended,
                "{} does not end: {:#?}",
                self.pid(),
                self.log_lines()
            );
            self.wait();
        }
    }
}
