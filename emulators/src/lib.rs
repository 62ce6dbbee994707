//! The text of each emulated file of /proc and /sys.
//!
//! An *emulator* computes a *view*: the text that a grafted file shows to one container. It computes the view from
//! that container's cgroup, namespaces and start time. Readers take a directory descriptor, parsers take text, and
//! the rest is arithmetic.
//!
//! The crate has no FUSE, no threads, no globals and no clock (the caller supplies the time), and writes to no file.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod buffer;
pub mod cgroup;
pub mod container;
pub mod context;
pub mod cpulist;
pub mod descriptor_cache;
pub mod directory;
pub mod emulator;
pub mod error;
pub mod facts;
pub mod host;
mod limit_cache;
pub mod model;
pub mod proc;
pub mod registry;
mod stall_cache;
pub mod sys;
pub mod text;
pub mod tunable;
pub mod view;

pub use buffer::Text;
pub use cgroup::{Cgroup, Controller, Hierarchy, LimitFile, Version, limit_files};
pub use container::{Container, History, Identity, Network, Shown, Values};
pub use container::{IdMap, IdRange};
pub use context::{Context, CpuIds, CpuQuota, Load, Needs, Settings, Threads};
pub use descriptor_cache::{DescriptorCache, HierarchyCache};
pub use directory::{Decision, Directory, DirectoryFacts};
pub use emulator::{Emulator, render_view};
pub use error::Error;
pub use facts::{Bound, Facts, Pace, PressureResource};
pub use host::{Host, HostText, Read};
pub use model::load::{initial_load, next_load};
pub use model::threads::{Effort, read_few_threads, read_threads};
pub use registry::{DIRECTORIES, EMULATORS, TUNABLES, tunable};
pub use tunable::{HostSysctl, Tunable};
pub use view::View;
