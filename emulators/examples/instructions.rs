//! Renders each view of a recorded container a number of times, so that callgrind can count instructions: `cargo
//! xtask instructions`.
//!
//! The output has one line for each call of [`render_times`], in order.
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

/// The number of renderings in each call.
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
            // The first rendering opens the files and is not counted.
            render(*emulator, &fixture, &mut out);
            render_times(*emulator, &fixture, &mut out);
            println!("{version} {TIMES} {}", emulator.facts().path);
        }
    }
}

/// The function that callgrind counts; it finds it by its name.
#[inline(never)]
fn render_times(emulator: &dyn Emulator, fixture: &Fixture, out: &mut Vec<u8>) {
    for _ in 0..TIMES {
        render(emulator, fixture, out);
    }
}

fn render(emulator: &dyn Emulator, fixture: &Fixture, out: &mut Vec<u8>) {
    out.clear();
    render_view(emulator, &fixture.context(), out).unwrap();
    black_box(out.len());
}
