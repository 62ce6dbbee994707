//! Lists and changes of a network namespace by netlink(7) and rtnetlink(7).

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
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto,
    socket_with,
};

/// The protocol about interfaces, addresses and routes (NETLINK_ROUTE, whose number is 0).
pub(super) const ROUTE: Option<Protocol> = None;

/// The most that the kernel puts into one packet of a list, in bytes.
const PACKET: usize = 64 * 1024;

/// The most entries of one list. An engine makes some tens.
const MAX_ENTRIES: usize = 4096;

/// The number of attempts to read a list that changes while the kernel sends it.
const TRIES: usize = 8;

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

/// A socket in one network namespace.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket in the network namespace of this thread. `protocol` is [`ROUTE`] or
    /// one of [`rustix::net::netlink`].
    ///
    /// # Errors
    /// The kernel's: EPROTONOSUPPORT where it does not have the protocol.
    pub(super) fn open(protocol: Option<Protocol>) -> std::result::Result<Self, Errno> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Returns the list that the kernel sends for a request of the type `kind` with the structure `header`. It is empty if
    /// the kernel does not know the request. `what` names the entries in errors.
    ///
    /// # Errors
    /// The kernel's; for more than [`MAX_ENTRIES`] entries, and for a list that changes at each of [`TRIES`] attempts.
    pub(super) fn list(&self, what: &str, kind: u16, header: &[u8]) -> Result<Vec<Message>> {
        let question = Message {
            kind,
            payload: header.to_vec(),
        };
        for _ in 0..TRIES {
            match self.try_list(&question) {
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
    fn try_list(&self, question: &Message) -> std::result::Result<Option<Vec<Message>>, Errno> {
        self.send(question, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut list = Vec::new();
        let mut whole = true;
        loop {
            for message in self.receive()? {
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(list)),
                    NetlinkPayload::Error(error) => return Err(errno(error.raw_code())),
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
        message.finalize();
        let mut packet = vec![0; message.buffer_len()];
        message.serialize(&mut packet);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.0, &packet, SendFlags::empty(), &kernel).map(drop)
    }

    fn receive(&self) -> std::result::Result<Vec<NetlinkMessage<Message>>, Errno> {
        let mut buffer = vec![0; PACKET];
        let (length, whole) =
            rustix::io::retry_on_intr(|| recv(&self.0, &mut buffer[..], RecvFlags::TRUNC))?;
        if whole > length {
            return Err(Errno::MSGSIZE);
        }
        let mut rest = &buffer[..length];
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::deserialize(rest).map_err(|_| Errno::BADMSG)?;
            let length = NetlinkBuffer::new(rest).length() as usize;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            messages.push(message);
        }
        Ok(messages)
    }
}

/// Returns the errno of an answer, which the kernel sends as a negative number.
fn errno(code: i32) -> Errno {
    Errno::from_raw_os_error(code.saturating_neg())
}
