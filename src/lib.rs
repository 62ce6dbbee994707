//! eci-fs
