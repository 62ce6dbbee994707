//! Lists and changes of a network namespace by netlink(7) and rtnetlink(7).

use std::cell::Cell;
use std::os::fd::OwnedFd;

use eci_fs_protocol::error::{Error, Result};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind,
    connect, recvfrom, sendto, socket_with,
};

/// The protocol about interfaces, addresses and routes (NETLINK_ROUTE, whose number is 0).
pub(super) const ROUTE: Option<Protocol> = None;

/// The most that the kernel puts into one packet of a list, in bytes.
const PACKET: usize = 64 * 1024;

/// The most entries of one list. An engine makes some tens.
const MAX_ENTRIES: usize = 4096;

/// The number of attempts to read a list that changes while the kernel sends it.
const TRIES: usize = 8;

/// A kind of list that the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// The name of the entries in errors.
    pub(super) what: &'static str,
    /// The type of the request: RTM_GETLINK and others.
    pub(super) get: u16,
    /// The type of each entry, and of the request that makes one: RTM_NEWLINK and others.
    pub(super) new: u16,
}

/// A message about an interface, an address, a route or another part of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The type: RTM_NEWLINK and others.
    pub(super) kind: u16,
    /// The structure of that type, with the attributes behind it, as the kernel sends and takes them.
    pub(super) payload: Vec<u8>,
}

impl Message {
    /// Returns the value of an attribute. `header` is the length of the structure before the attributes.
    pub(super) fn attribute(&self, header: usize, kind: u16) -> Option<&[u8]> {
        attribute(self.payload.get(header..)?, kind)
    }

    /// Returns the byte at a place of the structure.
    pub(super) fn byte(&self, place: usize) -> u8 {
        self.payload.get(place).copied().unwrap_or_default()
    }

    /// Returns the number of 16 bits at a place of the structure.
    pub(super) fn half(&self, place: usize) -> u16 {
        let bytes = self.payload.get(place..).and_then(<[u8]>::first_chunk);
        bytes.copied().map(u16::from_ne_bytes).unwrap_or_default()
    }

    /// Returns the number of 32 bits at a place of the structure.
    pub(super) fn word(&self, place: usize) -> u32 {
        number(self.payload.get(place..)).unwrap_or_default()
    }
}

/// Returns the value of an attribute of a list.
pub(super) fn attribute(list: &[u8], kind: u16) -> Option<&[u8]> {
    let found = NlasIterator::new(list)
        .map_while(std::result::Result::ok)
        .find(|attribute| attribute.kind() == kind)?;
    let end = NLA_HEADER_SIZE + found.value_length();
    found.into_inner().get(NLA_HEADER_SIZE..end)
}

/// Returns the number of 32 bits at the beginning of `bytes`.
pub(super) fn number(bytes: Option<&[u8]>) -> Option<u32> {
    bytes?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// Appends an attribute to a structure with attributes.
pub(super) fn append(payload: &mut Vec<u8>, kind: u16, value: Vec<u8>) {
    let attribute = DefaultNla::new(kind, value);
    let at = payload.len();
    payload.resize(at + attribute.buffer_len(), 0);
    attribute.emit(&mut payload[at..]);
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(
        header: &NetlinkHeader,
        payload: &[u8],
    ) -> std::result::Result<Self, DecodeError> {
        Ok(Self {
            kind: header.message_type,
            payload: payload.to_vec(),
        })
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

/// A socket in one network namespace. Processes of a container may be in that namespace, and may send messages to the
/// socket, so only those of the kernel are read.
#[derive(Debug)]
pub(super) struct Socket {
    descriptor: OwnedFd,
    /// The number of the last request.
    sequence: Cell<u32>,
}

impl Socket {
    /// Opens a socket in the network namespace of this thread. `protocol` is [`ROUTE`] or
    /// one of [`rustix::net::netlink`].
    ///
    /// # Errors
    /// The kernel's: EPROTONOSUPPORT where it does not have the protocol.
    pub(super) fn open(protocol: Option<Protocol>) -> std::result::Result<Self, Errno> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
        let kernel = SocketAddrNetlink::new(0, 0);
        bind(&socket, &kernel)?;
        // The kernel refuses messages of others to a connected socket, so they cannot fill its buffer.
        connect(&socket, &kernel)?;
        Ok(Self {
            descriptor: socket,
            sequence: Cell::new(0),
        })
    }

    /// Returns the list that the kernel sends for a request with the structure `header`. It is empty if the kernel does not
    /// know the request.
    ///
    /// # Errors
    /// The kernel's; for more than [`MAX_ENTRIES`] entries, and for a list that changes at each of [`TRIES`] attempts.
    pub(super) fn list(&self, kind: Kind, header: &[u8]) -> Result<Vec<Message>> {
        let what = kind.what;
        for _ in 0..TRIES {
            match self.try_list(kind, header) {
                Ok(Some(list)) if list.len() <= MAX_ENTRIES => return Ok(list),
                Ok(Some(_)) => {
                    return Err(Error::refused(format!(
                        "the network has more than {MAX_ENTRIES} {what}"
                    )));
                }
                Ok(None) => {}
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::AFNOSUPPORT | Errno::NOENT) => {
                    return Ok(Vec::new());
                }
                Err(errno) => return Err(Error::io("list", what, errno)),
            }
        }
        Err(Error::refused(format!("the {what} change without rest")))
    }

    /// Returns a list; none if it changed meanwhile. Of a list that is too long the first entries are returned, one more
    /// than [`MAX_ENTRIES`].
    fn try_list(
        &self,
        kind: Kind,
        header: &[u8],
    ) -> std::result::Result<Option<Vec<Message>>, Errno> {
        let question = Message {
            kind: kind.get,
            payload: header.to_vec(),
        };
        self.send(&question, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut list = Vec::new();
        let mut whole = true;
        loop {
            for message in self.receive()? {
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    // A list that the kernel could not finish ends with an error.
                    NetlinkPayload::Done(done) if done.code < 0 => return Err(errno(done.code)),
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(list)),
                    NetlinkPayload::Error(error) => return Err(errno(error.raw_code())),
                    NetlinkPayload::InnerMessage(entry) if entry.kind != kind.new => {
                        return Err(Errno::BADMSG);
                    }
                    NetlinkPayload::InnerMessage(entry) if list.len() <= MAX_ENTRIES => {
                        list.push(entry);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Sends a change to the kernel, and waits for its answer. `flags` are NLM_F_CREATE and others.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn request(&self, message: &Message, flags: u16) -> std::result::Result<(), Errno> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        loop {
            for answer in self.receive()? {
                if let NetlinkPayload::Error(error) = answer.payload {
                    return match error.raw_code() {
                        0 => Ok(()),
                        code => Err(errno(code)),
                    };
                }
            }
        }
    }

    fn send(&self, message: &Message, flags: u16) -> std::result::Result<(), Errno> {
        let mut message = NetlinkMessage::new(
            NetlinkHeader::default(),
            NetlinkPayload::InnerMessage(message.clone()),
        );
        message.header.flags = flags;
        self.sequence.set(self.sequence.get().wrapping_add(1));
        message.header.sequence_number = self.sequence.get();
        message.finalize();
        let mut packet = vec![0; message.buffer_len()];
        message.serialize(&mut packet);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.descriptor, &packet, SendFlags::empty(), &kernel).map(drop)
    }

    fn receive(&self) -> std::result::Result<Vec<NetlinkMessage<Message>>, Errno> {
        let mut buffer = vec![0; PACKET];
        let (length, whole, sender) = rustix::io::retry_on_intr(|| {
            recvfrom(&self.descriptor, &mut buffer[..], RecvFlags::TRUNC)
        })?;
        if !is_kernel(sender) {
            return Ok(Vec::new());
        }
        if whole > length {
            return Err(Errno::MSGSIZE);
        }
        answers(&buffer[..length], self.sequence.get())
    }
}

/// Returns whether a packet with this sender is from the kernel.
fn is_kernel(sender: Option<SocketAddrAny>) -> bool {
    let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
    sender.is_some_and(|sender| sender.pid() == 0)
}

/// Returns the messages in a packet that answer the request with the number `sequence`.
fn answers(
    packet: &[u8],
    sequence: u32,
) -> std::result::Result<Vec<NetlinkMessage<Message>>, Errno> {
    let mut rest = packet;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let message = NetlinkMessage::deserialize(rest).map_err(|_| Errno::BADMSG)?;
        let length = NetlinkBuffer::new(rest).length() as usize;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        if message.header.sequence_number == sequence {
            messages.push(message);
        }
    }
    Ok(messages)
}

/// Returns the errno of an answer, which the kernel sends as a negative number.
fn errno(code: i32) -> Errno {
    Errno::from_raw_os_error(code.saturating_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: Kind = Kind {
        what: "interfaces",
        get: libc::RTM_GETLINK,
        new: libc::RTM_NEWLINK,
    };

    fn packet(kind: u16, sequence: u32) -> Vec<u8> {
        let payload = vec![0; 16];
        let inner = NetlinkPayload::InnerMessage(Message { kind, payload });
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), inner);
        message.header.sequence_number = sequence;
        message.finalize();
        let mut packet = vec![0; message.buffer_len()];
        message.serialize(&mut packet);
        packet
    }

    #[test]
    fn only_packets_of_the_kernel_are_read() {
        assert!(is_kernel(Some(SocketAddrNetlink::new(0, 0).into())));
        assert!(!is_kernel(Some(SocketAddrNetlink::new(7, 0).into())));
        assert!(!is_kernel(None));
    }

    #[test]
    fn only_answers_to_the_last_request_are_read() {
        let both = [packet(16, 7), packet(17, 8)].concat();
        let kinds: Vec<u16> = answers(&both, 8)
            .unwrap()
            .iter()
            .map(|message| message.header.message_type)
            .collect();
        assert_eq!(kinds, [17]);
        assert!(answers(&both[..both.len() - 1], 8).is_err());
    }

    #[test]
    fn a_list_with_entries_of_another_type_is_refused() {
        let socket = Socket::open(ROUTE).unwrap();
        assert!(!socket.list(LINKS, &[0; 16]).unwrap().is_empty());
        let strange = Kind {
            new: libc::RTM_NEWROUTE,
            ..LINKS
        };
        socket.list(strange, &[0; 16]).unwrap_err();
    }

    #[test]
    fn privileged_the_kernel_refuses_packets_of_others() {
        let socket = Socket::open(ROUTE).unwrap();
        let name = rustix::net::getsockname(&socket.descriptor).unwrap();
        let other = Socket::open(ROUTE).unwrap();
        let flags = SendFlags::empty();
        let sent = sendto(&other.descriptor, &packet(16, 1), flags, &name);
        assert_eq!(sent, Err(Errno::CONNREFUSED));
    }
}
