//! Times in an HDR histogram, which is fast to record and exact enough to compare.

use hdrhistogram::Histogram as Buckets;

/// The number of significant decimal digits: a bucket is at most a thousandth of its value wide.
const DIGITS: u8 = 3;

/// Recorded times, in nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Histogram(Buckets<u64>);

impl Histogram {
    pub(super) fn new() -> Self {
        match Buckets::new_with_bounds(1, u64::MAX, DIGITS) {
            Ok(buckets) => Self(buckets),
            Err(error) => unreachable!("the bounds are constants: {error}"),
        }
    }

    pub(super) fn add(&mut self, nsec: u64) {
        self.0.saturating_record(nsec);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so all times of the other fit.
        self.0 += &other.0;
    }

    pub(super) fn total(&self) -> u64 {
        self.0.len()
    }

    /// Returns the quantile of the times in nanoseconds, as the middle of its bucket. Returns 0 when there are no
    /// times.
    pub(super) fn quantile(&self, share: f64) -> u64 {
        self.0.median_equivalent(self.0.value_at_quantile(share))
    }
}

/// Returns the median. Returns 0 when there are no numbers.
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
                let mut times = Histogram::new();
                times.add(nsec);
                let shown = times.quantile(1.0);
                assert!(
                    shown.abs_diff(nsec) <= nsec / 1000,
                    "{nsec} is shown as {shown}"
                );
            }
        }
        assert_eq!(Histogram::new().quantile(0.5), 0);
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
