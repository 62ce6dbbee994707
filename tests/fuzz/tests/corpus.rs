//! Every input of the corpora passes: without libFuzzer, on any toolchain.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says at which input"
)]

use std::fs;
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, target};

/// The most bytes that all corpora may have together.
const MOST: u64 = 1 << 20;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Returns the files in a folder of the corpus, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Feeds a target its corpus, and the empty input.
fn feed(name: &str) {
    let target = target(name).unwrap();
    target.feed(&[]);
    let files = files(&corpus().join(name));
    assert!(!files.is_empty(), "{name} has no corpus");
    for file in files {
        // The test fails in the target, with this line before it.
        println!("{}", file.display());
        let bytes = fs::read(&file).unwrap();
        assert!(bytes.len() <= target.longest, "{}", file.display());
        target.feed(&bytes);
    }
}

macro_rules! corpora {
    ($($name:ident)+) => {
        $(#[test] fn $name() { feed(stringify!($name)); })+

        #[test]
        fn every_target_has_its_test_here_and_its_corpus() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
            let folders = files(&corpus());
            let folders: Vec<_> = folders.iter().map(|f| f.file_name().unwrap()).collect();
            let mut sorted = names;
            sorted.sort_unstable();
            assert_eq!(folders, sorted);
        }
    };
}

corpora! {
    cpu_sets
    process_files
    engine_input
    tunable_writes
    views
    fuse_requests
    device_requests
    pressure_triggers
    state_file
    packets_to_daemon
    packets_to_server
}

#[test]
fn the_corpora_are_small() {
    let all = files(&corpus())
        .into_iter()
        .flat_map(|folder| files(&folder));
    let size: u64 = all.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(size <= MOST, "{size} bytes");
}
