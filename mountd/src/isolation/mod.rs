//! Isolated containers.

pub mod overlays;
