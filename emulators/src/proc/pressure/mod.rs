//! /proc/pressure: how long threads of the container waited for a resource.
//!
//! Format: psi_show, kernel/sched/psi.c.
//! Virtual: all of it, the file of the container's v2 cgroup.
//! Passed through: nothing.
//! Invented: zeros where the container has no v2 cgroup of its own.
//!
//! The server handles triggers that are written here, and poll(2).

use crate::cgroup::Hierarchy;
use crate::text::{fields, lines, put};
use crate::{Bound, Cgroup, Context, Error, Facts, Needs, PressureResource, View};

/// The files of this directory.
pub static VIEWS: &[View] = &[
    row(38, "/proc/pressure/cpu", PressureResource::Cpu).sources(
        "cpu.pressure of the v2 cgroup, if the container has one",
        "cpu.pressure",
    ),
    row(39, "/proc/pressure/memory", PressureResource::Memory).sources(
        "memory.pressure of the v2 cgroup, if the container has one",
        "memory.pressure",
    ),
    row(40, "/proc/pressure/io", PressureResource::Io).sources(
        "io.pressure of the v2 cgroup, if the container has one",
        "io.pressure",
    ),
    row(41, "/proc/pressure/irq", PressureResource::Irq).sources(
        "irq.pressure of the v2 cgroup, if the container has one",
        "irq.pressure",
    ),
];

/// Returns the row of a resource. The mode is the kernel's; everybody who may write can write a trigger.
const fn row(id: u16, path: &'static str, resource: PressureResource) -> View {
    View::new(id, path, render)
        .mode(0o666)
        .invented("zeros where there is no v2 cgroup")
        .needs(Needs::CGROUP)
        .pressure(resource)
}

/// Returns the hierarchy with the pressure files of the container. It is v2, also on a host whose controllers are all
/// on v1. The root of v2 does not count, because its pressure is the host's.
fn hierarchy(cgroup: &Cgroup) -> Option<&Hierarchy> {
    cgroup.unified().filter(|hierarchy| hierarchy.depth > 0)
}

/// Appends the file of the cgroup, or the host's layout with zeros.
///
/// The bound is the present number of lines, with averages up to 100.00 and totals of microseconds in 20 digits.
fn render(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let start = out.len();
    let own = match (hierarchy(cx.cgroup()?), facts.pressure) {
        (Some(hierarchy), Some(resource)) => hierarchy.read(0, resource.cgroup_file())?,
        _ => None,
    };
    match own {
        Some(text) => out.extend_from_slice(&text),
        None => render_zeros(&cx.host.read(facts.path)?, out),
    }
    let longest = "some avg10=100.00 avg60=100.00 avg300=100.00 total=\n".len();
    let count = lines(out.get(start..).unwrap_or_default()).count();
    Ok(Bound::Bytes(
        count.saturating_mul(longest.saturating_add(20)),
    ))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` (psi_show, kernel/sched/psi.c).
fn render_zeros(host: &[u8], out: &mut Vec<u8>) {
    for kind in lines(host).filter_map(|line| fields(line).next()) {
        out.extend_from_slice(kind);
        put(
            out,
            format_args!(" avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_have_the_lines_of_the_machine() {
        let mut out = Vec::new();
        render_zeros(
            b"full avg10=4.52 avg60=0.81 avg300=0.17 total=889036\n",
            &mut out,
        );
        assert_eq!(out, b"full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
    }
}
