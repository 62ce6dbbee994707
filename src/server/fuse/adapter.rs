//! `fuser::Filesystem` over the [`Dispatcher`]: each request is made a value and handed over. No decisions here.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use eci_fs_protocol::link::Connection;
use fuser::{
    FileHandle, Filesystem, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, PollEvents,
    PollFlags, PollNotifier, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::convert::{caller, numbered};
use super::refused::refused;
use super::reply::{DirectoryReply, FuseReplies};
use crate::server::fs::{Dispatcher, FsRequest, Operation};
use crate::server::ids::{Handle, NodeId};

/// The most bytes of a write request that are accepted. Nothing that can be written here is longer than a page.
const MAX_WRITE: u32 = 4096;

/// One connection.
#[derive(Debug)]
pub(super) struct Adapter {
    dispatcher: Arc<Dispatcher>,
    connection: Connection,
}

impl Adapter {
    pub(super) fn new(dispatcher: Arc<Dispatcher>, connection: Connection) -> Self {
        Self {
            dispatcher,
            connection,
        }
    }

    fn submit(&self, id: INodeNo, operation: Operation<'_, FuseReplies>) {
        let id = NodeId::from_raw(id.0);
        self.dispatcher
            .submit(FsRequest::new(self.connection, id, operation));
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // A kernel that lacks one of these works without it: lookups are serialised, or pages are dropped at their next
        // use and not at once.
        let wanted = InitFlags::FUSE_AUTO_INVAL_DATA | InitFlags::FUSE_PARALLEL_DIROPS;
        for flag in wanted.iter() {
            if config.add_capabilities(flag).is_err() {
                tracing::warn!(
                    ?flag,
                    connection = self.connection.name(),
                    "the kernel lacks a FUSE feature, ignoring"
                );
            }
        }
        config
            .set_max_write(MAX_WRITE)
            .map(drop)
            .map_err(|nearest| {
                io::Error::other(format!("the FUSE library wants writes of {nearest} bytes"))
            })
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.submit(
            parent,
            Operation::Lookup {
                name: Cow::Borrowed(name),
                reply,
            },
        );
    }

    fn forget(&self, _request: &Request, _id: INodeNo, _lookups: u64) {
        // Node ids are computed: there is nothing to forget.
    }

    fn getattr(
        &self,
        _request: &Request,
        id: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.submit(
            id,
            Operation::Attr {
                handle: handle.map(|handle| Handle(handle.0)),
                reply,
            },
        );
    }

    fn readlink(&self, _request: &Request, id: INodeNo, reply: ReplyData) {
        self.submit(id, Operation::ReadLink { reply });
    }

    fn open(&self, request: &Request, id: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.submit(
            id,
            Operation::Open {
                caller: caller(request),
                flags: flags.0,
                request: numbered(request),
                reply,
            },
        );
    }

    fn read(
        &self,
        _request: &Request,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.submit(
            id,
            Operation::Read {
                handle: Handle(handle.0),
                flags: flags.0,
                offset,
                size,
                reply,
            },
        );
    }

    fn write(
        &self,
        request: &Request,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.submit(
            id,
            Operation::Write {
                handle: Handle(handle.0),
                caller: caller(request),
                flags: flags.0,
                offset,
                bytes: Cow::Borrowed(data),
                request: numbered(request),
                reply,
            },
        );
    }

    fn setattr(
        &self,
        _request: &Request,
        id: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.submit(
            id,
            Operation::SetAttr {
                handle: handle.map(|handle| Handle(handle.0)),
                is_access: mode.is_some() || uid.is_some() || gid.is_some(),
                reply,
            },
        );
    }

    fn poll(
        &self,
        _request: &Request,
        id: INodeNo,
        handle: FileHandle,
        notifier: PollNotifier,
        _events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let wants = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY);
        self.submit(
            id,
            Operation::Poll {
                handle: Handle(handle.0),
                wake: wants.then_some(notifier.handle().0),
                reply,
            },
        );
    }

    fn release(
        &self,
        _request: &Request,
        id: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.submit(
            id,
            Operation::Release {
                handle: Handle(handle.0),
                reply,
            },
        );
    }

    fn readdir(
        &self,
        _request: &Request,
        id: INodeNo,
        _handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let reply = DirectoryReply { offset, reply };
        self.submit(id, Operation::Entries { reply });
    }

    refused!();

    fn statfs(&self, _request: &Request, _id: INodeNo, reply: ReplyStatfs) {
        // The answer of procfs: no blocks, no inodes, names of 255 bytes (simple_statfs).
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }
}
