//! The views that have a block, a row or a column for each visible CPU, other than /proc/stat.

use support::Limits;

use crate::source::{Cpus, file};
use crate::{LIMITS, Live, ONE_CPU};

pub(crate) const VIEWS: &[&str] = &["/proc/cpuinfo", "/proc/interrupts", "/proc/softirqs"];

/// Limits under which V is the first CPU, the second one, and all.
const EACH: [Limits; 3] = [
    LIMITS,
    ONE_CPU,
    Limits {
        memory: None,
        swap: None,
        cpus: None,
        cpuset: None,
    },
];

fn topology(cpu: u64, name: &str) -> String {
    file(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{name}"))
}

/// The text of a line of a block of cpuinfo.
fn field<'a>(block: &'a str, key: &str) -> Option<&'a str> {
    let mut fields = block.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(name, _)| name.trim() == key);
    found.map(|(_, value)| value.trim())
}

/// The frequency that does not move.
fn nominal(block: &str, cpu: u64) -> f64 {
    let base = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/base_frequency");
    if let Ok(khz) = std::fs::read_to_string(base) {
        return khz.trim().parse::<f64>().unwrap() / 1e3;
    }
    let name = field(block, "model name").unwrap_or_default();
    if let Some(ghz) = name
        .rsplit(['@', ' '])
        .next()
        .and_then(|n| n.strip_suffix("GHz"))
    {
        return ghz.parse::<f64>().unwrap() * 1e3;
    }
    field(block, "bogomips").unwrap().parse::<f64>().unwrap() / 2.0
}

#[test]
fn privileged_cpuinfo_has_the_blocks_of_the_visible_cpus() {
    for limits in EACH {
        let Some(live) = Live::start(&limits) else {
            return;
        };
        let cpus = Cpus::read(&live.cgroup);
        let (view, kernel) = (live.seen("/proc/cpuinfo"), file("/proc/cpuinfo"));
        let blocks = |text: &str| -> Vec<String> {
            let blocks = text.trim_end().split("\n\n");
            blocks.map(str::to_owned).collect()
        };
        let (blocks, machine) = (blocks(&view), blocks(&kernel));
        assert_eq!(blocks.len(), cpus.visible.len(), "{limits:?}");
        for (block, id) in blocks.iter().zip(&cpus.visible) {
            let theirs = |block: &&String| field(block, "processor") == Some(&id.to_string());
            let theirs = machine.iter().find(theirs).unwrap();
            let package = topology(*id, "physical_package_id");
            let siblings = cpus.visible.iter();
            let siblings: Vec<u64> = siblings
                .copied()
                .filter(|id| topology(*id, "physical_package_id") == package)
                .collect();
            let mut cores: Vec<String> =
                siblings.iter().map(|id| topology(*id, "core_id")).collect();
            cores.sort();
            cores.dedup();
            assert_eq!(block.lines().count(), theirs.lines().count());
            for (ours, theirs_line) in block.lines().zip(theirs.lines()) {
                let (key, value) = ours.split_once(':').unwrap_or((ours, ""));
                let number = value.trim();
                match key.trim() {
                    "siblings" => assert_eq!(number, siblings.len().to_string()),
                    "cpu cores" => assert_eq!(number, cores.len().to_string()),
                    "cpu MHz" => {
                        let (got, expected) =
                            (number.parse::<f64>().unwrap(), nominal(theirs, *id));
                        assert!((got - expected).abs() < 0.01, "{got} {expected}");
                    }
                    _ => assert_eq!(ours, theirs_line),
                }
            }
        }
        assert_eq!(view, live.seen("/proc/cpuinfo"), "a frequency moves");
    }
}

/// Columns of V with nothing in them, in the rows of the kernel.
#[track_caller]
fn columns(live: &Live, path: &str) {
    let (cpus, view, kernel) = (Cpus::read(&live.cgroup), live.seen(path), file(path));
    let mut rows = view.trim_end().lines();
    let header = rows.next().unwrap().split_whitespace();
    let ids: Vec<u64> = header
        .map(|id| id.trim_start_matches("CPU").parse().unwrap())
        .collect();
    assert_eq!(ids, cpus.visible, "{path}");
    let machine = kernel.lines().next().unwrap().split_whitespace().count();
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows.len(), kernel.lines().count() - 1, "{path}");
    for (ours, theirs) in rows.iter().zip(kernel.lines().skip(1)) {
        let (label, rest) = ours.split_once(':').unwrap();
        let (their_label, their_rest) = theirs.split_once(':').unwrap();
        assert_eq!(label.trim(), their_label.trim(), "{path}");
        let words: Vec<&str> = rest.split_whitespace().collect();
        let theirs: Vec<&str> = their_rest.split_whitespace().collect();
        // Counts for the whole machine have no CPU: ERR and MIS.
        let per_cpu = |words: &[&str]| {
            words
                .iter()
                .take_while(|w| w.parse::<u64>().is_ok())
                .count()
        };
        let (counts, their_counts) = (per_cpu(&words), per_cpu(&theirs).min(machine));
        let expected = if their_counts == machine {
            ids.len()
        } else {
            their_counts
        };
        assert!(counts >= expected, "{path}: {ours:?}");
        assert!(
            words[..expected].iter().all(|count| *count == "0"),
            "{path}: {ours:?}"
        );
        assert_eq!(
            words[expected..],
            theirs[their_counts..],
            "{path}: what is at the end"
        );
    }
}

#[test]
fn privileged_interrupts_and_softirqs_have_columns_of_the_visible_cpus_and_no_counts() {
    for limits in EACH {
        let Some(live) = Live::start(&limits) else {
            return;
        };
        columns(&live, "/proc/interrupts");
        columns(&live, "/proc/softirqs");
    }
}
