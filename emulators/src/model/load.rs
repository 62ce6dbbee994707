//! Load averages in the kernel's fixed point (include/linux/sched/loadavg.h, kernel/sched/loadavg.c). The kernel
//! takes a step every 5 s, and the caller of [`next_load`] has to do the same.

use std::time::Duration;

/// The number 1 with FSHIFT = 11 fractional bits.
pub const FIXED_1: u64 = 1 << 11;
/// exp(-5 s / 1 min), exp(-5 s / 5 min), exp(-5 s / 15 min) in fixed point.
const EXP: [u64; 3] = [1884, 2014, 2037];

/// The seconds over which each average is taken.
const TAU_SEC: [f64; 3] = [60.0, 300.0, 900.0];

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

/// Returns the averages that `active` threads have made since the container started, if they were as many all the time:
/// active * (1 - exp(-age / tau)). They are 0 at its start, as on a host that boots.
pub fn initial_load(active: u64, age: Duration) -> [u64; 3] {
    let active = active.saturating_mul(FIXED_1);
    TAU_SEC.map(|tau| {
        let share = -(-age.as_secs_f64() / tau).exp_m1();
        // The conversion rounds down, and saturates.
        ((active as f64 * share) as u64).min(active)
    })
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

    #[test]
    fn a_burst_in_a_young_container_is_no_load_and_in_an_old_one_it_is() {
        let shown = |age| initial_load(30, Duration::from_millis(age)).map(hundredths);
        assert_eq!(shown(0), [(0, 0); 3]);
        assert_eq!(shown(800), [(0, 40), (0, 8), (0, 3)]);
        // 1 - 1/e of it when a container is as old as the average is long.
        assert_eq!(shown(60_000)[0], (18, 96));
        assert_eq!(shown(300_000)[1], (18, 96));
        assert_eq!(shown(900_000)[2], (18, 96));
        assert_eq!(shown(1 << 40), [(30, 0); 3]);
    }

    #[test]
    fn the_averages_begin_where_the_kernels_steps_would_have_led() {
        for active in [1, 3, 30, 1000] {
            let mut stepped = [0; 3];
            for step in 1..1000u64 {
                stepped = next_load(stepped, active);
                let begun = initial_load(active, Duration::from_secs(5 * step));
                for (stepped, begun) in stepped.iter().zip(begun) {
                    // The kernel's exponents have 11 bits: its 15 minutes are 928 seconds.
                    let most = active * FIXED_1 * 15 / 1000 + FIXED_1 / 20;
                    assert!(stepped.abs_diff(begun) <= most, "{active} {step}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_first_averages_grow_with_age_up_to_the_count(
            active: u64,
            younger: u32,
            by: u32,
        ) {
            let age = |ms: u64| initial_load(active, Duration::from_millis(ms));
            let (younger, older) = (age(younger.into()), age(u64::from(younger) + u64::from(by)));
            for (younger, older) in younger.iter().zip(older) {
                prop_assert!(*younger <= older);
                prop_assert!(older <= active.saturating_mul(FIXED_1));
            }
            prop_assert!(older[0] >= older[1] && older[1] >= older[2]);
        }

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
