//! /proc/sys/fs/inotify: the table of its tunables.
//!
//! Format: inotify_table, fs/notify/inotify/inotify_user.c.
//! Virtual: what the container has written.
//! Passed through: the host's values until then.
//! Invented: nothing.

use crate::tunable::{Handler, Release, Tunable};

/// The tunables of this directory. The limits of a user namespace are in /proc/sys/user, which is the kernel's.
pub static TUNABLES: &[Tunable] = &[
    Tunable::new(352, "/proc/sys/fs/inotify/max_user_instances", LIMIT).before(LONG, COUNT),
    Tunable::new(353, "/proc/sys/fs/inotify/max_user_watches", LIMIT).before(LONG, COUNT),
    Tunable::new(354, "/proc/sys/fs/inotify/max_queued_events", COUNT),
];

/// Since this version they are longs, as all limits of user namespaces.
const LONG: Release = Release(5, 14);
const LIMIT: Handler = Handler::ulong(0, i32::MAX as u64);
const COUNT: Handler = Handler::int(0, i32::MAX);
