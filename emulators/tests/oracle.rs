//! An independent parser reads every view that it knows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Fixture;
use eci_fs_emulators::{EMULATORS, render_view};
use procfs_core::{
    CpuInfo, FromBufRead, FromBufReadSI, FromRead, KernelStats, LoadAverage, Meminfo, Uptime,
};

fn texts(path: &str) -> Vec<Vec<u8>> {
    let emulator = EMULATORS
        .iter()
        .find(|emulator| emulator.facts().path == path)
        .unwrap();
    let mut texts = Vec::new();
    for dir in common::all() {
        let fixture = Fixture::open(&dir);
        let mut out = Vec::new();
        render_view(*emulator, &fixture.context(), &mut out).unwrap();
        texts.push(out);
    }
    texts
}

#[test]
fn meminfo_is_read() {
    for text in texts("/proc/meminfo") {
        let meminfo = Meminfo::from_buf_read(&text[..]).unwrap();
        assert!(meminfo.mem_total > 0);
        assert!(meminfo.mem_free <= meminfo.mem_available.unwrap());
        assert!(meminfo.mem_available.unwrap() <= meminfo.mem_total);
        assert!(meminfo.swap_free <= meminfo.swap_total);
    }
}

#[test]
fn stat_is_read_and_agrees_with_uptime_and_cpuinfo() {
    let info = procfs_core::ExplicitSystemInfo {
        boot_time_secs: 1,
        ticks_per_second: 100,
        page_size: 4096,
        is_little_endian: true,
    };
    let texts = texts("/proc/stat")
        .into_iter()
        .zip(self::texts("/proc/uptime"));
    for ((stat, uptime), cpuinfo) in texts.zip(self::texts("/proc/cpuinfo")) {
        let stat = KernelStats::from_buf_read(&stat[..], &info).unwrap();
        let uptime = Uptime::from_read(&uptime[..]).unwrap();
        let cpuinfo = CpuInfo::from_buf_read(&cpuinfo[..]).unwrap();
        assert_eq!(stat.cpu_time.len(), cpuinfo.num_cores());
        let total = &stat.total;
        let sum = total.user + total.nice + total.system + total.idle + total.steal.unwrap();
        let age = uptime.uptime * stat.cpu_time.len() as f64;
        assert!((sum as f64 / 100.0 - age).abs() < 0.005, "{sum} {age}");
        assert!((total.idle as f64 / 100.0 - uptime.idle).abs() < 0.005);
    }
}

#[test]
fn loadavg_is_read() {
    for text in texts("/proc/loadavg") {
        let loadavg = LoadAverage::from_read(&text[..]).unwrap();
        assert!(loadavg.cur <= loadavg.max);
    }
}
