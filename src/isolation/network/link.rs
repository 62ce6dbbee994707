//! One interface of a network namespace.

use std::os::fd::RawFd;

use eci_fs_protocol::error::{Error, Result};
use rustix::io::Errno;

use super::netlink::{Kind, Message, Socket, append, attribute};

/// The length of the structure before the attributes, in bytes: ifinfomsg.
const HEADER: usize = 16;

/// The kinds that work in another namespace as before, also if their peer or lower interface stays. Tunnels and others
/// depend on the namespace in which they were made. A device of the hardware has no kind.
const MOVABLE: [&str; 8] = [
    "veth", "macvlan", "macvtap", "ipvlan", "ipvtap", "vlan", "dummy", "ifb",
];

/// The interfaces.
const LINKS: Kind = Kind {
    what: "interfaces",
    get: libc::RTM_GETLINK,
    new: libc::RTM_NEWLINK,
};

/// The number of the loopback in every namespace.
const LOOPBACK: u32 = 1;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number, which is unique in its namespace.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// The name of its driver's kind, if it has one.
    pub(super) kind: Option<String>,
    /// The flags of netdevice(7): IFF_UP and others.
    flags: u32,
    /// True if it lies on another interface of the same namespace, is the peer of one, or belongs to one.
    depends: bool,
}

impl Link {
    /// Returns the interfaces in the namespace of a socket.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn list(socket: &Socket) -> Result<Vec<Self>> {
        let all = socket.list(LINKS, &[0; HEADER])?;
        Ok(all.iter().map(Self::read).collect())
    }

    fn read(message: &Message) -> Self {
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0);
            String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
        };
        let get = |kind| message.attribute(HEADER, kind);
        let info = get(libc::IFLA_LINKINFO).and_then(|info| attribute(info, libc::IFLA_INFO_KIND));
        let on_another = get(libc::IFLA_LINK).is_some() && get(libc::IFLA_LINK_NETNSID).is_none();
        Self {
            index: message.word(4),
            name: get(libc::IFLA_IFNAME).map(text).unwrap_or_default(),
            kind: info.map(text),
            flags: message.word(8),
            depends: on_another || get(libc::IFLA_MASTER).is_some(),
        }
    }

    /// Returns whether it is up.
    pub(super) fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Checks that it can be moved to another namespace.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(kind) = &self.kind
            && !MOVABLE.contains(&kind.as_str())
        {
            return Err(self.stays(&format!(
                "it is of the kind {kind:?}, which cannot be moved"
            )));
        }
        if self.depends {
            return Err(self.stays("it depends on another interface of the network"));
        }
        Ok(())
    }

    /// Returns the error for an interface that cannot be moved.
    pub(super) fn stays(&self, why: &str) -> Error {
        Error::refused(format!("the interface {:?}: {why}", self.name))
    }

    /// Moves it from the namespace of `socket` to the one with the descriptor `network`. It is down then.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn shift(&self, socket: &Socket, network: RawFd) -> std::result::Result<(), Errno> {
        let mut message = change(self.index, 0);
        let value = network.to_ne_bytes().to_vec();
        append(&mut message.payload, libc::IFLA_NET_NS_FD, value);
        socket.request(&message, 0)
    }

    /// Sets it up.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn up(&self, socket: &Socket) -> Result<()> {
        up(self.index, socket)
            .map_err(|e| Error::io("set up the interface", format!("{:?}", self.name), e))
    }

    /// Sets up the loopback.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn loopback_up(socket: &Socket) -> Result<()> {
        up(LOOPBACK, socket).map_err(|e| Error::io("set up the interface", "lo", e))
    }
}

fn up(index: u32, socket: &Socket) -> std::result::Result<(), Errno> {
    socket.request(&change(index, libc::IFF_UP as u32), 0)
}

/// Returns the change of an interface that sets `flags`.
fn change(index: u32, flags: u32) -> Message {
    let mut payload = vec![0; HEADER];
    payload[4..8].copy_from_slice(&index.to_ne_bytes());
    payload[8..12].copy_from_slice(&flags.to_ne_bytes());
    payload[12..16].copy_from_slice(&flags.to_ne_bytes());
    Message {
        kind: libc::RTM_NEWLINK,
        payload,
    }
}
