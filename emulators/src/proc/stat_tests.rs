use proptest::prelude::*;

use super::*;
use crate::CpuIds;
use crate::cpulist::CpuSet;
use crate::model::cpus::fixed;

const HOST: &[u8] = b"cpu  1474 0 1392 225019 256 0 26 7 0 0\n\
cpu0 568 0 473 113053 19 0 7 2 0 0\n\
cpu1 905 0 919 111965 236 0 19 5 0 0\n\
intr 125283 1 2 3\n\
ctxt 259052\nbtime 1795468624\nprocesses 3916\nprocs_running 1\nprocs_blocked 5\n\
softirq 95695 0 14889\nnewer 7 8\n";

fn cpus(list: &str, ids: CpuIds) -> Cpus {
    fixed(CpuSet::parse_list(list.as_bytes()).unwrap(), ids)
}

fn time(cpus: &Cpus, value: u64) -> CpuTime {
    let counters = Counters {
        user: value,
        nice: value,
        system: value,
        idle: value,
        steal: value,
    };
    let rows: Vec<_> = cpus.visible.iter().map(|cpu| (cpu, counters)).collect();
    let total = rows.iter().fold(Counters::default(), |sum, (_, row)| {
        sum.zip(*row, u64::saturating_add)
    });
    CpuTime {
        rows: rows.into(),
        total,
    }
}

fn numbers(value: u32) -> Numbers {
    Numbers {
        processes: value,
        procs_running: value,
        procs_blocked: value,
        boottime_offset_nsec: 0,
    }
}

#[test]
fn the_layout_is_the_kernels_and_the_numbers_are_not() {
    let cpus = cpus("1", CpuIds::Physical);
    let mut out = Vec::new();
    render(HOST, &cpus, &time(&cpus, 3), &numbers(42), &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "cpu  3 3 3 3 0 0 0 3 0 0\ncpu1 3 3 3 3 0 0 0 3 0 0\nintr 0 0 0 0\nctxt 0\n\
        btime 1795468624\nprocesses 42\nprocs_running 42\nprocs_blocked 42\nsoftirq 0 0 0\nnewer 0 0\n"
    );
}

#[test]
fn a_release_begins_with_two_numbers() {
    assert_eq!(parse_release(b"5.10.0-36-cloud-amd64\n"), (5, 10));
    assert!(parse_release(b"5.9.16\n") < (5, 11));
    assert!(parse_release(b"6.1-rc3\n") >= (5, 11));
    assert_eq!(parse_release(b""), (0, 0));
}

#[test]
fn a_time_namespace_shifts_the_boot() {
    assert_eq!(shift(1000, -300 * 1_000_000_000), 1300);
    assert_eq!(shift(1000, 300 * 1_000_000_000), 700);
    assert_eq!(shift(1000, i128::MAX), 0);
}

#[test]
fn the_bound_is_reached_by_the_largest_numbers() {
    let cpus = cpus("0-99", CpuIds::Physical);
    let mut time = time(&cpus, 99_999_999_999);
    let most = 999_999_999_999_999;
    time.total = Counters {
        user: most,
        nice: most,
        system: most,
        idle: most,
        steal: most,
    };
    let mut out = Vec::new();
    render(HOST, &cpus, &time, &numbers(1 << 22), &mut out);
    assert_eq!(out.len(), bound(HOST, &cpus));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let cpus = cpus("0-3", CpuIds::Dense);
        render(&bytes, &cpus, &time(&cpus, 1), &numbers(1), &mut Vec::new());
        bound(&bytes, &cpus);
    }
}
