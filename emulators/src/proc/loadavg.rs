//! /proc/loadavg: the load averages of the container's own threads.
//!
//! Format: loadavg_proc_show, fs/proc/loadavg.c.
//! Virtual: all fields; the last pid is the highest that its threads have in its pid namespace.
//! Passed through: nothing.
//! Invented: the averages begin with the present count of threads, not with zero.

use crate::model::load::hundredths;
use crate::text::put;
use crate::{Bound, Context, Error, Facts, Load, Needs, View};

/// /proc/loadavg.
pub const VIEW: View = View::new(21, "/proc/loadavg", render_view)
    .sources(
        "tasks of the cgroup and those below it; /proc/<tid>/status",
        "cgroup.threads of the cgroup and those below it; /proc/<tid>/status",
    )
    .invented("the averages begin with the present count of threads")
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
    let threads = &load.threads;
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
        assert_eq!(out, b"1.00 0.50 0.00 2/17 4242\n");
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
        let avenrun = crate::initial_load(u64::from(most));
        let mut out = Vec::new();
        render(&Load { avenrun, threads }, &mut out);
        assert_eq!(out.len(), BOUND);
    }
}
