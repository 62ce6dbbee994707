//! Times in buckets whose width is a 64th of their value: cheap to count into, exact enough to compare.

/// Buckets for each power of two.
const STEPS: usize = 64;

/// log2 of [`STEPS`].
const SHIFT: u32 = STEPS.trailing_zeros();

/// Counted times, in nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; STEPS * (65 - SHIFT as usize)],
            total: 0,
        }
    }

    pub(super) fn add(&mut self, nsec: u64) {
        if let Some(count) = self.counts.get_mut(index(nsec)) {
            *count += 1;
            self.total += 1;
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The time that this share of all did not exceed; 0 of none.
    pub(super) fn quantile(&self, share: f64) -> u64 {
        let wanted = ((self.total as f64) * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(index);
            }
        }
        0
    }
}

fn index(nsec: u64) -> usize {
    let exponent = nsec.checked_ilog2().unwrap_or(0).saturating_sub(SHIFT - 1);
    // Values below STEPS have a bucket each; above, the leading bits choose one in the upper half of a group.
    (exponent as usize) * (STEPS / 2) + (nsec >> exponent) as usize
}

fn middle(index: usize) -> u64 {
    let half = STEPS / 2;
    if index < STEPS {
        return index as u64;
    }
    let exponent = (index / half - 1) as u32;
    let leading = (index % half + half) as u64;
    (leading << exponent) + (1 << (exponent - 1))
}

/// The middle of some numbers; 0 of none.
pub(super) fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = numbers.into_iter().collect();
    all.sort_by(f64::total_cmp);
    match all.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => all[odd / 2],
        even => (all[even / 2 - 1] + all[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_no_wider_than_its_value_allows() {
        for shift in 0..63 {
            for nsec in [1u64 << shift, (1u64 << shift) + 1, (1u64 << shift) * 3 / 2] {
                let shown = middle(index(nsec));
                assert!(
                    shown.abs_diff(nsec) <= nsec / 32,
                    "{nsec} is shown as {shown}"
                );
            }
        }
    }

    #[test]
    fn quantiles_are_of_all_that_was_counted() {
        let mut times = Histogram::new();
        let mut more = Histogram::new();
        (0..50).for_each(|_| times.add(10));
        (0..49).for_each(|_| more.add(20));
        more.add(40);
        times.merge(&more);
        assert_eq!((times.total(), times.quantile(0.5)), (100, 10));
        assert_eq!((times.quantile(0.99), times.quantile(1.0)), (20, 40));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }
}
