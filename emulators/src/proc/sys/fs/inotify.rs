//! /proc/sys/fs/inotify: the table of its tunables.
//!
//! Format: inotify_table, fs/notify/inotify/inotify_user.c.
//! Virtual: what the container has written.
//! Passed through: the machine's values until then.
//! Invented: nothing.

use crate::tunable::{Handler, Tunable};

/// The tunables of this directory. What a user namespace may have is in /proc/sys/user, and is the kernel's.
pub static TUNABLES: &[Tunable] = &[
    Tunable::new(352, "/proc/sys/fs/inotify/max_user_instances", COUNT),
    Tunable::new(353, "/proc/sys/fs/inotify/max_user_watches", COUNT),
    Tunable::new(354, "/proc/sys/fs/inotify/max_queued_events", COUNT),
];

const COUNT: Handler = Handler::int(0, i32::MAX);
