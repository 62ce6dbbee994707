//! `fuser::Filesystem` over [`Tree`]: unpack a request, ask the tree, pack the answer. No decisions here, but for
//! the flags that make a connection cached or live.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eci_fs_protocol::link::Connection;
use fuser::{
    FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};

use super::convert::{caller, file_attr, file_type, fuse_errno, numbered};
use super::refused::refused;
use super::session::Means;
use crate::server::error::Errno;
use crate::server::faults::{self, Point};
use crate::server::fs::{Attr, Opened, Tree, Write};
use crate::server::ids::{Handle, NodeId};
use crate::server::psi::{Done, Polled};

/// Bytes of a write request that are accepted. Nothing that can be written here is longer than a page.
const MAX_WRITE: u32 = 4096;

/// One connection.
#[derive(Debug)]
pub(super) struct Adapter {
    means: Means,
    connection: Connection,
}

impl Adapter {
    pub(super) fn new(means: &Means, connection: Connection) -> Self {
        Self {
            means: means.clone(),
            connection,
        }
    }

    /// Answer here, or by a worker where that may block. A request that finds its container's queue full is dropped,
    /// which answers EIO.
    fn answer(&self, id: NodeId, work: impl FnOnce(&Tree) + Send + 'static) {
        faults::at(Point::Request);
        if !Tree::may_block(id) {
            return work(&self.means.tree);
        }
        let tree = Arc::clone(&self.means.tree);
        let taken = self.means.unanswered.take();
        let job = Box::new(move || {
            work(&tree);
            drop(taken);
        });
        if self.means.workers.run(id.slot(), job).is_err() {
            tracing::warn!(
                slot = id.slot(),
                "too many of its requests wait; one is refused"
            );
        }
    }
}

fn attr(
    tree: &Tree,
    connection: Connection,
    id: NodeId,
    handle: Option<FileHandle>,
) -> Result<(Attr, Duration), Errno> {
    match connection {
        Connection::Cached => tree.cached_attr(id, handle.is_some()),
        Connection::Live => {
            let handle = handle.map(|handle| Handle(handle.0));
            let attr = tree.live_attr(id, handle)?;
            Ok((attr, tree.live_timeout(&attr)))
        }
    }
}

fn bytes(
    tree: &Tree,
    connection: Connection,
    id: NodeId,
    handle: FileHandle,
    offset: u64,
) -> Result<Arc<[u8]>, Errno> {
    match connection {
        Connection::Cached => tree.cached_read(id),
        Connection::Live => tree.live_read(id, Handle(handle.0), offset),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // A kernel that lacks one of these works without it: lookups are serialised, or pages are dropped at
        // their next use and not at once.
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
        let (parent, connection) = (NodeId::from_raw(parent.0), self.connection);
        let name = name.to_str().map(str::to_owned);
        self.answer(parent, move |tree| {
            let found = name
                .ok_or(Errno::NOENT)
                .and_then(|name| tree.lookup(connection, parent, &name))
                .and_then(|id| tree.looked_up(id));
            match found {
                Ok((attr, timeout)) => reply.entry(&timeout, &file_attr(&attr), Generation(0)),
                Err(errno) => reply.error(fuse_errno(errno)),
            }
        });
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
        let (id, connection) = (NodeId::from_raw(id.0), self.connection);
        self.answer(id, move |tree| match attr(tree, connection, id, handle) {
            Ok((attr, timeout)) => reply.attr(&timeout, &file_attr(&attr)),
            Err(errno) => reply.error(fuse_errno(errno)),
        });
    }

    fn readlink(&self, _request: &Request, id: INodeNo, reply: ReplyData) {
        match self.means.tree.read_link(NodeId::from_raw(id.0)) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(fuse_errno(errno)),
        }
    }

    fn open(&self, request: &Request, id: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.connection == Connection::Cached {
            // The kernel then stops sending OPEN and RELEASE on this connection, for good.
            return reply.error(fuse_errno(Errno::NOSYS));
        }
        let (id, caller) = (NodeId::from_raw(id.0), caller(request));
        let request = numbered(request);
        self.answer(id, move |tree| {
            let judged = tree.tunable_open(id, caller, flags.0);
            let opened = judged.and_then(|opened| match opened {
                Some(opened) => Ok(opened),
                None => tree.live_open(id, request).map(Opened::Direct),
            });
            match opened {
                Ok(opened) => {
                    let flags = match opened {
                        Opened::Direct(_) => FopenFlags::FOPEN_DIRECT_IO,
                        Opened::Paged { keep: true } => FopenFlags::FOPEN_KEEP_CACHE,
                        Opened::Paged { keep: false } => FopenFlags::empty(),
                    };
                    let handle = FileHandle(opened.handle().0);
                    reply.opened(handle, flags | FopenFlags::FOPEN_NOFLUSH);
                }
                Err(errno) => reply.error(fuse_errno(errno)),
            }
        });
    }

    fn read(
        &self,
        _request: &Request,
        id: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (id, connection) = (NodeId::from_raw(id.0), self.connection);
        self.answer(id, move |tree| {
            match bytes(tree, connection, id, handle, offset) {
                Ok(bytes) => {
                    let start = usize::try_from(offset)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    let end = start.saturating_add(size as usize).min(bytes.len());
                    reply.data(&bytes[start..end]);
                }
                Err(errno) => reply.error(fuse_errno(errno)),
            }
        });
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
        let length = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        let (id, handle) = (NodeId::from_raw(id.0), Handle(handle.0));
        let write = Write {
            caller: caller(request),
            flags: flags.0,
            offset,
            bytes: data,
        };
        if Tree::may_block(id) {
            let (bytes, caller) = (data.to_vec(), write.caller);
            return self.answer(id, move |tree| {
                let write = Write {
                    caller,
                    flags: flags.0,
                    offset,
                    bytes: &bytes,
                };
                match tree.namespaced_write(id, handle, write) {
                    Ok(taken) => reply.written(length(taken)),
                    Err(errno) => reply.error(fuse_errno(errno)),
                }
            });
        }
        let tree = &self.means.tree;
        match tree.tunable_write(id, handle, write) {
            Some(Ok(written)) => {
                if written.is_distrusted {
                    self.means.kernel.distrust(self.connection, id);
                }
                let bytes = match written.answer {
                    Ok(bytes) => bytes,
                    Err(errno) => return reply.error(fuse_errno(errno)),
                };
                if !tree.is_raised(id) {
                    return reply.written(length(bytes));
                }
                let taken = self.means.unanswered.take();
                let answer = move || {
                    reply.written(length(bytes));
                    drop(taken);
                };
                return tree.tell(id, Box::new(answer));
            }
            Some(Err(errno)) => return reply.error(fuse_errno(errno)),
            None => {}
        }
        let all = length(data.len());
        let taken = self.means.unanswered.take();
        let done: Done = Box::new(move |result| {
            match result {
                Ok(()) => reply.written(all),
                Err(errno) => reply.error(fuse_errno(errno)),
            }
            drop(taken);
        });
        match self.connection {
            Connection::Cached => done(Err(Errno(libc::EROFS))),
            Connection::Live => tree.live_write(id, handle, data, numbered(request), done),
        }
    }

    fn setattr(
        &self,
        request: &Request,
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
        // Shells open with O_TRUNC, which procfs takes and does nothing about; who the owner is, and what he may
        // do, is not a container's to change.
        if mode.is_some() || uid.is_some() || gid.is_some() {
            return reply.error(fuser::Errno::from_i32(libc::EPERM));
        }
        self.getattr(request, id, handle, reply);
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
        let poll = wants.then_some(notifier.handle().0);
        let polled = match self.connection {
            Connection::Cached => None,
            Connection::Live => {
                self.means
                    .tree
                    .live_poll(NodeId::from_raw(id.0), Handle(handle.0), poll)
            }
        };
        // DEFAULT_POLLMASK, and what psi_trigger_poll adds to it.
        let ready = PollEvents::POLLIN
            | PollEvents::POLLOUT
            | PollEvents::POLLRDNORM
            | PollEvents::POLLWRNORM;
        reply.poll(match polled {
            None | Some(Polled::Quiet) => ready,
            Some(Polled::Fired) => ready | PollEvents::POLLPRI,
            Some(Polled::Error) => ready | PollEvents::POLLERR | PollEvents::POLLPRI,
        });
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
        self.means
            .tree
            .live_release(NodeId::from_raw(id.0), Handle(handle.0));
        reply.ok();
    }

    fn readdir(
        &self,
        _request: &Request,
        id: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let (id, connection) = (NodeId::from_raw(id.0), self.connection);
        self.answer(id, move |tree| {
            let entries = match tree.entries(connection, id) {
                Ok(entries) => entries,
                Err(errno) => return reply.error(fuse_errno(errno)),
            };
            let dots = [
                (id.raw(), FileType::Directory, "."),
                (id.raw(), FileType::Directory, ".."),
            ];
            let all = dots.into_iter().chain(
                entries
                    .iter()
                    .map(|entry| (entry.id.raw(), file_type(entry.kind), entry.name.as_str())),
            );
            let skip = usize::try_from(offset).unwrap_or(usize::MAX);
            for (index, (id, kind, name)) in all.enumerate().skip(skip) {
                if reply.add(INodeNo(id), index as u64 + 1, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    refused!();

    fn statfs(&self, _request: &Request, _id: INodeNo, reply: ReplyStatfs) {
        // As procfs answers: no blocks, no inodes, names of 255 bytes (simple_statfs).
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }
}
