//! The processes of the host that have an id of a range: as a user or group of theirs, or in the map of their user
//! namespace.
//!
//! All ids of all processes are read before the first range is given, when a range may be free, and when a range that is to
//! be given may have one of them. Other managers begin to use ids at any time (systemd-nspawn, LXD, podman). So before each
//! range a [`Watch`] has a quick look: at the owner of each process, and at the map of each user namespace once.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, statat};

use super::ranges::{IDS, union};
use crate::container::procfs::{Namespace, Proc, parse_id_map};
use eci_fs_protocol::error::Result;

/// The ids of one process, from the first one to the one after the last.
type Span = (u64, u64);

/// The longest time of a quick look, for hosts with a hundred thousand processes.
const LONGEST: Duration = Duration::from_secs(1);

/// The number of processes after which the clock is read.
const BETWEEN: usize = 64;

/// The ids of all processes of the host, at one time.
#[derive(Debug, Default)]
pub(super) struct InUse {
    processes: Vec<(i32, Vec<Span>)>,
}

impl InUse {
    /// Reads the ids of all processes. One that ends meanwhile has none.
    ///
    /// # Errors
    /// When /proc cannot be listed.
    pub(super) fn read(proc: &Proc) -> Result<Self> {
        let mut processes = Vec::new();
        let mut namespaces = HashSet::new();
        for pid in proc.pids()? {
            let status = proc.read(&format!("{pid}/status")).unwrap_or_default();
            if has_ended(&status) {
                continue;
            }
            let mut spans = ids_of(&status);
            // Most processes are in the host's own user namespace, whose map has all ids and is left out. One call tells
            // that, and eight calls read both maps. The start of the next container may wait for this.
            let namespace = proc.namespace(pid, "user");
            // The maps of a namespace are those of the first process in it: a container chooses how many it has.
            let maps: &[&str] = match &namespace {
                Ok(namespace) if namespace.is_initial_user() || namespaces.contains(namespace) => {
                    &[]
                }
                _ => &["uid_map", "gid_map"],
            };
            for file in maps {
                let map = proc.read(&format!("{pid}/{file}")).unwrap_or_default();
                // Of one that has ended just now another process says it.
                if let (false, Ok(namespace)) = (map.is_empty(), &namespace) {
                    namespaces.insert(*namespace);
                }
                spans.extend(spans_of(&map));
            }
            if !spans.is_empty() {
                processes.push((pid, spans));
            }
        }
        Ok(Self { processes })
    }

    /// Returns a process that has an id of the range.
    pub(super) fn user_of(&self, first_id: u32) -> Option<i32> {
        let (first, end) = (u64::from(first_id), u64::from(first_id) + u64::from(IDS));
        let has = |spans: &[Span]| spans.iter().any(|span| span.0 < end && first < span.1);
        let mut all = self.processes.iter();
        all.find(|(_, spans)| has(spans)).map(|(pid, _)| *pid)
    }

    /// Returns the ids that the processes have together.
    fn spans(self) -> Vec<Span> {
        let all = self.processes.into_iter().flat_map(|(_, spans)| spans);
        union(all.collect())
    }
}

/// The ids that processes had at the last look. It takes little time to keep up to date. It does not say which process has
/// an id, nor whether one still has it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// All ids of all processes at the first look; none before it. A quick look does not see all kinds of ids.
    first: Option<Vec<Span>>,
    /// The ids that the last look has seen. Here and in the other lists they are sorted, and no two of them touch.
    spans: Vec<Span>,
    /// Those of a look that has not reached the end of the list of processes.
    found: Vec<Span>,
    /// The user namespaces of that look.
    namespaces: HashSet<Namespace>,
    /// The process at which that look goes on.
    next: i32,
}

impl Watch {
    /// Reads all ids of all processes, if that was not done before.
    ///
    /// # Errors
    /// As [`InUse::read`].
    pub(super) fn begin(&mut self, proc: &Proc) -> Result<()> {
        if self.first.is_none() {
            self.first = Some(InUse::read(proc)?.spans());
        }
        Ok(())
    }

    /// Looks at the processes of the host. After [`LONGEST`] it stops, and the next look goes on with the others.
    ///
    /// # Errors
    /// When /proc cannot be listed.
    pub(super) fn look(&mut self, proc: &Proc) -> Result<()> {
        self.begin(proc)?;
        let end = Instant::now() + LONGEST;
        let mut pids = proc.pids()?;
        pids.sort_unstable();
        let from = pids.partition_point(|pid| *pid < self.next);
        for (number, pid) in pids[from..].iter().enumerate() {
            if number % BETWEEN == BETWEEN - 1 && Instant::now() >= end {
                self.next = *pid;
                self.found = union(std::mem::take(&mut self.found));
                // Until the list has been seen to its end, what was known before may be true still.
                self.spans.extend(&self.found);
                self.spans = union(std::mem::take(&mut self.spans));
                return Ok(());
            }
            self.look_at(proc, *pid);
        }
        self.spans = union(std::mem::take(&mut self.found));
        self.namespaces.clear();
        self.next = 0;
        Ok(())
    }

    /// Looks at one process. One that ends meanwhile has no ids.
    fn look_at(&mut self, proc: &Proc, pid: i32) {
        let Ok(stat) = statat(proc.dir(), pid.to_string(), AtFlags::empty()) else {
            return;
        };
        let owner = [stat.st_uid, stat.st_gid].map(u64::from);
        self.found.extend(
            owner
                .into_iter()
                .filter(|id| *id != 0)
                .map(|id| (id, id + 1)),
        );
        let Ok(namespace) = proc.namespace(pid, "user") else {
            return;
        };
        if namespace.is_initial_user() || self.namespaces.contains(&namespace) {
            return;
        }
        if has_ended(&proc.read(&format!("{pid}/status")).unwrap_or_default()) {
            return;
        }
        for file in ["uid_map", "gid_map"] {
            let map = proc.read(&format!("{pid}/{file}")).unwrap_or_default();
            // Of one that has ended just now another process says it.
            if !map.is_empty() {
                self.namespaces.insert(namespace);
            }
            self.found.extend(spans_of(&map));
        }
    }

    /// Returns true if a process had an id of the range when it was last looked at.
    pub(super) fn has(&self, first_id: u32) -> bool {
        let (first, end) = (u64::from(first_id), u64::from(first_id) + u64::from(IDS));
        let all = self.first.iter().chain([&self.spans]);
        all.into_iter().any(|spans| {
            let after = spans.partition_point(|span| span.1 <= first);
            spans.get(after).is_some_and(|span| span.0 < end)
        })
    }
}

/// Returns true if `/proc/<pid>/status` is that of a process whose threads have all ended, and that its parent has not
/// waited for. It can use no id any more, and a parent may leave it so for ever. A first thread that has ended before the
/// others is in the same state.
fn has_ended(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let zombie = field("State:").is_some_and(|state| state.trim_start().starts_with(['Z', 'X']));
    zombie && field("Threads:").is_none_or(|count| count.trim() == "1")
}

/// Returns the users and groups of `/proc/<pid>/status` but root.
fn ids_of(status: &str) -> Vec<Span> {
    let fields = ["Uid:", "Gid:", "Groups:"];
    let lines = status.lines();
    let words = lines.filter_map(|line| fields.iter().find_map(|field| line.strip_prefix(field)));
    let ids = words.flat_map(str::split_ascii_whitespace);
    let mut ids: Vec<u64> = ids
        .filter_map(|id| id.parse().ok())
        .filter(|id| *id != 0)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(|id| (id, id + 1)).collect()
}

/// Returns the ids of the host in the map of a user namespace. The map of the host's own has all ids, and is left out.
fn spans_of(map: &str) -> Vec<Span> {
    let rows = parse_id_map(map).into_iter();
    let others = rows.filter(|row| *row != (0, 0, u32::MAX));
    others
        .map(|(_, first, count)| (u64::from(first), u64::from(first) + u64::from(count)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_ended_when_all_of_its_threads_have() {
        let status = |state: &str, threads: u32| {
            has_ended(&format!(
                "Name:\tState:\tR\nState:\t{state}\nUid:\t5\t5\t5\t5\nThreads:\t{threads}\n"
            ))
        };
        assert!(status("Z (zombie)", 1));
        assert!(!status("Z (zombie)", 2));
        assert!(!status("S (sleeping)", 1));
        assert!(!has_ended(""));
    }

    #[test]
    fn users_groups_and_maps_of_a_process_are_its_ids() {
        let status = "Name:\tx\nUid:\t0\t5\t5\t524288\nGid:\t0\t0\t0\t0\nGroups:\t7 600000 \n";
        let mut spans = ids_of(status);
        assert_eq!(
            spans,
            [(5, 6), (7, 8), (524_288, 524_289), (600_000, 600_001)]
        );
        assert_eq!(spans_of("         0          0 4294967295\n"), []);
        spans.extend(spans_of("0 1000000 65536\n65536 3000000 1\n"));
        let in_use = InUse {
            processes: vec![(7, spans)],
        };
        for first in [524_288, 458_753, 589_824, 1_000_000, 1_065_535, 2_990_000] {
            assert_eq!(in_use.user_of(first), Some(7), "{first}");
        }
        for first in [458_752, 655_360, 1_065_536, 3_000_001] {
            assert_eq!(in_use.user_of(first), None, "{first}");
        }
    }

    #[test]
    fn a_look_says_which_ranges_have_ids_of_processes() {
        let watch = Watch {
            first: Some(vec![(524_288, 524_289)]),
            spans: vec![(5, 6), (1_000_000, 1_065_536)],
            ..Watch::default()
        };
        for first in [524_288, 458_753, 934_465, 1_065_535] {
            assert!(watch.has(first), "{first}");
        }
        for first in [6, 458_752, 524_289, 934_464, 1_065_536] {
            assert!(!watch.has(first), "{first}");
        }
    }

    #[test]
    fn a_look_that_was_broken_off_goes_on_and_forgets_nothing_meanwhile() {
        let proc = Proc::open().unwrap();
        let known = (3_000_000_000, 3_000_000_001);
        let mut watch = Watch {
            spans: vec![known],
            found: vec![(3_000_000_005, 3_000_000_006)],
            next: i32::MAX,
            first: Some(Vec::new()),
            ..Watch::default()
        };
        // Nothing is left of the look before: what it has found is what there is.
        watch.look(&proc).unwrap();
        assert_eq!(
            (watch.spans.as_slice(), watch.next),
            (&[(3_000_000_005, 3_000_000_006)][..], 0)
        );
        // The next one begins anew.
        watch.look(&proc).unwrap();
        assert!(!watch.spans.contains(&known), "{:?}", watch.spans);
    }

    #[test]
    fn a_process_of_the_host_has_no_ids_but_its_own() {
        let proc = Proc::open().unwrap();
        let in_use = InUse::read(&proc).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let row = in_use.processes.iter().find(|(pid, _)| *pid == own);
        assert!(row.is_none_or(|(_, spans)| spans.iter().all(|span| span.1 == span.0 + 1)));
    }
}
