//! /proc/swaps: the container's swap as one area.
//!
//! Format: swap_show, mm/swapfile.c; the header is the running kernel's, and tells which of the two
//! row formats it prints.
//! Virtual: Size is SwapTotal, Used is SwapTotal - SwapFree of /proc/meminfo.
//! Passed through: the header.
//! Invented: the name "none", the type "partition" and the priority -2, which the kernel gives to
//! the first area of swap.

use crate::model::memory;
use crate::text::{lines, put};
use crate::{Bound, Context, Error, Facts, Needs, View};

/// /proc/swaps.
pub const VIEW: View = View::new(20, "/proc/swaps", render_view)
    .sources(
        "memory.memsw.limit_in_bytes, memory.memsw.usage_in_bytes, memory.usage_in_bytes",
        "memory.swap.max, memory.swap.current",
    )
    .invented("name, type and priority of the one area")
    .needs(Needs::CGROUP);

fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    let host = memory::parse_host(&cx.host.read("/proc/meminfo")?)?;
    let memory = memory::read(cx, &host)?;
    let size_kib = memory.totals.swap / 1024;
    let used_kib = size_kib.saturating_sub(memory.swap_free / 1024);
    let host = cx.host.read(facts.path)?;
    render(&host, size_kib, used_kib, out)?;
    // A tab takes the place of the eighth digit of Used. So no row is longer than that of full swap.
    let mut full = Vec::new();
    render(&host, size_kib, size_kib, &mut full)?;
    Ok(Bound::Bytes(full.len()))
}

fn render(host: &[u8], size_kib: u64, used_kib: u64, out: &mut Vec<u8>) -> Result<(), Error> {
    let header = lines(host)
        .next()
        .filter(|header| header.starts_with(b"Filename"))
        .ok_or_else(|| Error::malformed("/proc/swaps", "no header"))?;
    out.extend_from_slice(header);
    out.push(b'\n');
    if size_kib == 0 {
        return Ok(());
    }
    let name = "none";
    // "%*s%s\t" pads the name to 40 columns.
    put(out, format_args!("{name:<40}partition\t"));
    if header.ends_with(b"Size\tUsed\tPriority") {
        // This is the format before Linux 5.11.
        put(out, format_args!("{size_kib}\t{used_kib}\t-2\n"));
    } else {
        let tab = |kib: u64| if kib < 10_000_000 { "\t" } else { "" };
        put(
            out,
            format_args!(
                "{size_kib}\t{}{used_kib}\t{}-2\n",
                tab(size_kib),
                tab(used_kib)
            ),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &[u8] = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/sda2 x\n";
    const OLD: &[u8] = b"Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n";

    fn text(host: &[u8], size_kib: u64, used_kib: u64) -> String {
        let mut out = Vec::new();
        render(host, size_kib, used_kib, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_row_is_that_of_the_running_kernel() {
        let name = "none                                    partition\t";
        let row = |host, size, used| text(host, size, used).lines().nth(1).unwrap().to_owned();
        assert_eq!(row(NEW, 2048, 12), format!("{name}2048\t\t12\t\t-2"));
        assert_eq!(
            row(NEW, 16_777_216, 12),
            format!("{name}16777216\t12\t\t-2")
        );
        assert_eq!(row(OLD, 2048, 12), format!("{name}2048\t12\t-2"));
    }

    #[test]
    fn without_swap_there_is_only_the_header() {
        assert_eq!(text(NEW, 0, 0).lines().count(), 1);
    }

    #[test]
    fn no_row_is_longer_than_that_of_full_swap() {
        for size in [1, 9_999_999, 10_000_000, 123_456_789] {
            let full = text(NEW, size, size).len();
            for used in [0, 7, 9_999_999, 10_000_000] {
                assert!(text(NEW, size, used.min(size)).len() <= full);
            }
        }
    }

    #[test]
    fn something_else_than_a_list_of_swaps_is_an_error() {
        assert!(render(b"", 1, 1, &mut Vec::new()).is_err());
    }
}
