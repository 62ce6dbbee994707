//! The contents of a network namespace that an engine made: interfaces, their addresses, routes, neighbours and rules.
//!
//! Each is kept as the message that the kernel sends, and is sent to the kernel again in the other namespace, as
//! `ip route save` and `ip route restore` do. An interface keeps its number, so nothing has to be translated.

use std::os::fd::{AsFd, AsRawFd};

use eci_fs_protocol::error::{Error, Result};
use netlink_packet_core::{NLA_F_NESTED, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NlasIterator};
use rustix::io::Errno;

use super::link::Link;
use super::netlink::{Kind, Message, Socket, append, number};

/// The families of addresses.
const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];

/// The lists of what is kept.
const ADDRESSES: Kind = Kind {
    what: "addresses",
    get: libc::RTM_GETADDR,
    new: libc::RTM_NEWADDR,
};
const ROUTES: Kind = Kind {
    what: "routes",
    get: libc::RTM_GETROUTE,
    new: libc::RTM_NEWROUTE,
};
const NEIGHBOURS: Kind = Kind {
    what: "neighbours",
    get: libc::RTM_GETNEIGH,
    new: libc::RTM_NEWNEIGH,
};
const RULES: Kind = Kind {
    what: "rules",
    get: libc::RTM_GETRULE,
    new: libc::RTM_NEWRULE,
};
const QUEUES: Kind = Kind {
    what: "queues",
    get: libc::RTM_GETQDISC,
    new: libc::RTM_NEWQDISC,
};

/// The lengths of the structures before the attributes, in bytes: ifaddrmsg, rtmsg, ndmsg, fib_rule_hdr, tcmsg.
const ADDRESS: usize = 8;
const ROUTE: usize = 12;
const NEIGHBOUR: usize = 12;
const RULE: usize = 12;
const QUEUE: usize = 20;

/// The number of passes over the routes: a route by a gateway can be added when the route to that gateway is there.
const PASSES: usize = 8;

/// The origins of routes that come again by themselves: the kernel, a redirect, an advertisement of a router.
const BY_THEMSELVES: [u8; 3] = [libc::RTPROT_KERNEL, libc::RTPROT_REDIRECT, ADVERTISED];

/// The origin of a route from an advertisement of a router (RTPROT_RA).
const ADVERTISED: u8 = 9;

/// The attribute of a rule with its origin (FRA_PROTOCOL).
const RULE_PROTOCOL: u16 = 21;

/// The attribute of a route that names an object of its own for the next hop (RTA_NH_ID).
const NEXT_HOP_OBJECT: u16 = 30;

/// The flags of a next hop that can be set (RTNH_F_ONLINK). The others are its present state.
const GIVEN_FLAGS: u8 = 4;

/// The contents of a network namespace.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The interfaces, without those that every namespace has.
    links: Vec<Link>,
    /// True if the loopback is up.
    loopback: bool,
    addresses: Vec<Message>,
    routes: Vec<Message>,
    neighbours: Vec<Message>,
    rules: Vec<Message>,
}

impl Contents {
    /// Reads the contents of the namespace of `socket`. `fresh` is a socket in a new namespace.
    ///
    /// # Errors
    /// When something is there that cannot be moved, and the kernel's.
    pub(super) fn read(socket: &Socket, fresh: &Socket) -> Result<Self> {
        let everywhere = Link::list(fresh)?;
        let all = Link::list(socket)?;
        let is_everywhere = |link: &Link| {
            let same = |other: &Link| other.name == link.name && other.kind == link.kind;
            everywhere.iter().any(same)
        };
        let loopback = all.iter().any(|link| link.name == "lo" && link.is_up());
        let (fixed, links): (Vec<Link>, Vec<Link>) = all.into_iter().partition(is_everywhere);
        for link in fixed.iter().filter(|link| link.name != "lo") {
            if link.is_up() {
                return Err(link.stays("it cannot be moved, and is in use"));
            }
        }
        for link in &links {
            link.check()?;
            if everywhere.iter().any(|other| other.index == link.index) {
                return Err(link.stays("its number is taken in every namespace"));
            }
        }
        let mut this = Self {
            links,
            loopback,
            ..Self::default()
        };
        this.check_queues(socket)?;
        for family in FAMILIES {
            let question = |length: usize| {
                let mut header = vec![0; length];
                header[0] = family;
                header
            };
            let list = |kind, length| socket.list(kind, &question(length));
            this.addresses.extend(list(ADDRESSES, ADDRESS)?);
            this.routes.extend(list(ROUTES, ROUTE)?);
            this.rules.extend(list(RULES, RULE)?);
            this.neighbours.extend(list(NEIGHBOURS, NEIGHBOUR)?);
            let mut proxies = question(NEIGHBOUR);
            proxies[10] = libc::NTF_PROXY;
            this.neighbours.extend(socket.list(NEIGHBOURS, &proxies)?);
        }
        this.addresses.retain(is_lasting);
        this.routes
            .retain(|route| !BY_THEMSELVES.contains(&route.byte(5)));
        if this
            .routes
            .iter()
            .any(|route| route.attribute(ROUTE, NEXT_HOP_OBJECT).is_some())
        {
            return Err(Error::refused(
                "a route of the network has an object of its own for its next hop",
            ));
        }
        // Those to the network of an interface come first.
        this.routes.sort_by_key(|route| {
            let gateway = [libc::RTA_GATEWAY, libc::RTA_VIA, libc::RTA_MULTIPATH];
            gateway
                .iter()
                .any(|kind| route.attribute(ROUTE, *kind).is_some())
        });
        this.neighbours.retain(|neighbour| {
            let state = neighbour.half(8);
            state & libc::NUD_PERMANENT != 0 || neighbour.byte(10) & libc::NTF_PROXY != 0
        });
        this.rules.retain(|rule| {
            let maker = rule.attribute(RULE, RULE_PROTOCOL);
            maker.and_then(<[u8]>::first) != Some(&libc::RTPROT_KERNEL)
        });
        Ok(this)
    }

    /// Refuses queueing disciplines: they shape the traffic of an interface, and do not move with it.
    fn check_queues(&self, socket: &Socket) -> Result<()> {
        let queues = socket.list(QUEUES, &[0; QUEUE])?;
        for link in &self.links {
            // One without a handle is the kernel's own.
            if queues
                .iter()
                .any(|queue| queue.word(4) == link.index && queue.word(8) != 0)
            {
                return Err(link.stays("it has a queueing discipline, which would be lost"));
            }
        }
        Ok(())
    }

    /// Moves all interfaces. If one cannot be moved, none is.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn shift(&self, from: (&Socket, impl AsFd), to: (&Socket, impl AsFd)) -> Result<()> {
        for (place, link) in self.links.iter().enumerate() {
            let moved = link.shift(from.0, to.1.as_fd().as_raw_fd());
            if let Err(errno) = moved {
                let back = from.1.as_fd().as_raw_fd();
                for moved in &self.links[..place] {
                    // If this fails, it ends with its namespace, and the engine does not miss it.
                    let _ = moved.shift(to.0, back);
                }
                return Err(link.stays(&format!(
                    "it cannot be moved: {}",
                    std::io::Error::from(errno)
                )));
            }
        }
        Ok(())
    }

    /// Moves all interfaces back, so that the engine finds and removes them.
    ///
    /// # Errors
    /// The last one of the kernel's. All others are moved.
    pub(super) fn shift_back(&self, from: &Socket, to: impl AsFd) -> Result<()> {
        let mut done = Ok(());
        for link in &self.links {
            if let Err(errno) = link.shift(from, to.as_fd().as_raw_fd()) {
                done = Err(link.stays(&format!(
                    "it cannot be moved back: {}",
                    std::io::Error::from(errno)
                )));
            }
        }
        done
    }

    /// Makes everything but the interfaces in the namespace of `socket`, to which these were moved.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn restore(&self, socket: &Socket) -> Result<()> {
        if self.loopback {
            Link::loopback_up(socket)?;
        }
        for address in &self.addresses {
            let flags = NLM_F_CREATE | NLM_F_EXCL;
            made(
                socket.request(&without_detection(address), flags),
                "an address",
            )?;
        }
        for link in self.links.iter().filter(|link| link.is_up()) {
            link.up(socket)?;
        }
        let mut routes: Vec<Message> = self.routes.iter().map(given).collect();
        for _ in 0..PASSES {
            routes.retain(|route| made_route(socket, route).is_err());
        }
        if let Some(route) = routes.first() {
            made_route(socket, route)?;
        }
        for neighbour in &self.neighbours {
            let message = only(neighbour, NEIGHBOUR, &[libc::NDA_DST, libc::NDA_LLADDR]);
            made(
                socket.request(&message, NLM_F_CREATE | NLM_F_EXCL),
                "a neighbour",
            )?;
        }
        for rule in &self.rules {
            made(socket.request(rule, NLM_F_CREATE | NLM_F_EXCL), "a rule")?;
        }
        Ok(())
    }
}

/// Returns true if an address was set, and does not come from an advertisement of a router.
fn is_lasting(address: &Message) -> bool {
    let flags = number(address.attribute(ADDRESS, libc::IFA_FLAGS));
    let flags = flags.unwrap_or_else(|| address.byte(2).into());
    address.byte(0) == FAMILIES[0] || flags & libc::IFA_F_PERMANENT != 0
}

/// Returns the address as it is set in the new namespace. If IPv6 has looked for duplicates of it before, the kernel does
/// not look again.
fn without_detection(address: &Message) -> Message {
    let flags = number(address.attribute(ADDRESS, libc::IFA_FLAGS));
    let is_open = libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED;
    let Some(flags) = flags.filter(|flags| flags & is_open == 0) else {
        return address.clone();
    };
    if address.byte(0) != FAMILIES[1] {
        return address.clone();
    }
    let flags = flags | libc::IFA_F_NODAD;
    changed(address, ADDRESS, |kind, value| {
        let flags = flags.to_ne_bytes();
        Some(if kind == libc::IFA_FLAGS {
            flags.to_vec()
        } else {
            value.to_vec()
        })
    })
}

/// Returns a route without the flags that are the present state of its next hops.
fn given(route: &Message) -> Message {
    let mut route = changed(route, ROUTE, |kind, value| {
        let mut value = value.to_vec();
        if kind == libc::RTA_MULTIPATH {
            // A list of rtnexthop: its length in two bytes, and then its flags.
            let mut at = 0;
            while let Some([low, high, flags]) = value.get_mut(at..at + 3) {
                *flags &= GIVEN_FLAGS;
                let length = usize::from(u16::from_ne_bytes([*low, *high]));
                at += length.next_multiple_of(4).max(4);
            }
        }
        Some(value)
    });
    let flags = route.word(8) & u32::from(GIVEN_FLAGS);
    route.payload[8..ROUTE].copy_from_slice(&flags.to_ne_bytes());
    route
}

fn made_route(socket: &Socket, route: &Message) -> Result<()> {
    let flags = NLM_F_CREATE | NLM_F_APPEND;
    made(socket.request(route, flags), "a route")
}

/// Returns the result of a request that makes something. EEXIST is no error, because the kernel makes some by itself.
fn made(result: std::result::Result<(), Errno>, what: &str) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::io("make again", what, errno)),
    }
}

/// Returns a message with some of its attributes.
fn only(message: &Message, header: usize, kinds: &[u16]) -> Message {
    changed(message, header, |kind, value| {
        kinds.contains(&kind).then(|| value.to_vec())
    })
}

/// Returns a message with the values that `change` gives its attributes; those without a value are left out.
fn changed(
    message: &Message,
    header: usize,
    change: impl Fn(u16, &[u8]) -> Option<Vec<u8>>,
) -> Message {
    let (head, list) = message.payload.split_at(header.min(message.payload.len()));
    let mut payload = head.to_vec();
    for attribute in NlasIterator::new(list).map_while(std::result::Result::ok) {
        if let Some(value) = change(attribute.kind(), attribute.value()) {
            let nested = if attribute.nested_flag() {
                NLA_F_NESTED
            } else {
                0
            };
            append(&mut payload, attribute.kind() | nested, value);
        }
    }
    Message {
        kind: message.kind,
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(header: &[u8], attributes: &[(u16, &[u8])]) -> Message {
        let mut payload = header.to_vec();
        for (kind, value) in attributes {
            append(&mut payload, *kind, value.to_vec());
        }
        Message { kind: 1, payload }
    }

    #[test]
    fn a_route_is_set_without_the_flags_of_its_present_state() {
        // A flag for a next hop whose interface has no carrier (16), and one for a gateway that is on the link (4).
        let hops = [8, 0, 20, 1, 2, 0, 0, 0, 8, 0, 16, 1, 3, 0, 0, 0];
        let mut header = [0; ROUTE];
        header[8..].copy_from_slice(&20_u32.to_ne_bytes());
        let metrics = libc::RTA_METRICS | NLA_F_NESTED;
        let route = message(
            &header,
            &[(libc::RTA_MULTIPATH, &hops), (metrics, &[1, 2, 3])],
        );
        let told = given(&route);
        assert_eq!(told.word(8), 4);
        let told_hops = told.attribute(ROUTE, libc::RTA_MULTIPATH).unwrap();
        assert_eq!((told_hops[2], told_hops[10]), (4, 0));
        // The rest is as it was, padding and the flag of a nested list too.
        assert_eq!(told.payload[ROUTE + 20..], route.payload[ROUTE + 20..]);
        // Lengths that are none end the list.
        for hops in [&[0, 0, 16][..], &[255, 255, 16, 0], &[]] {
            given(&message(&header, &[(libc::RTA_MULTIPATH, hops)]));
        }
    }

    #[test]
    fn duplicates_of_an_address_are_looked_for_only_if_that_was_not_done() {
        let flags = |family: u8, flags: u32| {
            let mut header = [0; ADDRESS];
            header[0] = family;
            let address = message(&header, &[(libc::IFA_FLAGS, &flags.to_ne_bytes())]);
            number(without_detection(&address).attribute(ADDRESS, libc::IFA_FLAGS)).unwrap()
        };
        let [four, six] = FAMILIES;
        let lasting = libc::IFA_F_PERMANENT;
        assert_eq!(flags(six, lasting), lasting | libc::IFA_F_NODAD);
        assert_eq!(flags(four, lasting), lasting);
        for open in [libc::IFA_F_TENTATIVE, libc::IFA_F_DADFAILED] {
            assert_eq!(flags(six, lasting | open), lasting | open);
        }
        let mut header = [0; ADDRESS];
        header[0] = six;
        let temporary = message(&header, &[(libc::IFA_FLAGS, &1_u32.to_ne_bytes())]);
        assert!(!is_lasting(&temporary));
    }
}
