//! A request of the kernel as a value: for which container, what is to be done, and the way back of the answer.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::time::Duration;

use eci_fs_protocol::link::Connection;

use super::attr::{Attr, Listing};
use super::permission::Caller;
use super::snapshots::Opened;
use crate::server::error::Errno;
use crate::server::ids::{Handle, NodeId, Request};
use crate::server::psi::Polled;

/// The way back of an answer.
pub trait Reply<T>: Debug + Send + 'static {
    /// Sends the answer to the kernel.
    fn send(self, answer: Result<T, Errno>);
}

/// The ways back of all answers, as one adapter has them.
pub trait Replies: Debug + 'static {
    /// Of a lookup: the attributes, and for how long the kernel may believe the name. It asks for the attributes again
    /// before it uses them.
    type Entry: Reply<(Attr, Duration)>;
    /// Of a GETATTR or SETATTR: the attributes, and for how long the kernel may believe them.
    type Attr: Reply<(Attr, Duration)>;
    /// Of an OPEN.
    type Open: Reply<Opened>;
    /// Of a READ or READLINK: the bytes.
    type Data: for<'a> Reply<&'a [u8]>;
    /// Of a READDIR: all entries.
    type Entries: Reply<Listing>;
    /// Of a WRITE: the number of bytes that were taken.
    type Written: Reply<usize>;
    /// Of a POLL.
    type Poll: Reply<Polled>;
    /// Of a RELEASE.
    type Released: Reply<()>;
}

/// The operation of a request, with its arguments and the way back of its answer. Numbers are those of the kernel.
#[derive(Debug)]
#[allow(missing_docs, reason = "the arguments are those of the FUSE protocol")]
pub enum Operation<'a, R: Replies> {
    Lookup {
        name: Cow<'a, OsStr>,
        reply: R::Entry,
    },
    Attr {
        handle: Option<Handle>,
        reply: R::Attr,
    },
    SetAttr {
        handle: Option<Handle>,
        /// True if the owner, the group or the permission bits are to be changed.
        is_access: bool,
        reply: R::Attr,
    },
    ReadLink {
        reply: R::Data,
    },
    Open {
        caller: Caller,
        flags: i32,
        request: Request,
        reply: R::Open,
    },
    Read {
        handle: Handle,
        /// The flags of the open file.
        flags: i32,
        offset: u64,
        size: u32,
        reply: R::Data,
    },
    Write {
        handle: Handle,
        caller: Caller,
        flags: i32,
        offset: u64,
        bytes: Cow<'a, [u8]>,
        request: Request,
        reply: R::Written,
    },
    Poll {
        handle: Handle,
        /// The number by which the kernel wants to be woken.
        wake: Option<u64>,
        reply: R::Poll,
    },
    Release {
        handle: Handle,
        reply: R::Released,
    },
    Entries {
        reply: R::Entries,
    },
}

/// A request.
#[derive(Debug)]
pub struct FsRequest<'a, R: Replies> {
    /// The connection that it came by.
    pub connection: Connection,
    /// The slot of the container that makes it; 0, which nobody has, for the root of a connection.
    pub slot: u64,
    /// The node that it is about.
    pub id: NodeId,
    /// The operation on that.
    pub operation: Operation<'a, R>,
}

impl<'a, R: Replies> FsRequest<'a, R> {
    /// Makes a request of an operation on a node.
    pub fn new(connection: Connection, id: NodeId, operation: Operation<'a, R>) -> Self {
        Self {
            connection,
            slot: id.slot(),
            id,
            operation,
        }
    }

    /// Returns the request with copies of what it borrows, so that it can wait in a queue.
    pub fn into_owned(self) -> FsRequest<'static, R> {
        FsRequest {
            connection: self.connection,
            slot: self.slot,
            id: self.id,
            operation: self.operation.into_owned(),
        }
    }
}

impl<R: Replies> Operation<'_, R> {
    /// Answers with an error.
    pub(super) fn refuse(self, errno: Errno) {
        match self {
            Self::Lookup { reply, .. } => reply.send(Err(errno)),
            Self::Attr { reply, .. } | Self::SetAttr { reply, .. } => reply.send(Err(errno)),
            Self::Open { reply, .. } => reply.send(Err(errno)),
            Self::ReadLink { reply } | Self::Read { reply, .. } => reply.send(Err(errno)),
            Self::Write { reply, .. } => reply.send(Err(errno)),
            Self::Poll { reply, .. } => reply.send(Err(errno)),
            Self::Release { reply, .. } => reply.send(Err(errno)),
            Self::Entries { reply } => reply.send(Err(errno)),
        }
    }

    fn into_owned(self) -> Operation<'static, R> {
        match self {
            Self::Lookup { name, reply } => Operation::Lookup {
                name: Cow::Owned(name.into_owned()),
                reply,
            },
            Self::Attr { handle, reply } => Operation::Attr { handle, reply },
            Self::SetAttr {
                handle,
                is_access,
                reply,
            } => Operation::SetAttr {
                handle,
                is_access,
                reply,
            },
            Self::ReadLink { reply } => Operation::ReadLink { reply },
            Self::Open {
                caller,
                flags,
                request,
                reply,
            } => Operation::Open {
                caller,
                flags,
                request,
                reply,
            },
            Self::Read {
                handle,
                flags,
                offset,
                size,
                reply,
            } => Operation::Read {
                handle,
                flags,
                offset,
                size,
                reply,
            },
            Self::Write {
                handle,
                caller,
                flags,
                offset,
                bytes,
                request,
                reply,
            } => Operation::Write {
                handle,
                caller,
                flags,
                offset,
                bytes: Cow::Owned(bytes.into_owned()),
                request,
                reply,
            },
            Self::Poll {
                handle,
                wake,
                reply,
            } => Operation::Poll {
                handle,
                wake,
                reply,
            },
            Self::Release { handle, reply } => Operation::Release { handle, reply },
            Self::Entries { reply } => Operation::Entries { reply },
        }
    }
}
