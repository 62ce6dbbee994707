//! Files that say the same thing say it alike, in every fixture.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Fixture;
use eci_fs_emulators::cpulist::CpuSet;
use eci_fs_emulators::{CpuIds, DIRECTORIES, Decision, EMULATORS, render_view};

fn view(fixture: &Fixture, path: &str) -> String {
    let emulator = EMULATORS
        .iter()
        .find(|emulator| emulator.facts().path == path)
        .unwrap();
    let mut out = Vec::new();
    render_view(*emulator, &fixture.context(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn set(list: &str) -> CpuSet {
    CpuSet::parse_list(list.as_bytes()).unwrap()
}

/// Returns the numbers that follow `stem` in `words`.
fn numbers<'a>(words: impl Iterator<Item = &'a str>, stem: &str) -> CpuSet {
    words
        .filter_map(|word| word.strip_prefix(stem)?.parse().ok())
        .collect()
}

fn kib(text: &str, key: &str) -> u64 {
    let line = text
        .lines()
        .find(|line| line.contains(&format!("{key}:")))
        .unwrap();
    line.rsplit(':')
        .next()
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn the_cpus_are_the_same_everywhere() {
    for dir in common::all() {
        let fixture = Fixture::open(&dir);
        let cx = fixture.context();
        let name = dir.display();
        let online = set(&view(&fixture, "/sys/devices/system/cpu/online"));
        let possible = set(&view(&fixture, "/sys/devices/system/cpu/possible"));
        let dense = fixture.settings.cpu_ids == CpuIds::Dense;
        let machine = |path| set(&String::from_utf8_lossy(&cx.host.read(path).unwrap()));
        if !dense {
            for list in [
                "/sys/devices/system/cpu/possible",
                "/sys/devices/system/cpu/present",
            ] {
                assert_eq!(set(&view(&fixture, list)), machine(list), "{name}");
            }
        }
        let cpuinfo = view(&fixture, "/proc/cpuinfo");
        assert_eq!(numbers(cpuinfo.lines(), "processor\t: "), online, "{name}");
        let stat = view(&fixture, "/proc/stat");
        let rows = stat.lines().filter_map(|line| line.split(' ').next());
        assert_eq!(numbers(rows, "cpu"), online, "{name}");
        for path in ["/proc/interrupts", "/proc/softirqs"] {
            if cx.host.exists(path) {
                let columns = |table: &str| {
                    let header = table.lines().next().unwrap();
                    numbers(header.split(' '), "CPU")
                };
                let theirs = cx.host.read(path).unwrap();
                let expected = match dense {
                    true => online.clone(),
                    false => columns(&String::from_utf8_lossy(&theirs)),
                };
                assert_eq!(columns(&view(&fixture, path)), expected, "{name}: {path}");
            }
        }
        let offline = set(&view(&fixture, "/sys/devices/system/cpu/offline"));
        assert_eq!(possible.difference(&online), offline, "{name}");

        let directory = DIRECTORIES[0];
        let names = directory.names(&cx, "").unwrap();
        let all = numbers(names.iter().map(String::as_str), "cpu");
        let theirs = cx.host.names("/sys/devices/system/cpu").unwrap();
        let expected = match dense {
            true => possible,
            false => numbers(theirs.iter().map(String::as_str), "cpu"),
        };
        assert_eq!(all, expected, "{name}");
        for cpu in all.iter() {
            let path = format!("cpu{cpu}/online");
            if let Decision::View { .. } = directory.entry(&cx, &path).unwrap() {
                let mut text = Vec::new();
                directory.render(&cx, &path, &mut text).unwrap();
                let expected: &[u8] = if online.contains(cpu) { b"1\n" } else { b"0\n" };
                assert_eq!(text, expected, "{name}: {path}");
            } else {
                assert!(online.contains(cpu), "{name}: {path}");
            }
        }
    }
}

#[test]
fn memory_and_swap_are_the_same_everywhere() {
    for dir in common::all() {
        let fixture = Fixture::open(&dir);
        let cx = fixture.context();
        let name = dir.display();
        let meminfo = view(&fixture, "/proc/meminfo");
        let swaps = view(&fixture, "/proc/swaps");
        let row = swaps.lines().nth(1);
        let field = |index: usize| {
            row.map_or(0, |row| {
                row.split_whitespace().nth(index).unwrap().parse().unwrap()
            })
        };
        assert_eq!(field(2), kib(&meminfo, "SwapTotal"), "{name}");
        assert_eq!(field(2) - field(3), kib(&meminfo, "SwapFree"), "{name}");

        let node = DIRECTORIES[1];
        if !node.exists(&cx) {
            continue;
        }
        let mut sum = 0;
        for child in node
            .names(&cx, "")
            .unwrap()
            .iter()
            .filter(|name| name.starts_with("node"))
        {
            let mut text = Vec::new();
            node.render(&cx, &format!("{child}/meminfo"), &mut text)
                .unwrap();
            sum += kib(&String::from_utf8(text).unwrap(), "MemTotal");
        }
        // Shares are rounded down.
        let total = kib(&meminfo, "MemTotal");
        assert!(sum <= total && total - sum <= 1, "{name}: {sum} {total}");
    }
}

#[test]
fn idle_time_is_the_same_in_uptime_and_stat() {
    for dir in common::all() {
        let fixture = Fixture::open(&dir);
        let uptime = view(&fixture, "/proc/uptime");
        let stat = view(&fixture, "/proc/stat");
        let idle = stat.split_whitespace().nth(4).unwrap();
        let shown = uptime.split_whitespace().nth(1).unwrap().replace('.', "");
        assert_eq!(
            shown.trim_start_matches('0'),
            idle.trim_start_matches('0'),
            "{}",
            dir.display()
        );
    }
}

#[test]
fn huge_pages_are_the_same_everywhere() {
    let directory = DIRECTORIES
        .iter()
        .find(|directory| directory.facts().path == "/sys/kernel/mm/hugepages")
        .unwrap();
    let mut compared = 0;
    for dir in common::all() {
        let fixture = Fixture::open(&dir);
        let cx = fixture.context();
        let meminfo = view(&fixture, "/proc/meminfo");
        let number = |key: &str| {
            let line = meminfo.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        };
        let Some(size) = number("Hugepagesize:").filter(|_| directory.exists(&cx)) else {
            continue;
        };
        for (file, key) in [
            ("nr_hugepages", "HugePages_Total:"),
            ("free_hugepages", "HugePages_Free:"),
        ] {
            let mut text = Vec::new();
            let path = format!("hugepages-{size}kB/{file}");
            directory.render(&cx, &path, &mut text).unwrap();
            let expected = format!("{}\n", number(key).unwrap());
            assert_eq!(
                String::from_utf8(text).unwrap(),
                expected,
                "{}",
                dir.display()
            );
            compared += 1;
        }
    }
    assert!(compared > 10);
}
