//! The views that have a block or a column for each CPU, other than /proc/stat, and the containers that see more CPUs than
//! their quota amounts to.

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

/// The rows and columns of the kernel with nothing in them. With `marked`, the first row has a 1 for each CPU of V.
#[track_caller]
fn columns(live: &Live, path: &str, marked: bool) {
    let (cpus, view, kernel) = (Cpus::read(&live.cgroup), live.seen(path), file(path));
    let mut rows = view.trim_end().lines();
    let header = rows.next().unwrap();
    assert_eq!(Some(header), kernel.lines().next(), "{path}");
    let ids: Vec<u64> = header
        .split_whitespace()
        .map(|id| id.trim_start_matches("CPU").parse().unwrap())
        .collect();
    let machine = ids.len();
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows.len(), kernel.lines().count() - 1, "{path}");
    for (index, (ours, theirs)) in rows.iter().zip(kernel.lines().skip(1)).enumerate() {
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
        let counts = per_cpu(&theirs).min(machine);
        assert!(per_cpu(&words) >= counts, "{path}: {ours:?}");
        for (count, id) in words[..counts].iter().zip(&ids) {
            let mark = marked && index == 0 && cpus.visible.contains(id);
            assert_eq!(*count, u8::from(mark).to_string(), "{path}: {ours:?}");
        }
        assert_eq!(
            words[counts..],
            theirs[counts..],
            "{path}: what is at the end"
        );
    }
}

#[test]
fn privileged_interrupts_and_softirqs_have_the_columns_of_the_kernel_and_no_counts() {
    for limits in EACH {
        let Some(live) = Live::start(&limits) else {
            return;
        };
        columns(&live, "/proc/interrupts", true);
        columns(&live, "/proc/softirqs", false);
    }
}

/// The CPUs that a container sees, of an `attach` with a quota of half a CPU.
fn with_quota(options: &[&str], measuring: bool, user: bool, limits: &Limits) -> Option<Sight> {
    let scene = crate::scene()?;
    let daemon = scene.daemon(options);
    let builder = scene.container().limits(*limits);
    let container = builder.measuring(measuring).user_namespace(user).start();
    scene.attach(&container);
    Some(Sight {
        container,
        daemon,
        scene,
    })
}

/// An attached container.
struct Sight {
    container: support::Container,
    daemon: support::Daemon,
    scene: support::Scene,
}

impl Sight {
    /// The numbers of CPUs in all files that tell one.
    #[track_caller]
    fn cpus(&mut self) -> Vec<u64> {
        let mut read = |path: &str| self.container.read(path);
        let online = support::cpu_list(&read("/sys/devices/system/cpu/online"));
        let stat = read("/proc/stat");
        let rows = stat.lines().filter_map(|line| line.strip_prefix("cpu"));
        let rows = rows.filter_map(|row| row.split(' ').next()?.parse().ok());
        assert_eq!(rows.collect::<Vec<u64>>(), online);
        assert_eq!(support::count_cpus(&read("/proc/cpuinfo")), online.len());
        online
    }
}

fn half_of(cpuset: Option<&'static str>) -> Limits {
    Limits { cpuset, ..LIMITS }
}

#[test]
fn privileged_a_container_that_can_measure_cpus_sees_all_of_its_cpuset_whatever_its_quota() {
    let all = support::cpu_list(&file("/sys/devices/system/cpu/online"));
    for (measuring, user, cpuset, expected) in [
        (false, false, None, &all[..1]),
        (true, false, None, &all[..]),
        (true, false, Some("1"), &[1]),
        // Capabilities in a user namespace of its own measure nothing.
        (true, true, None, &all[..1]),
    ] {
        let Some(mut sight) = with_quota(&[], measuring, user, &half_of(cpuset)) else {
            return;
        };
        assert_eq!(sight.cpus(), expected, "{measuring} {user} {cpuset:?}");
    }
}

#[test]
fn privileged_the_setting_of_the_host_says_what_a_quota_does_to_all_containers() {
    let all = support::cpu_list(&file("/sys/devices/system/cpu/online"));
    for (effect, measuring, expected) in [("online", true, &all[..1]), ("ignore", false, &all[..])]
    {
        let options = ["--cpu-quota", effect];
        let Some(mut sight) = with_quota(&options, measuring, false, &half_of(None)) else {
            return;
        };
        assert_eq!(sight.cpus(), expected, "{effect} {measuring}");
    }
}

#[test]
fn privileged_a_container_that_gives_the_capabilities_up_sees_its_quota() {
    let Some(mut sight) = with_quota(&[], true, false, &half_of(None)) else {
        return;
    };
    let all = support::cpu_list(&file("/sys/devices/system/cpu/online"));
    assert_eq!(sight.cpus(), all);
    sight.container.ask(&["stop-measuring"]);
    let online = |sight: &mut Sight| {
        support::cpu_list(&sight.container.read("/sys/devices/system/cpu/online"))
    };
    let begun = std::time::Instant::now();
    while online(&mut sight).len() > 1 {
        assert!(begun.elapsed() < support::PATIENCE, "it still sees all");
    }
    // The views of the rest are as old as static views may be.
    while support::count_cpus(&sight.container.read("/proc/cpuinfo")) > 1 {
        assert!(begun.elapsed() < support::PATIENCE, "it still sees all");
    }
    assert_eq!(sight.cpus(), all[..1]);
}

#[test]
fn privileged_a_new_server_knows_who_can_measure_cpus() {
    let Some(mut sight) = with_quota(&[], true, false, &half_of(None)) else {
        return;
    };
    let all = support::cpu_list(&file("/sys/devices/system/cpu/online"));
    sight.daemon.kill_server();
    sight.daemon.wait_for("the server died");
    sight.scene.list();
    assert_eq!(sight.cpus(), all);
}
