//! The work of a container that is measured: it uses memory and CPU time.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::time::{ClockId, clock_gettime};

/// Memory that has been written to.
pub(crate) fn anonymous(bytes: usize) -> Vec<u8> {
    vec![0xa5; bytes]
}

/// Where time is to be spent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    User,
    System,
}

/// Burns CPU time of this thread; how much it was.
pub(crate) fn burn(kind: Kind, microseconds: u64) -> String {
    let start = thread_usec();
    let mut zeros = vec![0; 1 << 18];
    let mut zero = File::open("/dev/zero").ok();
    loop {
        match (kind, &mut zero) {
            (Kind::System, Some(zero)) => {
                if zero.read_exact(&mut zeros).is_err() {
                    break;
                }
            }
            _ => turn(),
        }
        if thread_usec().saturating_sub(start) >= microseconds {
            break;
        }
    }
    thread_usec().saturating_sub(start).to_string()
}

/// The same in a thread that is nice.
pub(crate) fn burn_nice(microseconds: u64) -> String {
    let thread = std::thread::spawn(move || {
        // On Linux that is for this thread alone. It may always be nicer.
        let _ = rustix::process::nice(10);
        burn(Kind::User, microseconds)
    });
    thread.join().unwrap_or_default()
}

/// Threads that never rest.
pub(crate) struct Spinners {
    rest: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Spinners {
    pub(crate) fn start(count: usize) -> Self {
        let rest = Arc::new(AtomicBool::new(false));
        let thread = |_| {
            let rest = Arc::clone(&rest);
            std::thread::spawn(move || {
                while !rest.load(Ordering::Relaxed) {
                    turn();
                }
            })
        };
        let threads = (0..count).map(thread).collect();
        Self { rest, threads }
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.rest.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot have panicked.
            let _ = thread.join();
        }
    }
}

fn turn() {
    for number in 0..10_000u32 {
        std::hint::black_box(number);
    }
}

fn thread_usec() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) else {
        return u64::MAX;
    };
    let micros = now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000;
    u64::try_from(micros).unwrap_or(0)
}
