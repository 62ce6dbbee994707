//! A cache of a total of pressure, which the kernel gets wrong if it is read too often.

use std::time::Duration;

use parking_lot::Mutex;

use crate::Error;

/// A total that was read at one moment.
#[derive(Debug, Default)]
pub(crate) struct StallCache {
    /// CLOCK_BOOTTIME at the read, and the total; `None` if the kernel does not tell it.
    last: Mutex<Option<(Duration, Option<u64>)>>,
}

impl StallCache {
    /// Returns the total, which `read` reads if the last read is `age` old at `now`.
    pub(crate) fn total(
        &self,
        now: Duration,
        age: Duration,
        read: impl FnOnce() -> Result<Option<u64>, Error>,
    ) -> Result<Option<u64>, Error> {
        if let Some((at, total)) = *self.last.lock()
            && now.saturating_sub(at) < age
        {
            return Ok(total);
        }
        // Another thread may read it too, to no harm. No lock is held during file I/O.
        let total = read()?;
        *self.last.lock() = Some((now, total));
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_read_again_when_it_is_old() {
        let cache = StallCache::default();
        let at = |ms, total| {
            let age = Duration::from_millis(48);
            let now = Duration::from_millis(ms);
            cache.total(now, age, || Ok(total)).unwrap()
        };
        assert_eq!(at(1000, Some(5)), Some(5));
        assert_eq!(at(1047, Some(6)), Some(5));
        assert_eq!(at(1048, Some(7)), Some(7));
        assert_eq!(at(2000, None), None);
        assert_eq!(at(2001, Some(8)), None);
        cache
            .total(Duration::from_secs(9), Duration::ZERO, || {
                Err(Error::Undeclared { what: "an error" })
            })
            .unwrap_err();
    }
}
