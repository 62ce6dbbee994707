//! Containers that have a user namespace of their own.

mod ranges;
