//! /proc/modules: the modules of the kernel.
//!
//! Format: m_show, kernel/module/procfs.c.
//! Virtual: the number of users of each module: the modules that use it.
//! Passed through: the modules, their sizes and states, and who uses them.
//! Invented: that nobody else uses a module. The kernel counts each mount and each rule of a firewall, of all containers.

use crate::text::{lines, put};
use crate::{Bound, Context, Error, Facts, View};

/// /proc/modules.
pub const VIEW: View = View::new(60, "/proc/modules", render_view)
    .steady()
    .invented("that only modules use a module");

fn render_view(facts: &Facts, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
    render(&cx.host.read(facts.path)?, out);
    Ok(Bound::Exact)
}

/// Appends the modules. A row is "name size users names state address", where the names are "a,b," or "-". Without the
/// right to unload modules there are no users, but "-".
fn render(host: &[u8], out: &mut Vec<u8>) {
    for line in lines(host) {
        let mut columns = line.splitn(4, |&byte| byte == b' ');
        let row = [(); 4].map(|()| columns.next());
        match row {
            [Some(name), Some(size), Some(users), Some(rest)] if users != b"-" => {
                let names = rest.split(|&byte| byte == b' ').next().unwrap_or_default();
                let users = names.iter().filter(|&&byte| byte == b',').count();
                out.extend_from_slice(name);
                out.push(b' ');
                out.extend_from_slice(size);
                put(out, format_args!(" {users} "));
                out.extend_from_slice(rest);
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
    fn a_module_is_used_by_the_modules_that_are_named() {
        let host = b"overlay 172032 57 - Live 0x0000000000000000\n\
            nf_nat 61440 9 xt_MASQUERADE,nft_chain_nat, Live 0x0000000000000000 (E)\n\
            fixed 4096 - - Live 0x0000000000000000\n";
        let mut out = Vec::new();
        render(host, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "overlay 172032 0 - Live 0x0000000000000000\n\
            nf_nat 61440 2 xt_MASQUERADE,nft_chain_nat, Live 0x0000000000000000 (E)\n\
            fixed 4096 - - Live 0x0000000000000000\n"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            render(&bytes, &mut Vec::new());
        }
    }
}
