//! Measures how long it takes to compute each view of a recorded container, and to parse the files that views are
//! computed from: `cargo bench -p eci-fs-emulators [-- FILTER]`.
//!
//! The recorded files are in an ordinary file system, so these figures do not include the time that the kernel needs
//! to write its files. `eci-fs bench` measures that.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark fails by panicking, and is no interface"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use eci_fs_emulators::cgroup::Limit;
use eci_fs_emulators::cpulist::CpuSet;
use eci_fs_emulators::model::memory::parse_host;
use eci_fs_emulators::{EMULATORS, render_view, text};

/// Each view of the first recorded host of each cgroup version.
fn views(criterion: &mut Criterion) {
    for version in ["v1", "v2"] {
        let Some(fixture) = common::as_in_the_server(version) else {
            continue;
        };
        let mut group = criterion.benchmark_group(version);
        for emulator in EMULATORS {
            if !emulator.exists(&fixture.context()) {
                continue;
            }
            let mut out = Vec::new();
            group.bench_function(emulator.facts().path, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    render_view(*emulator, &fixture.context(), &mut out).unwrap();
                    black_box(out.len())
                });
            });
        }
        group.finish();
    }
}

/// The parsers of the longest files.
fn parsers(criterion: &mut Criterion) {
    let recorded = common::recorded(&common::all()[0]);
    let meminfo = recorded.file("host/proc/meminfo").unwrap();
    let stat = recorded.file("host/proc/stat").unwrap();
    let mut group = criterion.benchmark_group("parse");
    group.bench_function("/proc/meminfo", |bencher| {
        bencher.iter(|| parse_host(black_box(meminfo)));
    });
    group.bench_function("a key of /proc/stat", |bencher| {
        bencher.iter(|| text::parse_key(black_box(stat), "procs_blocked"));
    });
    group.bench_function("a list of CPUs", |bencher| {
        bencher.iter(|| CpuSet::parse_list(black_box(b"0-3,8-11,16,18,20-255")));
    });
    group.bench_function("a limit of v2", |bencher| {
        bencher.iter(|| Limit::parse_v2(black_box(b"1073741824\n")));
    });
    group.bench_function("fields of a line", |bencher| {
        bencher.iter(|| text::fields(black_box(b"cpu0 1 2 3 4 5 6 7 8 9 10")).count());
    });
    group.finish();
}

criterion_group!(benches, views, parsers);
criterion_main!(benches);
