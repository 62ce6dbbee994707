//! /sys/devices/system/cpu/cpuN/online: whether the container is shown the CPU.
//!
//! Format: online_show, drivers/base/core.c.
//! Virtual: all of it.
//! Passed through: nothing; where the machine cannot take the CPU offline there is no file.
//! Invented: 0 for a CPU that only a quota hides, which is online on the machine.

use crate::directory::Decision;
use crate::model::cpus::Cpus;
use crate::{Context, Pace};

pub(super) fn entry(cx: &Context<'_>, cpus: &Cpus, cpu: u32, path: &str) -> Decision {
    if !cpus.visible.contains(cpu) || cx.host.exists(path) {
        Decision::View {
            mode: 0o644,
            pace: Pace::Static,
        }
    } else {
        Decision::Hidden
    }
}

pub(super) fn render(cpus: &Cpus, cpu: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(if cpus.visible.contains(cpu) {
        b"1\n"
    } else {
        b"0\n"
    });
}
