//! The threads of a server that does not answer: whether it hangs or gets no CPU, and what they do, for the log. When the server
//! has been ended, nobody can tell.

use std::time::Duration;

use crate::container::procfs::Proc;

/// The CPU time that a server has used at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTime {
    pid: i32,
    used: Duration,
}

impl CpuTime {
    /// Returns the CPU time that a process has used until now; none if it cannot be read.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = Proc::open().ok()?.read(&format!("{pid}/stat")).ok()?;
        let used = used(&stat)?;
        Some(Self { pid, used })
    }

    /// Returns whether the process has got no CPU since: one of its threads wants it, and all of them have used less than
    /// `least`. Another server in its place would get none either.
    pub(crate) fn is_starved(&self, least: Duration) -> bool {
        let now = Self::of(self.pid);
        now.is_some_and(|now| now.used.saturating_sub(self.used) < least) && wants_cpu(self.pid)
    }
}

/// Returns the CPU time in the text of a `stat` file: the 14th and the 15th field, of which the name is the second.
fn used(stat: &str) -> Option<Duration> {
    let (_, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()?.saturating_add(ticks()?);
    let each = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_secs_f64(ticks as f64 / each as f64))
}

/// Returns whether a thread of a process runs or wants to.
fn wants_cpu(pid: i32) -> bool {
    let Ok(proc) = Proc::open() else {
        return false;
    };
    let threads = proc.threads(pid).unwrap_or_default();
    threads.into_iter().any(|thread| {
        let stat = proc.read(&format!("{pid}/task/{thread}/stat"));
        stat.is_ok_and(|stat| {
            let state = stat.rsplit_once(") ");
            state.is_some_and(|(_, after)| after.starts_with('R'))
        })
    })
}

/// Returns each thread of a process: its name, its state, and the kernel function that it waits in ("control S
/// unix_stream_read_generic, ..."). The text is empty where that cannot be told.
pub(crate) fn threads_of(pid: i32) -> String {
    let Ok(proc) = Proc::open() else {
        return String::new();
    };
    let threads = proc.threads(pid).unwrap_or_default();
    let described = threads.into_iter().filter_map(|thread| {
        let dir = format!("{pid}/task/{thread}");
        // "12 (a name) S 1 ...": a name may have parentheses itself.
        let stat = proc.read(&format!("{dir}/stat")).ok()?;
        let (before, after) = stat.rsplit_once(") ")?;
        let (_, name) = before.split_once('(')?;
        let state = after.chars().next()?;
        // Only a process that may look into the other is told. The file has 0 while the thread runs.
        let waits = proc.read(&format!("{dir}/wchan")).unwrap_or_default();
        Some(format!("{name} {state} {waits}"))
    });
    described.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_a_process_is_found_whatever_its_name_is() {
        let ticks = rustix::param::clock_ticks_per_second();
        let stat =
            format!("12 (odd) R (name) S 1 12 12 0 -1 4194560 1 0 0 0 {ticks} {ticks} 0 0 20");
        assert_eq!(used(&stat), Some(Duration::from_secs(2)));
        assert_eq!(used("12 (cut) S 1"), None);
    }

    #[test]
    fn a_process_that_sleeps_or_has_used_its_time_is_not_starved() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = CpuTime::of(own).unwrap();
        // This thread runs.
        assert!(before.is_starved(Duration::MAX));
        assert!(!before.is_starved(Duration::ZERO));
        // Nobody has that pid.
        assert!(CpuTime::of(i32::MAX).is_none());
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let sleeps = CpuTime::of(pid).unwrap();
        while wants_cpu(pid) {
            std::thread::yield_now();
        }
        assert!(!sleeps.is_starved(Duration::MAX));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn each_thread_is_named_with_what_it_does() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let (started, starts) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("odd) (name".to_owned())
            .spawn(move || {
                // By then it has its name.
                started.send(()).unwrap();
                wait.recv()
            });
        starts.recv().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let said = threads_of(own);
        assert!(said.contains("odd) (name "), "{said}");
        assert!(said.split(", ").count() > 1, "{said}");
        drop(stop);
        assert!(thread.unwrap().join().unwrap().is_err());
        // Nobody has that pid.
        assert_eq!(threads_of(i32::MAX), "");
    }
}
