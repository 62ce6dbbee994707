//! Tables with a column per CPU: /proc/interrupts and /proc/softirqs.

use crate::model::cpus::{self, Cpus};
use crate::text::{lines, parse_u64, put};
use crate::{Bound, Context, Error, Facts};

/// Appends the table at the path of `facts`, as a container sees it.
pub(crate) fn render_view(
    facts: &Facts,
    cx: &Context<'_>,
    out: &mut Vec<u8>,
) -> Result<Bound, Error> {
    render(&cx.host.read(facts.path)?, &cpus::read(cx)?, out);
    Ok(Bound::Exact)
}

/// Appends the table with the columns of V, and 0 in each. The interrupts of the host tell what other containers do.
fn render(host: &[u8], cpus: &Cpus, out: &mut Vec<u8>) {
    let mut columns = 0usize;
    for (index, line) in lines(host).enumerate() {
        if index == 0 {
            columns = render_header(line, cpus, out);
        } else {
            render_row(line, columns, cpus, out);
        }
    }
}

/// Appends `%*s` of blanks, then `CPU%-8d` for each CPU (show_interrupts, show_softirqs). Returns the number of the
/// host's columns.
fn render_header(line: &[u8], cpus: &Cpus, out: &mut Vec<u8>) -> usize {
    let indent = line.iter().take_while(|&&byte| byte == b' ').count();
    out.resize(out.len().saturating_add(indent), b' ');
    for cpu in cpus.visible.iter() {
        put(out, format_args!("CPU{:<8}", cpus.shown_id(cpu)));
    }
    out.push(b'\n');
    line.split(|&byte| byte == b' ')
        .filter(|field| field.starts_with(b"CPU"))
        .count()
}

/// Appends "label:" and ` %10u` for each CPU. Rows like "ERR:" have one number for all.
fn render_row(line: &[u8], columns: usize, cpus: &Cpus, out: &mut Vec<u8>) {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return;
    };
    let (label, mut rest) = line
        .split_at_checked(colon.saturating_add(1))
        .unwrap_or((line, b""));
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
    out.extend_from_slice(label);
    let shown = if found == columns {
        cpus.visible.len()
    } else {
        found
    };
    for _ in 0..shown {
        put(out, format_args!(" {:>10}", 0));
    }
    out.extend_from_slice(rest);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::CpuIds;
    use crate::cpulist::CpuSet;
    use crate::model::cpus::fixed;

    fn text(host: &[u8], list: &str, ids: CpuIds) -> String {
        let cpus = fixed(CpuSet::parse_list(list.as_bytes()).unwrap(), ids);
        let mut out = Vec::new();
        render(host, &cpus, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    const HOST: &[u8] = b"           CPU0       CPU1       \n  0:         80          0   IO-APIC   2-edge      timer\n\
        NMI: 4294967295          0   Non-maskable interrupts\nERR:          7\n";

    #[test]
    fn only_visible_cpus_have_columns_and_nothing_was_counted() {
        assert_eq!(
            text(HOST, "1", CpuIds::Physical),
            "           CPU1       \n  0:          0   IO-APIC   2-edge      timer\n\
             NMI:          0   Non-maskable interrupts\nERR:          0\n"
        );
        assert!(text(HOST, "1", CpuIds::Dense).starts_with("           CPU0       \n"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            text(&bytes, "0-3", CpuIds::Physical);
        }
    }
}
