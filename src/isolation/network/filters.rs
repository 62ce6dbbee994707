//! The packet filters of a network namespace, which do not move with interfaces.

use std::collections::BTreeSet;
use std::fs;

use eci_fs_protocol::error::{Error, Result};
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use super::netlink::{Kind, Socket};

/// The files with the names of old tables (iptables-legacy and others).
const OLD_TABLES: [&str; 3] = ["ip_tables_names", "ip6_tables_names", "arp_tables_names"];

/// The length of the structure of a request, in bytes: nfgenmsg.
const HEADER: usize = 4;

/// The tables of nftables.
const TABLES: Kind = Kind {
    what: "tables of filters",
    get: ((libc::NFNL_SUBSYS_NFTABLES << 8) | libc::NFT_MSG_GETTABLE) as u16,
    new: ((libc::NFNL_SUBSYS_NFTABLES << 8) | libc::NFT_MSG_NEWTABLE) as u16,
};

/// The tables of packet filters, by their names in messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(BTreeSet<String>);

impl Filters {
    /// Reads those of the namespace of this thread.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn read() -> Result<Self> {
        let mut tables = BTreeSet::new();
        for file in OLD_TABLES {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
            // Without the module there is no file.
            for name in text.unwrap_or_default().lines() {
                tables.insert(format!("{file}: {name}"));
            }
        }
        let socket = match Socket::open(Some(NETFILTER)) {
            Err(Errno::PROTONOSUPPORT) => return Ok(Self(tables)),
            socket => socket.map_err(|e| Error::io("open", "a netlink socket", e))?,
        };
        let list = socket.list(TABLES, &[0; HEADER])?;
        for (number, _) in list.iter().enumerate() {
            tables.insert(format!("nftables: table {}", number + 1));
        }
        Ok(Self(tables))
    }

    /// Checks that there are only the tables that a new namespace has: those of `usual`.
    ///
    /// # Errors
    /// When there are others.
    pub(super) fn check(&self, usual: &Self) -> Result<()> {
        let Some(table) = self.0.difference(&usual.0).next() else {
            return Ok(());
        };
        Err(Error::refused(format!(
            "the network has filters of packets, which would be lost ({table})"
        )))
    }
}
