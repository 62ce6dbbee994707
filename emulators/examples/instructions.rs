//! Renders each view of a recorded container a number of times, for callgrind to count: `cargo xtask instructions`.
//!
//! What it prints names one call of [`render_times`] a line, in the order in which they are made.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement fails by panicking, and says what it measured"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::Fixture;
use eci_fs_emulators::{EMULATORS, Emulator, render_view};

/// Renderings in each call.
const TIMES: u32 = 10;

fn main() {
    for version in ["v1", "v2"] {
        let Some(fixture) = common::as_in_the_server(version) else {
            continue;
        };
        for emulator in EMULATORS {
            if !emulator.exists(&fixture.context()) {
                continue;
            }
            let mut out = Vec::new();
            // Not counted: the first one opens the files.
            render(*emulator, &fixture, &mut out);
            render_times(*emulator, &fixture, &mut out);
            println!("{version} {TIMES} {}", emulator.facts().path);
        }
    }
}

/// What is counted; callgrind finds it by its name.
#[inline(never)]
fn render_times(emulator: &dyn Emulator, fixture: &Fixture, out: &mut Vec<u8>) {
    for _ in 0..TIMES {
        render(emulator, fixture, out);
    }
}

fn render(emulator: &dyn Emulator, fixture: &Fixture, out: &mut Vec<u8>) {
    out.clear();
    render_view(emulator, &fixture.context(), true, out).unwrap();
    black_box(out.len());
}
