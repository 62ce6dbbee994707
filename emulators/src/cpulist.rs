//! Sets of CPUs or memory nodes, in the two formats of the kernel: `%*pbl` lists ("0-3,8") and `%*pb` masks
//! ("00000000,0000010f"). See bitmap_list_string and bitmap_string in lib/vsprintf.c.

use smallvec::SmallVec;

use crate::text::{parse_u64, put};

/// A bound that is higher than any kernel's NR_CPUS. A list with higher numbers is malformed.
const MAX_CPUS: u64 = 1 << 16;

/// A set of small numbers.
#[derive(Debug, Clone, Default)]
pub struct CpuSet {
    /// The bits of the set. On hosts with up to 256 CPUs they need no allocation.
    words: SmallVec<[u64; 4]>,
}

impl CpuSet {
    /// Parses a list. An empty list is the empty set. Returns `None` if it is malformed.
    pub fn parse_list(text: &[u8]) -> Option<CpuSet> {
        let text = text.trim_ascii();
        let mut set = CpuSet::default();
        if text.is_empty() {
            return Some(set);
        }
        for range in text.split(|&byte| byte == b',') {
            let mut ends = range.splitn(2, |&byte| byte == b'-');
            let first = parse_u64(ends.next()?)?;
            let last = ends.next().map_or(Some(first), parse_u64)?;
            if last < first || last >= MAX_CPUS {
                return None;
            }
            for cpu in first..=last {
                set.insert(u32::try_from(cpu).ok()?);
            }
        }
        Some(set)
    }

    /// Parses a mask, which consists of hexadecimal words of 32 bits, the highest first. Returns `None` if it is
    /// malformed.
    pub fn parse_mask(text: &[u8]) -> Option<CpuSet> {
        let mut set = CpuSet::default();
        let mut base = 0u32;
        for word in text.trim_ascii().rsplit(|&byte| byte == b',') {
            let word = std::str::from_utf8(word).ok()?;
            if word.is_empty() || word.len() > 8 || u64::from(base) >= MAX_CPUS {
                return None;
            }
            let bits = u32::from_str_radix(word, 16).ok()?;
            for bit in 0..32u32 {
                if bits.checked_shr(bit).is_some_and(|bits| bits & 1 == 1) {
                    set.insert(base.saturating_add(bit));
                }
            }
            base = base.saturating_add(32);
        }
        Some(set)
    }

    /// Adds a number to the set. A number that is higher than any kernel allows is ignored.
    pub fn insert(&mut self, cpu: u32) {
        if u64::from(cpu) >= MAX_CPUS {
            return;
        }
        let word = cpu as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word.saturating_add(1), 0);
        }
        if let Some(word) = self.words.get_mut(word) {
            *word |= 1u64 << (cpu % 64);
        }
    }

    /// Returns whether the set contains the number.
    pub fn contains(&self, cpu: u32) -> bool {
        self.words
            .get(cpu as usize / 64)
            .is_some_and(|word| word >> (cpu % 64) & 1 == 1)
    }

    /// Returns the size of the set.
    pub fn len(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Returns the numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let base = u32::try_from(index).unwrap_or(u32::MAX).saturating_mul(64);
            (0..64u32)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| base.saturating_add(bit))
        })
    }

    /// Returns the numbers that are in both sets.
    pub fn intersection(&self, other: &CpuSet) -> CpuSet {
        let words = self
            .words
            .iter()
            .zip(&other.words)
            .map(|(a, b)| a & b)
            .collect();
        CpuSet { words }
    }

    /// Returns the numbers that are in this set and not in the other one.
    pub fn difference(&self, other: &CpuSet) -> CpuSet {
        self.iter().filter(|cpu| !other.contains(*cpu)).collect()
    }

    /// Returns the `count` lowest numbers.
    pub fn first(&self, count: usize) -> CpuSet {
        self.iter().take(count).collect()
    }

    /// Returns how many numbers are lower than `cpu`. This is the number of `cpu` when the set is renumbered without
    /// holes.
    pub fn rank(&self, cpu: u32) -> u32 {
        let below = self.iter().take_while(|other| *other < cpu).count();
        u32::try_from(below).unwrap_or(u32::MAX)
    }

    /// Appends the list, without a newline.
    pub fn render_list(&self, out: &mut Vec<u8>) {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while cpus.next_if_eq(&last.saturating_add(1)).is_some() {
                last = last.saturating_add(1);
            }
            if first == last {
                put(out, format_args!("{separator}{first}"));
            } else {
                put(out, format_args!("{separator}{first}-{last}"));
            }
            separator = ",";
        }
    }

    /// Appends the mask with as many bits as the kernel's mask `model` has.
    pub fn render_mask_like(&self, model: &[u8], out: &mut Vec<u8>) {
        let model = model.trim_ascii();
        let words = model.split(|&byte| byte == b',').count();
        let first = model
            .split(|&byte| byte == b',')
            .next()
            .map_or(1, <[u8]>::len);
        let bits = words
            .saturating_sub(1)
            .saturating_mul(32)
            .saturating_add(first.saturating_mul(4));
        self.render_mask(
            u32::try_from(bits).unwrap_or(u32::MAX).min(MAX_CPUS as u32),
            out,
        );
    }

    /// Appends the mask with `width` bits (the kernel's nr_cpu_ids), without a newline. The first word has only the
    /// digits that the width needs.
    pub fn render_mask(&self, width: u32, out: &mut Vec<u8>) {
        let words = width.div_ceil(32).max(1);
        for index in (0..words).rev() {
            let half = self.words.get(index as usize / 2).copied().unwrap_or(0);
            let bits = if index % 2 == 0 {
                half & 0xffff_ffff
            } else {
                half >> 32
            };
            let digits = match width % 32 {
                rest if rest != 0 && index == words.saturating_sub(1) => rest.div_ceil(4) as usize,
                _ => 8,
            };
            put(out, format_args!("{bits:0digits$x}"));
            if index != 0 {
                out.push(b',');
            }
        }
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> CpuSet {
        let mut set = CpuSet::default();
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

impl PartialEq for CpuSet {
    fn eq(&self, other: &CpuSet) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for CpuSet {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(set: &CpuSet) -> String {
        let mut out = Vec::new();
        set.render_list(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn mask(set: &CpuSet, width: u32) -> String {
        let mut out = Vec::new();
        set.render_mask(width, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lists_with_holes_are_read_and_written() {
        for text in ["", "0", "0-1", "2-3,8,10-63,65", "0,2,4"] {
            assert_eq!(list(&CpuSet::parse_list(text.as_bytes()).unwrap()), text);
        }
        for text in [
            "a",
            "3-1",
            "1-",
            "-1",
            "0,,1",
            "0-4294967295",
            "99999999999999999999",
        ] {
            assert_eq!(CpuSet::parse_list(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn masks_are_as_wide_as_the_kernels() {
        let set = CpuSet::parse_list(b"0-1").unwrap();
        assert_eq!(mask(&set, 2), "3");
        assert_eq!(mask(&set, 8), "03");
        assert_eq!(mask(&set, 32), "00000003");
        assert_eq!(mask(&set, 48), "0000,00000003");
        let set = CpuSet::parse_list(b"32,63").unwrap();
        assert_eq!(mask(&set, 64), "80000001,00000000");
        assert_eq!(CpuSet::parse_mask(b"80000001,00000000\n"), Some(set));
        let set = CpuSet::parse_list(b"0-1").unwrap();
        for model in ["3", "ff", "00000003", "0000,00000003", "00000000,00000003"] {
            let mut out = Vec::new();
            set.render_mask_like(model.as_bytes(), &mut out);
            assert_eq!(out.len(), model.len());
        }
    }

    #[test]
    fn the_rank_is_the_number_without_holes() {
        let set = CpuSet::parse_list(b"2,5,7").unwrap();
        assert_eq!(
            set.iter().map(|cpu| set.rank(cpu)).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(list(&set.first(2)), "2,5");
    }

    proptest! {
        #[test]
        fn sets_are_read_back(cpus in proptest::collection::btree_set(0u32..512, 0..64)) {
            let set: CpuSet = cpus.iter().copied().collect();
            prop_assert_eq!(set.len(), cpus.len());
            prop_assert_eq!(CpuSet::parse_list(list(&set).as_bytes()), Some(set.clone()));
            prop_assert_eq!(CpuSet::parse_mask(mask(&set, 512).as_bytes()), Some(set.clone()));
            prop_assert!(set.iter().eq(cpus.iter().copied()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = CpuSet::parse_list(&bytes);
            let _ = CpuSet::parse_mask(&bytes);
        }
    }
}
