//! The part of the probe that other programs in test containers use too.

pub mod capabilities;
pub mod handles;
