//! /proc/zoneinfo: the container's memory as one zone.
//!
//! Format: zoneinfo_show_print, mm/vmstat.c: the last field of each line is its number.
//! Virtual: free is F; spanned, present and managed are L; the counters are those of vmstat.
//! Passed through: names, order, and the name of the host's largest zone.
//! Invented: that there is one zone on one node; everything without a figure is 0.

use crate::model::cpus::{self, Cpus};
use crate::model::memory::{self, Memory};
use crate::model::vmstat::{self, Units};
use crate::text::{fields, lines, parse_u64, put, trimmed};
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /proc/zoneinfo.
pub const VIEW: View = View::new(27, "/proc/zoneinfo", render_view)
    .sources(
        "total_* of memory.stat, memory.limit_in_bytes, memory.usage_in_bytes",
        "memory.stat, memory.max, memory.current",
    )
    .invented("that there is one zone on one node")
    .needs(Needs::CGROUP)
    .resizing();

/// The counters of events have no bound.
fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let host = memory::parse_host(&cx.host.read("/proc/meminfo")?)?;
    let memory = memory::read(cx, &host)?;
    let units = vmstat::read_units(cx)?;
    let cpus = cpus::read(cx)?;
    render(&cx.host.read(facts.path)?, &memory, &units, &cpus, out)?;
    Ok(Bound::None)
}

fn render(
    host: &[u8],
    memory: &Memory,
    units: &Units,
    cpus: &Cpus,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let zones = parse_zones(host);
    let largest = zones
        .iter()
        .max_by_key(|zone| zone.managed)
        .ok_or_else(|| Error::malformed("/proc/zoneinfo", "no zone"))?;
    // The counters of a node are in its first zone with memory.
    let counters = zones
        .iter()
        .map(|zone| &zone.node)
        .find(|node| !node.is_empty());
    put(out, format_args!("Node 0, zone {:>8}\n", largest.name));
    for line in counters.into_iter().flatten() {
        render_line(line, memory, units, out);
    }
    let mut skip = false;
    for line in &largest.lines {
        if let Some(cpu) = trimmed(line).strip_prefix("cpu: ") {
            // The lines of a CPU that is not shown are skipped, up to the next CPU or section.
            let cpu = parse_u64(cpu.as_bytes()).and_then(|cpu| u32::try_from(cpu).ok());
            let shown = cpu.filter(|cpu| cpus.visible.contains(*cpu));
            skip = shown.is_none();
            if let Some(cpu) = shown {
                put(out, format_args!("    cpu: {}\n", cpus.shown_id(cpu)));
            }
            continue;
        }
        // "vm stats threshold" is a CPU's as well, although its indentation is the zone's.
        skip = skip && !trimmed(line).starts_with("node_unreclaimable");
        if !skip {
            render_line(line, memory, units, out);
        }
    }
    Ok(())
}

/// Appends a line with another number at its end.
fn render_line(line: &[u8], memory: &Memory, units: &Units, out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(line);
    if let Some((before, list)) = text.split_once('(') {
        // "protection: (0, 942, 942)": one number per zone of the host.
        let zeros = vec!["0"; list.split(',').count()].join(", ");
        put(out, format_args!("{before}({zeros})\n"));
        return;
    }
    let number = fields(line).last().filter(|last| parse_u64(last).is_some());
    let before = number.and_then(|number| text.strip_suffix(trimmed(number)));
    let Some(before) = before else {
        put(out, format_args!("{text}\n"));
        return;
    };
    let page = units.page.max(1);
    let value = match before.trim().trim_end_matches(':') {
        "pages free" => memory.free / page,
        "spanned" | "present" | "managed" => memory.totals.memory / page,
        key => vmstat::value(key, memory, units),
    };
    put(out, format_args!("{before}{value}\n"));
}

/// One zone of the host.
struct Zone<'a> {
    name: &'a str,
    /// The lines of "per-node stats".
    node: Vec<&'a [u8]>,
    lines: Vec<&'a [u8]>,
    managed: u64,
}

fn parse_zones(host: &[u8]) -> Vec<Zone<'_>> {
    let mut zones: Vec<Zone<'_>> = Vec::new();
    let mut in_node = false;
    for line in lines(host) {
        if line.starts_with(b"Node ") {
            let name = fields(line).last().map_or("", trimmed);
            zones.push(Zone {
                name,
                node: Vec::new(),
                lines: Vec::new(),
                managed: 0,
            });
            in_node = false;
            continue;
        }
        let Some(zone) = zones.last_mut() else {
            continue;
        };
        let text = trimmed(line);
        if text == "per-node stats" {
            in_node = true;
        } else if line.starts_with(b"  pages") {
            in_node = false;
        }
        if let Some(managed) = text.strip_prefix("managed") {
            zone.managed = parse_u64(managed.as_bytes()).unwrap_or(0);
        }
        if in_node {
            zone.node.push(line)
        } else {
            zone.lines.push(line)
        }
    }
    zones
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::CpuIds;
    use crate::cgroup::memory::{Keys, Stat};
    use crate::cpulist::CpuSet;
    use crate::model::cpus::fixed;
    use crate::model::memory::Totals;

    const HOST: &str = concat!(
        "Node 0, zone      DMA\n",
        "  per-node stats\n",
        "      nr_inactive_anon 9786\n",
        "      nr_mapped    926\n",
        "  pages free     3808\n",
        "        min      176\n",
        "        managed  3840\n",
        "        protection: (0, 942)\n",
        "Node 0, zone   Normal\n",
        "  pages free     99999\n",
        "        spanned  200000\n",
        "        managed  190000\n",
        "        protection: (0, 0)\n",
        "      nr_free_pages 99999\n",
        "  pagesets\n",
        "    cpu: 0\n",
        "              count:    1013\n",
        "  vm stats threshold: 24\n",
        "    cpu: 1\n",
        "              count:    7\n",
        "  vm stats threshold: 24\n",
        "  node_unreclaimable:  0\n",
        "  start_pfn:           1048576\n",
    );

    const VIEW: &str = concat!(
        "Node 0, zone   Normal\n",
        "  per-node stats\n",
        "      nr_inactive_anon 1\n",
        "      nr_mapped    3\n",
        "  pages free     2\n",
        "        spanned  10\n",
        "        managed  10\n",
        "        protection: (0, 0)\n",
        "      nr_free_pages 2\n",
        "  pagesets\n",
        "    cpu: 0\n",
        "              count:    0\n",
        "  vm stats threshold: 0\n",
        "  node_unreclaimable:  0\n",
        "  start_pfn:           0\n",
    );

    fn text(host: &[u8]) -> String {
        let memory = Memory {
            totals: Totals {
                memory: 40960,
                swap: 0,
            },
            free: 8192,
            available: 8192,
            swap_free: 0,
            stat: Stat::parse(
                b"inactive_anon 4096\nfile_mapped 12288\n".to_vec().into(),
                Keys::default(),
            ),
        };
        let cpus = fixed(CpuSet::parse_list(b"1").unwrap(), CpuIds::Dense);
        let mut out = Vec::new();
        let _ = render(
            host,
            &memory,
            &Units {
                page: 4096,
                huge_page: 0,
            },
            &cpus,
            &mut out,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn there_is_one_zone_with_the_containers_memory() {
        assert_eq!(text(HOST.as_bytes()), VIEW);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            text(&bytes);
        }
    }
}
