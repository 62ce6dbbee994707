//! The promises of isolation that hold for a container of any engine, and what a container with all capabilities gets by
//! calls that would reach the host. docs/isolation.md has both as tables.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// A promise, a script for a shell of busybox in a container that has all capabilities, 192 MiB of memory, and a read-only
/// volume at /vol, and what the script prints. The mounts of the container are locked.
pub const PROMISES: &[(&str, &str, &str)] = &[
    (
        "a read-only volume cannot be made writable by mount(2)",
        "for how in remount,rw remount,bind,rw; do
             busybox mount -o $how /vol 2>/tmp/said && echo done; busybox grep -o 'ermission denied' /tmp/said
         done
         busybox touch /vol/w 2>&1 | busybox grep -o 'Read-only file system'",
        "ermission denied\nermission denied\nRead-only file system\n",
    ),
    (
        "nor by newer calls, and grafts stay where they are",
        "busybox mkdir -p /mnt
         for name in ro-remount-sb ro-setattr ro-setattr-rec ro-open-tree ro-open-tree-attr ro-fspick \
             umount-detach move-new bind-proc open-tree proc proc-fsopen sysfs; do
             probe breach $name | busybox grep -q '\"breach\":false' || echo $name
         done",
        "",
    ),
    (
        "the mounts that a container starts with cannot be taken away",
        "for path in /proc/meminfo /proc/uptime /sys/devices/system/cpu/online; do
             busybox umount -l $path 2>/tmp/said && echo $path; busybox grep -o 'nvalid argument' /tmp/said
         done",
        "nvalid argument\nnvalid argument\nnvalid argument\n",
    ),
    (
        "a container changes what it mounts itself",
        "busybox mkdir -p /tmp/own; busybox mount -t tmpfs tmpfs /tmp/own
         for how in ro rw; do
             busybox mount -o remount,$how tmpfs /tmp/own
             busybox grep ' /tmp/own ' /proc/self/mounts | busybox cut -d' ' -f4 | busybox cut -d, -f1
         done
         busybox touch /tmp/own/file; busybox umount /tmp/own; busybox ls /tmp/own",
        "ro\nrw\n",
    ),
    (
        "uptime is the time since the start of the container",
        "read -r up rest </proc/uptime; test ${up%.*} -lt 60 && echo young",
        "young\n",
    ),
    (
        "the memory is that of the container",
        "busybox sed -n 's/^MemTotal: *//p' /proc/meminfo",
        "196608 kB\n",
    ),
    (
        "what nodes of clusters want can be written, and is read back",
        "for path in kernel/panic kernel/panic_on_oops vm/overcommit_memory vm/panic_on_oom; do
             echo 1 >/proc/sys/$path; busybox cat /proc/sys/$path
         done",
        "1\n1\n1\n1\n",
    ),
];

/// The beginning of each script of [`PROMISES`].
pub const SHELL: &[&str] = &["/bin/busybox", "sh", "-c"];

/// Returns where the hierarchy is mounted that has limits of memory.
pub fn cgroups() -> &'static str {
    match Path::new(MEMORY).exists() {
        true => MEMORY,
        false => "/sys/fs/cgroup",
    }
}

const MEMORY: &str = "/sys/fs/cgroup/memory";

/// Returns the path of the cgroup of a process of the host in that hierarchy.
///
/// # Panics
/// When the process has none.
#[track_caller]
pub fn cgroup_of(pid: u32) -> String {
    let controller = if cgroups() == MEMORY { "memory" } else { "" };
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let mut all = controllers.split(',');
        all.any(|one| one == controller).then_some(path)
    });
    match path {
        Some(path) => path.to_owned(),
        None => panic!("process {pid} has no cgroup: {text}"),
    }
}

/// Checks the answer of `probe reach` against the table in docs/isolation.md: each attempt is in one row, and its answer is
/// one of those of the row.
///
/// # Panics
/// When the check fails.
#[track_caller]
pub fn reached_as_documented(said: &Value, whose: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/isolation.md");
    let document = std::fs::read_to_string(path).unwrap_or_default();
    let rows = documented(&document);
    let said = said.as_object().into_iter().flatten();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (attempt, answer) in said {
        count += 1;
        let answer = answer.as_str().unwrap_or_default();
        match rows.get(attempt.as_str()) {
            Some(answers) if answers.contains(&answer) => {}
            answers => wrong.push(format!("{attempt}: {answer}, and not {answers:?}")),
        }
    }
    assert!(wrong.is_empty(), "{whose}: {wrong:#?}");
    assert_eq!(count, rows.len(), "{whose}: {rows:?}");
}

/// The rows of the table: attempts, each with the answers that it may have.
fn documented(document: &str) -> BTreeMap<&str, Vec<&str>> {
    let table = document.split("<!-- begin: privileged -->\n").nth(1);
    let table = table.and_then(|rest| rest.split("<!-- end: privileged -->").next());
    let rows = table.unwrap_or_default().lines().skip(2);
    rows.flat_map(|row| {
        let mut cells = row.trim_matches('|').split(" | ");
        let (attempts, answers) = (cells.next(), cells.next());
        let answers: Vec<&str> = answers
            .unwrap_or_default()
            .split(", ")
            .map(str::trim)
            .collect();
        let attempts = attempts.unwrap_or_default().split('`').skip(1).step_by(2);
        attempts.map(move |attempt| (attempt, answers.clone()))
    })
    .collect()
}
