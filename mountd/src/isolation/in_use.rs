//! The processes of the host that have an id of a range: as a user or group of theirs, or in the map of their user
//! namespace.

use super::ranges::IDS;
use crate::container::procfs::{Proc, parse_id_map};
use eci_fs_protocol::error::Result;

/// The ids of one process, from the first one to the one after the last.
type Span = (u64, u64);

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
        for pid in proc.pids()? {
            let status = proc.read(&format!("{pid}/status")).unwrap_or_default();
            let mut spans = ids_of(&status);
            // Most processes are in the host's own, whose map has all ids and is left out. One call tells that, and eight read
            // both maps. The start of the next container may wait for this.
            let namespace = proc.namespace(pid, "user");
            let maps: &[&str] = match namespace {
                Ok(namespace) if namespace.is_initial_user() => &[],
                _ => &["uid_map", "gid_map"],
            };
            for file in maps {
                let map = proc.read(&format!("{pid}/{file}")).unwrap_or_default();
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
    fn a_process_of_the_host_has_no_ids_but_its_own() {
        let proc = Proc::open().unwrap();
        let in_use = InUse::read(&proc).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let row = in_use.processes.iter().find(|(pid, _)| *pid == own);
        assert!(row.is_none_or(|(_, spans)| spans.iter().all(|span| span.1 == span.0 + 1)));
    }
}
