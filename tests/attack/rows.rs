//! The attacks that were found to delay others, one test each. docs/security.md has a table of what they do to a neighbour.

use crate::attacker::Needs;
use crate::round::{Row, attack};

/// The number of threads of an attacker in a short run.
const SHORT: usize = 100;

/// The number of network devices of an attacker, where it has many: more than the server keeps the names of.
const DEVICES: usize = 5000;

#[test]
fn privileged_nobody_waits_for_threads_that_open_the_cached_view() {
    let row = Row {
        attack: "open-cached",
        says: "open, read and close /proc/meminfo",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_ask_for_attributes() {
    let row = Row {
        attack: "force-attributes",
        says: "statx(2) of /proc/meminfo with AT_STATX_FORCE_SYNC",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_drop_the_pages() {
    let row = Row {
        attack: "drop-pages",
        says: "drop the pages of /proc/meminfo, and read it",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_are_counted() {
    let row = Row {
        attack: "count-threads",
        says: "sleep, and are counted for /proc/loadavg and /proc/stat",
        needs: Needs::Nothing,
        anew: true,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_read_a_live_view() {
    let row = Row {
        attack: "read-live",
        says: "read /proc/vmstat, which is held open",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_open_a_live_view() {
    let row = Row {
        attack: "open-live",
        says: "open, read and close /proc/vmstat",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_poll_pressure() {
    let row = Row {
        attack: "poll-pressure",
        says: "poll /proc/pressure/cpu",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_make_triggers() {
    let row = Row {
        attack: "make-triggers",
        says: "make pressure triggers, and close them",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[1, 30]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_open_a_tunable() {
    let row = Row {
        attack: "open-tunable",
        says: "open, read and close vm/swappiness",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_write_a_tunable() {
    let row = Row {
        attack: "write-tunable",
        says: "write vm/swappiness",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_list_the_cpus() {
    let row = Row {
        attack: "list-cpus",
        says: "list the cpu directory",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_list_the_nodes() {
    let row = Row {
        attack: "list-nodes",
        says: "list the node directory",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_stat_a_file_of_a_node() {
    let row = Row {
        attack: "stat-node",
        says: "stat(2) of node0/meminfo",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_open_a_file_of_a_node() {
    let row = Row {
        attack: "open-node",
        says: "open, read and close node0/meminfo",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_ask_for_odd_names() {
    let row = Row {
        attack: "odd-names",
        says: "ask for names that are not there, below cpu0",
        needs: Needs::Nothing,
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_read_links() {
    let row = Row {
        attack: "read-links",
        says: "readlink(2) of cpu0/subsystem, beside thousands of devices",
        needs: Needs::Devices(DEVICES),
        anew: false,
    };
    attack(row, &[SHORT]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_list_devices() {
    let row = Row {
        attack: "list-devices",
        says: "list a directory of thousands of devices",
        needs: Needs::Devices(DEVICES),
        anew: false,
    };
    attack(row, &[100]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_find_devices() {
    let row = Row {
        attack: "find-devices",
        says: "ask for thousands of devices in turn",
        needs: Needs::Devices(DEVICES),
        anew: false,
    };
    attack(row, &[100]);
}

#[test]
fn privileged_nobody_waits_for_threads_that_write_the_own_limit() {
    let row = Row {
        attack: "write-limit",
        says: "write the own limit of memory",
        needs: Needs::OwnLimit,
        anew: false,
    };
    attack(row, &[SHORT]);
}
