//! /proc/stat: the CPU time of the container.
//!
//! Format: show_stat, fs/proc/stat.c; the lines, their order and their columns are the running
//! kernel's.
//! Virtual: the rows of CPUs, processes, procs_running, procs_blocked.
//! Passed through: btime, which the start times of processes count from; in a time namespace it is
//! shifted as the kernel shifts it (from Linux 5.11 on).
//! Invented: nothing; intr, ctxt and softirq are 0.

use crate::container::history::Counters;
use crate::model::cpu_time::{self, CpuTime};
use crate::model::cpus::{self, Cpus};
use crate::text::{digits, fields, lines, parse_u64, put};
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /proc/stat.
pub const VIEW: View = View::new(19, "/proc/stat", render_view)
    .sources(
        "cpuacct.usage_percpu, cpuacct.usage_all, throttled_time of cpu.stat, cpu.pressure of the v2 cgroup",
        "cpu.stat, cpu.pressure",
    )
    .needs(Needs::CGROUP_AND_LOAD);

fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let host = cx.host.read(facts.path)?;
    let cpus = cpus::read(cx)?;
    let time = cpu_time::read(cx, &cpus)?;
    let threads = cx.load()?.threads.with_reader();
    let numbers = Numbers {
        processes: cx.history().show_processes(threads.last_pid),
        procs_running: threads.running,
        procs_blocked: threads.uninterruptible,
        boottime_offset_nsec: match cx.identity().boottime_offset {
            Some(offset) if shifts_btime(cx)? => offset,
            _ => 0,
        },
    };
    render(&host, &cpus, &time, &numbers, out);
    Ok(Bound::Bytes(bound(&host, &cpus)))
}

/// The numbers that have lines of their own.
struct Numbers {
    processes: u32,
    procs_running: u32,
    procs_blocked: u32,
    boottime_offset_nsec: i128,
}

/// The highest number of digits of ticks. Eleven digits are 31 years of one CPU.
const ROW_DIGITS: usize = 11;
/// The highest number of digits of a pid. PID_MAX_LIMIT is 2^22.
const PID_DIGITS: usize = 7;
/// The number of digits of seconds since 1970, until 2286.
const BTIME_DIGITS: usize = 10;
/// The number of columns that can be more than 0: user, nice, system, idle, steal.
const COUNTERS: usize = 5;

fn render(host: &[u8], cpus: &Cpus, time: &CpuTime, numbers: &Numbers, out: &mut Vec<u8>) {
    let mut rows_done = false;
    for line in lines(host) {
        let columns = fields(line).count().saturating_sub(1);
        let key = fields(line).next().unwrap_or_default();
        if key.starts_with(b"cpu") {
            // All rows are appended in the place of the kernel's first one.
            if !rows_done {
                rows_done = true;
                out.extend_from_slice(b"cpu ");
                render_row(&time.total, columns, out);
                for (cpu, counters) in &time.rows {
                    put(out, format_args!("cpu{}", cpus.shown_id(*cpu)));
                    render_row(counters, columns, out);
                }
            }
            continue;
        }
        out.extend_from_slice(key);
        match key {
            b"btime" => {
                let btime = fields(line).nth(1).and_then(parse_u64).unwrap_or(0);
                put(
                    out,
                    format_args!(" {}\n", shift(btime, numbers.boottime_offset_nsec)),
                );
            }
            b"processes" => put(out, format_args!(" {}\n", numbers.processes)),
            b"procs_running" => put(out, format_args!(" {}\n", numbers.procs_running)),
            b"procs_blocked" => put(out, format_args!(" {}\n", numbers.procs_blocked)),
            // intr, ctxt, softirq, and lines of newer kernels have zeros in the same columns.
            _ => {
                (0..columns).for_each(|_| out.extend_from_slice(b" 0"));
                out.push(b'\n');
            }
        }
    }
}

/// Appends user nice system idle iowait irq softirq steal guest guest_nice.
fn render_row(counters: &Counters, columns: usize, out: &mut Vec<u8>) {
    let row = [
        counters.user,
        counters.nice,
        counters.system,
        counters.idle,
        0,
        0,
        0,
        counters.steal,
    ];
    for value in row.into_iter().chain(std::iter::repeat(0)).take(columns) {
        put(out, format_args!(" {value}"));
    }
    out.push(b'\n');
}

/// Returns whether a time namespace shifts btime. Before Linux 5.11 it shifts /proc/uptime, but neither btime nor the
/// start times of processes, which have to agree.
fn shifts_btime(cx: &Context<'_>) -> Result<bool, Error> {
    let release = cx.host.read_optional("/proc/sys/kernel/osrelease")?;
    Ok(release.is_none_or(|release| parse_release(&release) >= (5, 11)))
}

/// Returns the first two numbers of "5.10.0-36-cloud-amd64".
fn parse_release(release: &[u8]) -> (u64, u64) {
    let mut numbers = release
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| parse_u64(digits).unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Returns btime in a time namespace whose boot time is shifted (timens_sub_boottime). The host's btime has no
/// fraction, so the result may be one second off.
fn shift(btime: u64, offset_nsec: i128) -> u64 {
    let seconds = i128::from(btime).saturating_sub(offset_nsec.div_euclid(1_000_000_000));
    u64::try_from(seconds.max(0)).unwrap_or(u64::MAX)
}

/// Returns the highest length of [`render`] with these CPUs.
fn bound(host: &[u8], cpus: &Cpus) -> usize {
    let mut rows_done = false;
    lines(host).fold(0usize, |sum, line| {
        let columns = fields(line).count().saturating_sub(1);
        let key = fields(line).next().unwrap_or_default();
        let zeros = columns.saturating_mul(2);
        let length = if key.starts_with(b"cpu") {
            if rows_done {
                return sum;
            }
            rows_done = true;
            let wide = |digits: usize| {
                let extra = digits
                    .saturating_sub(1)
                    .saturating_mul(COUNTERS.min(columns));
                zeros.saturating_add(extra).saturating_add(1)
            };
            // The total has more digits than a row: it includes the time of CPUs that are gone.
            let total = "cpu "
                .len()
                .saturating_add(wide(ROW_DIGITS.saturating_add(4)));
            cpus.visible.iter().fold(total, |sum, cpu| {
                let id = digits(u64::from(cpus.shown_id(cpu)));
                sum.saturating_add(3)
                    .saturating_add(id)
                    .saturating_add(wide(ROW_DIGITS))
            })
        } else {
            let value = match key {
                b"btime" => BTIME_DIGITS.saturating_add(1),
                b"processes" | b"procs_running" | b"procs_blocked" => PID_DIGITS.saturating_add(1),
                _ => zeros,
            };
            key.len().saturating_add(value).saturating_add(1)
        };
        sum.saturating_add(length)
    })
}

#[cfg(test)]
#[path = "stat_tests.rs"]
mod tests;
