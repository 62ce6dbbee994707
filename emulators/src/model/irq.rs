//! Tables with a column per CPU: /proc/interrupts and /proc/softirqs.
//!
//! The columns are the host's: collectl counts the directories cpuN to know how many there are, and the exporter of
//! Prometheus numbers them from 0. Other programs go by the heading. With dense ids the columns are those of V.

use crate::model::cpus::{self, Cpus};
use crate::text::{fields, lines, parse_u64, put};
use crate::{Bound, Context, CpuIds, Error, Facts};

/// Appends the table at the path of `facts`, as a container sees it: every count is 0, because the interrupts of the host
/// tell what other containers do.
pub(crate) fn render_counts(
    facts: &Facts,
    cx: &Context<'_>,
    out: &mut Vec<u8>,
) -> Result<Bound, Error> {
    render(&cx.host.read(facts.path)?, &cpus::read(cx)?, false, out);
    Ok(Bound::Exact)
}

/// Appends the same, but the first row with counts has a 1 for each CPU of V. To sysstat a CPU that has had no interrupt at
/// all is offline, and if all are, it prints no figure.
pub(crate) fn render_marked_counts(
    facts: &Facts,
    cx: &Context<'_>,
    out: &mut Vec<u8>,
) -> Result<Bound, Error> {
    render(&cx.host.read(facts.path)?, &cpus::read(cx)?, true, out);
    Ok(Bound::Exact)
}

fn render(host: &[u8], cpus: &Cpus, marked: bool, out: &mut Vec<u8>) {
    let mut lines = lines(host);
    let Some(header) = lines.next() else {
        return;
    };
    let theirs = parse_header(header);
    let shown: Vec<u32> = match cpus.ids() {
        CpuIds::Physical => theirs.clone(),
        CpuIds::Dense => cpus.visible.iter().collect(),
    };
    // `%*s` of blanks, then `CPU%-8d` for each CPU (show_interrupts, show_softirqs).
    let indent = header.iter().take_while(|&&byte| byte == b' ').count();
    out.resize(out.len().saturating_add(indent), b' ');
    for cpu in &shown {
        put(out, format_args!("CPU{:<8}", cpus.shown_id(*cpu)));
    }
    out.push(b'\n');
    let mut marks = marked;
    for line in lines {
        let Some((label, counts, rest)) = parse_row(line, theirs.len()) else {
            continue;
        };
        out.extend_from_slice(label);
        if counts == theirs.len() {
            for cpu in &shown {
                let count = u8::from(marks && cpus.visible.contains(*cpu));
                put(out, format_args!(" {count:>10}"));
            }
            marks = false;
        } else {
            // Rows like "ERR:" have one number for all CPUs.
            (0..counts).for_each(|_| put(out, format_args!(" {:>10}", 0)));
        }
        out.extend_from_slice(rest);
        out.push(b'\n');
    }
}

/// Returns the CPUs that have columns.
fn parse_header(line: &[u8]) -> Vec<u32> {
    fields(line)
        .filter_map(|field| parse_u64(field.strip_prefix(b"CPU")?))
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect()
}

/// Returns a row as "label:", the number of counts, at most `columns`, and the rest. A line without a colon is no row.
fn parse_row(line: &[u8], columns: usize) -> Option<(&[u8], usize, &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (label, mut rest) = line.split_at_checked(colon.checked_add(1)?)?;
    let mut found = 0usize;
    while found < columns {
        let blank = rest.iter().take_while(|&&byte| byte == b' ').count();
        let digits = rest
            .iter()
            .skip(blank)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let end = blank.saturating_add(digits);
        let whole = rest.get(end).is_none_or(|&byte| byte == b' ');
        if !whole || rest.get(blank..end).and_then(parse_u64).is_none() {
            break;
        }
        rest = rest.get(end..).unwrap_or_default();
        found = found.saturating_add(1);
    }
    Some((label, found, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::CpuIds;
    use crate::cpulist::CpuSet;
    use crate::model::cpus::fixed;

    fn text(host: &[u8], list: &str, ids: CpuIds, marked: bool) -> String {
        let cpus = fixed(CpuSet::parse_list(list.as_bytes()).unwrap(), ids);
        let mut out = Vec::new();
        render(host, &cpus, marked, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    const HOST: &[u8] = b"           CPU0       CPU1       \n  0:         80          0   IO-APIC   2-edge      timer\n\
        NMI: 4294967295          0   Non-maskable interrupts\nERR:          7\n";

    #[test]
    fn the_columns_are_the_hosts_and_nothing_was_counted() {
        assert_eq!(
            text(HOST, "1", CpuIds::Physical, false),
            "           CPU0       CPU1       \n  0:          0          0   IO-APIC   2-edge      timer\n\
             NMI:          0          0   Non-maskable interrupts\nERR:          0\n"
        );
        assert_eq!(
            text(HOST, "1", CpuIds::Dense, false),
            "           CPU0       \n  0:          0   IO-APIC   2-edge      timer\n\
             NMI:          0   Non-maskable interrupts\nERR:          0\n"
        );
    }

    #[test]
    fn the_first_row_has_a_mark_for_each_visible_cpu() {
        assert_eq!(
            text(HOST, "1", CpuIds::Physical, true),
            "           CPU0       CPU1       \n  0:          0          1   IO-APIC   2-edge      timer\n\
             NMI:          0          0   Non-maskable interrupts\nERR:          0\n"
        );
        let dense = text(HOST, "1", CpuIds::Dense, true);
        assert!(dense.contains("  0:          1   IO-APIC"), "{dense}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            text(&bytes, "0-3", CpuIds::Physical, true);
        }
    }
}
