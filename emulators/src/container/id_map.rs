//! The map of the users or groups of a user namespace (user_namespaces(7)).

/// The groups of a user namespace, and those that they are on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMap(Vec<IdRange>);

/// A range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the namespace.
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// The number of ids.
    pub count: u32,
}

/// The id that the kernel shows for one that is not mapped (/proc/sys/kernel/overflowgid).
pub(crate) const OVERFLOW: u32 = 65534;

impl IdRange {
    /// Returns the last id in the namespace.
    fn last(&self) -> Option<u32> {
        self.inside.checked_add(self.count.checked_sub(1)?)
    }
}

impl IdMap {
    /// Returns the map with these ranges, which do not overlap.
    pub fn new(ranges: Vec<IdRange>) -> IdMap {
        IdMap(ranges)
    }

    /// Returns whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the lowest id of the namespace that is at least `id`.
    pub(crate) fn lowest_from(&self, id: u32) -> Option<u32> {
        let ranges = self.0.iter();
        let from = |range: &IdRange| (range.last()? >= id).then_some(range.inside.max(id));
        ranges.filter_map(from).min()
    }

    /// Returns the highest id of the namespace that is at most `id`.
    pub(crate) fn highest_to(&self, id: u32) -> Option<u32> {
        let ranges = self.0.iter();
        let to = |range: &IdRange| (range.inside <= id).then_some(range.last()?.min(id));
        ranges.filter_map(to).max()
    }

    /// Returns what an id of the namespace is on the host.
    pub(crate) fn on_host(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = id.checked_sub(range.inside)?;
            (offset < range.count).then_some(range.outside.checked_add(offset)?)
        })
    }

    /// Returns what an id of the host is in the namespace (from_kgid_munged).
    pub(crate) fn in_namespace(&self, id: u32) -> u32 {
        let found = self.0.iter().find_map(|range| {
            let offset = id.checked_sub(range.outside)?;
            (offset < range.count).then_some(range.inside.checked_add(offset)?)
        });
        found.unwrap_or(OVERFLOW)
    }
}
