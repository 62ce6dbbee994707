//! /proc/cgroups: the controllers of the kernel.
//!
//! Format: proc_cgroupstats_show, kernel/cgroup/cgroup-v1.c.
//! Virtual: the number of cgroups: those that the container has.
//! Passed through: the name and the hierarchy of each controller, and whether it is enabled.
//! Invented: one cgroup in each hierarchy of v1, because only v2 counts those below a cgroup.

use crate::text::{lines, parse_key, put};
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /proc/cgroups.
pub const VIEW: View = View::new(59, "/proc/cgroups", render_view)
    .sources("none", "cgroup.stat")
    .invented("1 for each hierarchy of v1")
    .needs(Needs::CGROUP);

/// The hierarchy of controllers that v1 does not have.
const UNIFIED: &[u8] = b"0";

fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    // The root counts the cgroups of the host.
    let unified = cx.cgroup()?.unified().filter(|cgroup| cgroup.depth > 0);
    let below = match unified {
        Some(cgroup) => cgroup.read(0, "cgroup.stat")?,
        None => None,
    };
    let below = below.and_then(|text| parse_key(&text, "nr_descendants"));
    let cgroups = below.unwrap_or(0).saturating_add(1);
    let host = cx.host.read(facts.path)?;
    render(&host, cgroups, out);
    // A row of v2 can get longer than it is now.
    let rows = lines(&host).count();
    Ok(Bound::Bytes(
        out.len().saturating_add(rows.saturating_mul(DIGITS)),
    ))
}

/// The digits of the greatest number.
const DIGITS: usize = 20;

fn render(host: &[u8], cgroups: u64, out: &mut Vec<u8>) {
    for line in lines(host) {
        let mut columns = line.split(|&byte| byte == b'\t');
        let row = [(); 4].map(|()| columns.next());
        match row {
            [Some(name), Some(hierarchy), Some(_), Some(enabled)] if !name.starts_with(b"#") => {
                out.extend_from_slice(name);
                out.push(b'\t');
                out.extend_from_slice(hierarchy);
                let number = match hierarchy {
                    UNIFIED => cgroups,
                    _ => 1,
                };
                put(out, format_args!("\t{number}\t"));
                out.extend_from_slice(enabled);
            }
            _ => out.extend_from_slice(line),
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_number_of_cgroups_is_the_containers() {
        let host =
            b"#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t471\t1\nmemory\t0\t462\t0\n";
        let mut out = Vec::new();
        render(host, 5, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t1\t1\nmemory\t0\t5\t0\n"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            render(&bytes, 1, &mut Vec::new());
        }
    }
}
