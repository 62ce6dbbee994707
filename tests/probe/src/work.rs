//! Work that shows in a container's counters.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::answer::Answer;

/// Uses this amount of CPU time.
pub(crate) fn burn(milliseconds: u64) -> Answer {
    let used =
        || -> io::Result<Duration> { Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into()) };
    let (started, before) = (Instant::now(), used()?);
    let mut sum = 0u64;
    while used()?.saturating_sub(before) < Duration::from_millis(milliseconds) {
        for number in 0..10_000u64 {
            sum = black_box(sum.wrapping_add(number));
        }
    }
    Ok(json!({
        "used_ms": used()?.saturating_sub(before).as_millis() as u64,
        "took_ms": started.elapsed().as_millis() as u64,
    }))
}

/// Returns memory of which every page has been written.
pub(crate) fn allocate(bytes: usize) -> io::Result<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).map_err(io::Error::other)?;
    // The bytes are not zero, because pages of zeros need no memory.
    memory.resize(bytes, 1);
    Ok(black_box(memory))
}
