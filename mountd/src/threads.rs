//! Threads that live as long as the daemon. The end of one is noticed, logged, told to `eci-fs doctor`, and mended.
//!
//! | thread | work | when it panics |
//! |---|---|---|
//! | main | the event loop | the daemon ends |
//! | `broker` | takes the questions of one server | is started again |
//! | `answers` | answers these questions | the question is answered with EIO, and the thread goes on |
//! | `grafter` | clones and mounts in the namespace of the source mounts, which it is in | the daemon ends |
//! | `prober`, `visitor` | start the threads that ask a file system, or look into a container | the daemon ends |
//! | `visit`, `probe` | one look into a container, one question to a file system | the operation fails |
//! | `control` | one command | the command is told |
//! | `preparer` | prepares the next attaches | is started again |
//! | `ended` | removes containers that have ended | is started again |
//! | `overlays` | has engines' overlays, and those of isolated containers, forget outdated names | is started again |
//! | `ranges` | frees ranges of ids whose last process has ended | is started again |
//! | `calls` | takes filters of system calls from runtimes, and starts the supervisor | is started again |
//! | `watchdog` | ends a server that hangs | is started again |
//!
//! `overlays` starts with the first isolated container on an overlay, and `ranges` with the first range.
//!
//! A daemon that ends so undoes nothing. The service manager starts the next one, which takes over the server.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use eci_fs_protocol::error::{Error, Result};

/// The exit code of a daemon that ends because it cannot go on without a thread (EX_SOFTWARE of sysexits.h).
const CANNOT_GO_ON: i32 = 70;

/// A thread that panics as often as this within [`WINDOW`] is not started again: the daemon ends.
const MOST_PANICS: usize = 10;

/// See [`MOST_PANICS`].
const WINDOW: Duration = Duration::from_secs(60);

/// The panics of threads so far: the number of them, and the words of the last.
static PANICS: Mutex<BTreeMap<&'static str, (u64, String)>> = Mutex::new(BTreeMap::new());

/// The reaction to the panic of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mend {
    /// Its work begins again.
    Again,
    /// The daemon ends, and the next one takes over.
    End,
}

/// Starts a thread that does `work` until that returns, which it does only when there is nothing left to do.
///
/// # Errors
/// When there are no more threads.
pub(crate) fn start(
    name: &'static str,
    mend: Mend,
    mut work: impl FnMut() + Send + 'static,
) -> Result<()> {
    let run = move || {
        let mut panics: Vec<Instant> = Vec::new();
        while let Err(panic) = catch_unwind(AssertUnwindSafe(&mut work)) {
            note(name, &*panic);
            panics.retain(|at| at.elapsed() < WINDOW);
            panics.push(Instant::now());
            if mend == Mend::End || panics.len() >= MOST_PANICS {
                tracing::error!(name, "the daemon cannot go on without this thread: ending");
                std::process::exit(CANNOT_GO_ON);
            }
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
        .map_err(|e| Error::io("start", format!("the thread {name}"), e))
}

/// Does `work`. If it panics, that is noted for the thread `name`, and an error is returned.
///
/// # Errors
/// When it panics.
pub(crate) fn guard<T>(name: &'static str, work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        note(name, &*panic);
        Error::new(
            eci_fs_protocol::error::Kind::System,
            format!("a thread of eci-mountd panicked: {name}"),
        )
        .remedy("see the log of eci-mountd, and report it")
    })
}

/// Returns what has happened to threads, in words, for `eci-fs doctor`.
pub(crate) fn trouble() -> Vec<String> {
    let panics = PANICS.lock();
    let line = |(name, (count, last)): (&&str, &(u64, String))| {
        format!("the thread {name} of eci-mountd panicked, {count} times so far: {last}")
    };
    panics.iter().map(line).collect()
}

fn note(name: &'static str, panic: &(dyn Any + Send)) {
    let words = panic
        .downcast_ref::<&str>()
        .map(|words| (*words).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(name, words, "a thread panicked");
    let mut panics = PANICS.lock();
    let entry = panics.entry(name).or_default();
    *entry = (entry.0 + 1, words);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_that_panics_goes_on_with_what_is_left_and_that_is_told() {
        let (send, receive) = mpsc::channel::<u32>();
        let (done, seen) = mpsc::channel();
        start("of-a-test", Mend::Again, move || {
            for number in &receive {
                assert_ne!(number, 2, "two");
                done.send(number).unwrap();
            }
        })
        .unwrap();
        for number in [1, 2, 3] {
            send.send(number).unwrap();
        }
        drop(send);
        assert_eq!(seen.iter().collect::<Vec<_>>(), [1, 3]);
        let words = trouble();
        let told = words.iter().find(|line| line.contains("of-a-test"));
        assert!(told.is_some_and(|line| line.contains("two") && line.contains("1 times")));
    }

    #[test]
    fn work_that_panics_is_an_error() {
        let error = guard("guarded", || assert_eq!(1, 2)).unwrap_err();
        assert!(error.to_string().contains("guarded"), "{error}");
        assert_eq!(guard("guarded", || 7).unwrap(), 7);
    }
}
