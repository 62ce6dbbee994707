//! After a program dies, the next one continues with the texts and figures that readers have seen.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use support::Container;

use crate::{limits, scene};

/// A view of the container, as a process in it would open it.
fn open(container: &Container, path: &str) -> File {
    File::open(format!("/proc/{}/root{path}", container.pid())).unwrap()
}

fn read_at(file: &File, at: u64, length: usize) -> String {
    let mut bytes = vec![0; length];
    let length = file.read_at(&mut bytes, at).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[test]
fn privileged_half_a_view_is_followed_by_its_other_half_whatever_dies_in_between() {
    let scene = scene();
    let mut daemon = scene.daemon(&["--freshness", "0"]);
    let mut container = scene.container().start();
    scene.attach(&container);
    for round in 0..4 {
        let file = open(&container, "/proc/stat");
        let first = read_at(&file, 0, 10);
        let whole = first.clone() + &read_at(&file, 10, 1 << 16);
        assert!(
            whole.starts_with("cpu ") && whole.ends_with('\n'),
            "{whole}"
        );
        container.ask(&["burn", "30"]);
        if round % 2 == 0 {
            daemon.kill_server();
            assert_eq!(read_at(&file, 10, 1 << 16), whole[10..]);
            daemon.wait_for("the server died");
        } else {
            daemon.die();
            assert_eq!(read_at(&file, 10, 1 << 16), whole[10..]);
            daemon = scene.daemon(&["--freshness", "0"]);
        }
        assert_eq!(read_at(&file, 20, 1 << 16), whole[20..]);
    }
    drop(container);
    daemon.end();
}

#[test]
fn privileged_no_counter_falls_when_cpus_change_while_the_server_is_dead() {
    let scene = scene();
    let mut daemon = scene.daemon(&[]);
    let mut container = scene.container().limits(limits(128, 2.0)).start();
    scene.attach(&container);
    let mut last: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for cpus in [2.0, 1.0, 1.0, 2.0, 1.0, 2.0] {
        container.ask(&["burn", "30"]);
        daemon.kill_server();
        container.cgroup().limit(&limits(128, cpus));
        let stat = container.read("/proc/stat");
        for line in stat.lines().filter(|line| line.starts_with("cpu")) {
            let (name, columns) = line.split_once(' ').unwrap();
            let columns: Vec<u64> = columns
                .split_whitespace()
                .map(|column| column.parse().unwrap())
                .collect();
            let before = last.insert(name.to_owned(), columns.clone());
            let before = before.unwrap_or_else(|| vec![0; columns.len()]);
            let falls = columns.iter().zip(&before).any(|(now, then)| now < then);
            assert!(!falls, "{name}: {before:?} {columns:?}");
        }
        daemon.wait_for("the server died");
    }
    drop(container);
    daemon.end();
}
