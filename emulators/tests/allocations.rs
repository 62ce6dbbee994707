//! A view that is computed again allocates nothing. So it neither waits for the allocator nor uses its lines of the
//! CPU's cache.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unsafe_code,
    reason = "an allocator is unsafe code; this one counts and passes on"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use eci_fs_emulators::{EMULATORS, render_view};

/// The system's allocator with a count.
struct Counting;

thread_local! {
    /// The number of allocations of this thread. Those of other threads of the test runner do not count.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no counter any more.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: all calls go to the system's allocator as they came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The files that programs read all the time.
const HOT: &[&str] = &[
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/loadavg",
];

/// The recorded hosts have at most 16 CPUs. With more CPUs the rows do not fit on the stack.
#[test]
fn a_view_that_is_computed_again_allocates_nothing() {
    const TICK: Duration = Duration::from_millis(10);
    for version in ["v1", "v2"] {
        let Some(fixture) = common::as_in_the_server(version) else {
            panic!("no machine with cgroup {version} was recorded");
        };
        fixture.host.share_reads(TICK);
        fixture.container.cgroup.cache_limits();
        for path in HOT {
            let emulator = EMULATORS.iter().find(|e| e.facts().path == *path).unwrap();
            let mut out = Vec::with_capacity(1 << 16);
            let mut counts = Vec::with_capacity(8);
            for turn in 1..=6 {
                // Each turn has a tick of its own, so the host's files are read again.
                fixture.host.set_time(fixture.boottime + TICK * turn);
                out.clear();
                let before = ASKED.get();
                render_view(*emulator, &fixture.context(), &mut out).unwrap();
                counts.push(ASKED.get() - before);
            }
            assert!(!out.is_empty());
            // The first turns open files and fill the pool of buffers.
            assert_eq!(counts[2..], [0; 4], "{path} with {version}: {counts:?}");
        }
    }
}
