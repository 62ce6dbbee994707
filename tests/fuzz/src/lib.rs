//! Fuzz targets: code of the programs, and how made-up bytes reach it.
//!
//! One file of `targets/` is one target, named for what it feeds. The folder `corpus/TARGET` has inputs that each reach code
//! which no other does, and every input that has once made the target fail. `tests/corpus.rs` runs all of them as a plain test,
//! on any toolchain. `cargo xtask fuzz` builds `main.rs`, which is the same targets with libFuzzer around them, and
//! makes up more. CONTRIBUTING.md says how to add a target, and what to do with an input that fails.
#![allow(
    clippy::unwrap_used,
    reason = "a target fails by panicking, as a test does"
)]

pub mod allocator;
pub mod made_up;
pub mod packet;
pub mod recorded;
pub mod served;
pub mod targets;

/// Code that is fed made-up bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name: that of its file, and of the folder of its corpus.
    pub name: &'static str,
    /// The code to feed. It panics if something is wrong.
    pub run: fn(&[u8]),
    /// The most bytes of one input.
    pub longest: usize,
    /// The most bytes of memory that one input may take at a time.
    pub memory: usize,
}

/// One mebibyte.
const MIB: usize = 1 << 20;

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "cpu_sets",
        run: targets::cpu_sets::run,
        longest: 4096,
        memory: 4 * MIB,
    },
    Target {
        name: "process_files",
        run: targets::process_files::run,
        longest: 4096,
        memory: 4 * MIB,
    },
    Target {
        name: "engine_input",
        run: targets::engine_input::run,
        longest: 4096,
        memory: 4 * MIB,
    },
    Target {
        name: "tunable_writes",
        run: targets::tunable_writes::run,
        longest: 8192,
        memory: 4 * MIB,
    },
    Target {
        name: "views",
        run: targets::views::run,
        longest: 4096,
        memory: 64 * MIB,
    },
    Target {
        name: "fuse_requests",
        run: targets::fuse_requests::run,
        longest: 4096,
        memory: 64 * MIB,
    },
    Target {
        name: "device_requests",
        run: targets::device_requests::run,
        longest: 4096,
        memory: 64 * MIB,
    },
    Target {
        name: "pressure_triggers",
        run: targets::pressure_triggers::run,
        longest: 4096,
        memory: 16 * MIB,
    },
    Target {
        name: "state_file",
        run: targets::state_file::run,
        longest: 4096,
        memory: 64 * MIB,
    },
    Target {
        name: "packets_to_daemon",
        run: targets::packets_to_daemon::run,
        longest: 8192,
        memory: 16 * MIB,
    },
    Target {
        name: "packets_to_server",
        run: targets::packets_to_server::run,
        longest: 8192,
        memory: 64 * MIB,
    },
];

/// Returns the target with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Feeds one input.
    ///
    /// # Panics
    /// When the target fails, or takes more memory than it may.
    pub fn feed(&self, bytes: &[u8]) {
        let (run, most) = (self.run, self.memory);
        let taken = allocator::most_taken_by(|| run(bytes));
        assert!(
            taken <= most,
            "{} took {taken} bytes of memory for {} bytes of input, and may take {most}",
            self.name,
            bytes.len()
        );
    }
}
