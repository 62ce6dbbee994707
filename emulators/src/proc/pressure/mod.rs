//! Views below /proc/pressure: stalls of the container's own threads.
//!
//! Writing a trigger and polling for it is the server's part; [`cgroup_file`] says where.

use crate::cgroup::Hierarchy;
use crate::text::{fields, lines, put};
use crate::{Cgroup, Context, Error};

pub mod cpu;
pub mod io;
pub mod irq;
pub mod memory;

/// The hierarchy that holds the pressure files of the container: v2, also where all controllers are
/// on v1, but not its root, which is the machine.
fn hierarchy(cgroup: &Cgroup) -> Option<&Hierarchy> {
    cgroup.unified().filter(|hierarchy| hierarchy.depth > 0)
}

/// Where a trigger for one of the resources ("cpu", "memory", "io", "irq") is to be written: the
/// index of a hierarchy and the name of a file in its directory, which may not exist.
pub fn cgroup_file(cgroup: &Cgroup, resource: &str) -> Option<(usize, String)> {
    let found = hierarchy(cgroup)?;
    let index = cgroup
        .hierarchies()
        .iter()
        .position(|other| std::ptr::eq(other, found))?;
    Some((index, format!("{resource}.pressure")))
}

/// The file of the cgroup, or the machine's layout with zeros.
fn render(cx: &Context<'_>, resource: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    let own = match hierarchy(&cx.container.cgroup) {
        Some(hierarchy) => hierarchy.read(0, &format!("{resource}.pressure"))?,
        None => None,
    };
    match own {
        Some(text) => out.extend_from_slice(&text),
        None => render_zeros(&cx.host.read(&format!("/proc/pressure/{resource}"))?, out),
    }
    Ok(())
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

/// As many lines as there are, averages up to 100.00 and totals of microseconds in 20 digits.
fn bound(cx: &Context<'_>, resource: &str) -> Result<Option<usize>, Error> {
    let mut text = Vec::new();
    render(cx, resource, &mut text)?;
    let longest = "some avg10=100.00 avg60=100.00 avg300=100.00 total=\n".len();
    Ok(Some(
        lines(&text)
            .count()
            .saturating_mul(longest.saturating_add(20)),
    ))
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
