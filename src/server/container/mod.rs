//! Attached containers: the values that their views are computed from, and what watches those.

mod attached;
mod freshness;
mod sampler;
mod settings;
mod user_namespace;
mod watcher;

pub use attached::{Attached, SizeChange, Version};
pub use freshness::{Freshness, STATIC_BOUND, hz};
pub use sampler::{LoadSample, Sampler};
pub use settings::view_settings;
pub use user_namespace::UserNamespaceCache;
pub use watcher::Watcher;
