//! A report about a test that does not come to its end.
//!
//! The runner kills a test that takes too long, and nothing says what it waited for. So a thread of the test says it
//! before that: the processes that descend from the test, and what each of their threads waits for in the kernel.

use std::fs;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

/// The age of a test at which it is reported. The runner kills most tests after 120 s.
const AGE: Duration = Duration::from_secs(100);

/// The watch over one test. When it is dropped, the test has ended.
#[derive(Debug)]
pub(crate) struct StuckReport {
    _ends_with: Option<Sender<()>>,
}

impl StuckReport {
    /// Starts the thread that reports this process once, unless the value is dropped before.
    pub(crate) fn start() -> Self {
        let (sender, receiver) = mpsc::channel::<()>();
        let watch = move || {
            if receiver.recv_timeout(AGE) == Err(RecvTimeoutError::Timeout) {
                report(std::process::id(), |line| {
                    // Not by a macro, whose output the harness may hold back.
                    let _ = writeln!(std::io::stderr(), "{line}");
                });
            }
        };
        // A test goes on without it.
        let thread = std::thread::Builder::new().name("stuck".to_owned());
        let started = thread.spawn(watch).is_ok();
        Self {
            _ends_with: started.then_some(sender),
        }
    }
}

/// Passes a line about each thread of a process and of its descendants to `print`. A question about a process that hangs
/// may hang itself, so each line is printed before the next question, and those that need the memory of a process come
/// last.
fn report(root: u32, mut print: impl FnMut(&str)) {
    print(&format!(
        "This test is {} s old. Its processes wait for this:",
        AGE.as_secs()
    ));
    let all = descendants(root);
    for pid in &all {
        for thread in numbers(&format!("/proc/{pid}/task")) {
            let dir = format!("/proc/{pid}/task/{thread}");
            let state = read(&format!("{dir}/stat"))
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.trim().chars().next())
                .unwrap_or('?');
            let comm = read(&format!("{dir}/comm"));
            let wchan = read(&format!("{dir}/wchan"));
            print(&format!(
                "process {pid} thread {thread} ({comm}): state {state}, in {wchan}"
            ));
            let call = read(&format!("{dir}/syscall"));
            print(&format!("  system call and arguments: {call}"));
        }
    }
    for pid in &all {
        let line = read(&format!("/proc/{pid}/cmdline")).replace('\0', " ");
        print(&format!("process {pid} is: {line}"));
    }
}

/// Returns a process and all that descend from it, each after its parent.
fn descendants(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = numbers("/proc")
        .into_iter()
        .filter_map(|pid| Some((pid, parent_of(pid)?)))
        .collect();
    let mut all = vec![root];
    let mut next = 0;
    while let Some(parent) = all.get(next).copied() {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        all.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    all
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Returns the names in a directory that are numbers, in their order.
fn numbers(dir: &str) -> Vec<u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    all.sort_unstable();
    all
}

/// Returns the text of a file, or the reason why it cannot be read.
fn read(path: &str) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) => format!("? ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_report_names_each_descendant_its_threads_and_its_command() {
        let mut child = Command::new("sh")
            .args(["-c", "cat; exit 7"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = Vec::new();
        report(std::process::id(), |line| lines.push(line.to_owned()));
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(7));
        let has = |part: &str| lines.iter().any(|line| line.contains(part));
        assert!(
            has(&format!("process {} thread {}", child.id(), child.id())),
            "{lines:#?}"
        );
        assert!(
            has(&format!("process {} is: sh -c cat; exit 7", child.id())),
            "{lines:#?}"
        );
        assert!(has(&format!("process {} is:", std::process::id())));
    }
}
