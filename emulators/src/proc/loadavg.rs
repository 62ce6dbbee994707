//! /proc/loadavg: the load averages of the container's own threads.
//!
//! Format: loadavg_proc_show, fs/proc/loadavg.c.
//! Virtual: all fields; the last pid is the highest that its threads have in its pid namespace.
//! Passed through: nothing.
//! Invented: the averages of the time before the first read: as if as many threads had been active then.

use crate::model::load::hundredths;
use crate::text::put;
use crate::{Bound, Context, Error, Facts, Load, Needs, View};

/// /proc/loadavg.
pub const VIEW: View = View::new(21, "/proc/loadavg", render_view)
    .sources(
        "tasks of the cgroup and those below it; /proc/<tid>/status",
        "cgroup.threads of the cgroup and those below it; /proc/<tid>/status",
    )
    .invented("the averages of the time before the first read, from the count of threads then")
    .needs(Needs::LOAD);

/// The highest number of digits of a count of threads and of a load average. PID_MAX_LIMIT is 2^22.
const PID_DIGITS: usize = 7;
const BOUND: usize = 3 * (PID_DIGITS + ".00 ".len()) + 3 * (PID_DIGITS + 1);

fn render_view(_: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    render(cx.load()?, out);
    Ok(Bound::Bytes(BOUND))
}

fn render(load: &Load, out: &mut Vec<u8>) {
    for avenrun in load.avenrun {
        let (whole, hundredths) = hundredths(avenrun);
        put(out, format_args!("{whole}.{hundredths:02} "));
    }
    let threads = load.threads.with_reader();
    put(
        out,
        format_args!(
            "{}/{} {}\n",
            threads.running, threads.total, threads.last_pid
        ),
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Threads;

    #[test]
    fn averages_are_rounded_as_in_the_kernel() {
        let threads = Threads {
            running: 2,
            uninterruptible: 1,
            total: 17,
            last_pid: 4242,
        };
        let mut out = Vec::new();
        render(
            &Load {
                avenrun: [2048, 1024, 10],
                threads,
            },
            &mut out,
        );
        assert_eq!(out, b"1.00 0.50 0.00 3/17 4242\n");
    }

    #[test]
    fn whoever_reads_runs_but_no_more_threads_run_than_there_are() {
        let render = |running, total, last_pid| {
            let threads = Threads {
                running,
                total,
                last_pid,
                ..Threads::default()
            };
            let mut out = Vec::new();
            let avenrun = [0; 3];
            super::render(&Load { avenrun, threads }, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(render(0, 3, 9), "0.00 0.00 0.00 1/3 9\n");
        assert_eq!(render(3, 5, 9), "0.00 0.00 0.00 4/5 9\n");
        assert_eq!(render(3, 3, 9), "0.00 0.00 0.00 3/3 9\n");
        assert_eq!(render(0, 0, 0), "0.00 0.00 0.00 1/1 1\n");
    }

    #[test]
    fn the_bound_holds_for_as_many_threads_as_there_are_pids() {
        let most = 1 << 22;
        let threads = Threads {
            running: most,
            uninterruptible: 0,
            total: most,
            last_pid: most,
        };
        let avenrun = crate::initial_load(u64::from(most), Duration::MAX);
        let mut out = Vec::new();
        render(&Load { avenrun, threads }, &mut out);
        assert_eq!(out.len(), BOUND);
    }
}
