//! The threads of a server that does not answer, for the log. When the server has been ended, nobody can tell.

use crate::container::procfs::Proc;

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
