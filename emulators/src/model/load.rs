//! Load averages in the kernel's fixed point (include/linux/sched/loadavg.h, kernel/sched/loadavg.c). The kernel
//! takes a step every 5 s, and the caller of [`next_load`] has to do the same.

/// The number 1 with FSHIFT = 11 fractional bits.
pub const FIXED_1: u64 = 1 << 11;
/// exp(-5 s / 1 min), exp(-5 s / 5 min), exp(-5 s / 15 min) in fixed point.
const EXP: [u64; 3] = [1884, 2014, 2037];

/// Returns the averages after one more step of 5 s, with `active` threads (calc_load).
pub fn next_load(avenrun: [u64; 3], active: u64) -> [u64; 3] {
    let active = active.saturating_mul(FIXED_1);
    let mut next = avenrun;
    for (load, exp) in next.iter_mut().zip(EXP) {
        let mut sum = load
            .saturating_mul(exp)
            .saturating_add(active.saturating_mul(FIXED_1 - exp));
        if active >= *load {
            sum = sum.saturating_add(FIXED_1 - 1);
        }
        *load = sum / FIXED_1;
    }
    next
}

/// Returns the averages that a container begins with: the present number of its active threads.
pub fn initial_load(active: u64) -> [u64; 3] {
    [active.saturating_mul(FIXED_1); 3]
}

/// Returns an average as the kernel prints it: whole and hundredths, rounded (loadavg_proc_show).
pub(crate) fn hundredths(load: u64) -> (u64, u64) {
    let load = load.saturating_add(FIXED_1 / 200);
    (load / FIXED_1, (load % FIXED_1) * 100 / FIXED_1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_busy_thread_moves_the_average_as_in_the_kernel() {
        // 0.08 after 5 s and 0.15 after 10 s: what uptime(1) shows on an idle Linux machine
        // when a busy loop has just started.
        let first = next_load([0; 3], 1);
        assert_eq!(hundredths(first[0]), (0, 8));
        let second = next_load(first, 1);
        assert_eq!(hundredths(second[0]), (0, 15));
        let mut load = second;
        for _ in 0..200 {
            load = next_load(load, 1);
        }
        assert_eq!(hundredths(load[0]), (1, 0));
    }

    proptest! {
        #[test]
        fn an_average_stays_between_what_it_was_and_what_it_becomes(
            load in 0u64..1 << 40,
            active in 0u64..1 << 30,
        ) {
            let [next, ..] = next_load([load; 3], active);
            let target = active * FIXED_1;
            prop_assert!(next >= load.min(target).saturating_sub(1));
            prop_assert!(next <= load.max(target));
        }

        #[test]
        fn nothing_overflows(load: [u64; 3], active: u64) {
            for load in next_load(load, active) {
                prop_assert!(hundredths(load).1 < 100);
            }
        }
    }
}
