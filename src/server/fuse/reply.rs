//! The ways back of answers, as the FUSE library has them.

use std::time::Duration;

use fuser::{
    FileHandle, FileType, FopenFlags, Generation, INodeNo, PollEvents, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyPoll, ReplyWrite,
};

use super::convert::{file_attr, file_type, fuse_errno};
use crate::server::error::Errno;
use crate::server::fs::{Attr, Entry, Listing, Opened, Replies, Reply};
use crate::server::psi::Polled;

/// The replies of the FUSE library.
#[derive(Debug)]
pub(super) struct FuseReplies;

impl Replies for FuseReplies {
    type Entry = ReplyEntry;
    type Attr = ReplyAttr;
    type Open = ReplyOpen;
    type Data = ReplyData;
    type Entries = DirectoryReply;
    type Written = ReplyWrite;
    type Poll = ReplyPoll;
    type Released = ReplyEmpty;
}

impl Reply<Entry> for ReplyEntry {
    fn send(self, answer: Result<Entry, Errno>) {
        match answer {
            // The library sends the inode number as the node id. So the kernel must not believe these attributes: it
            // asks for others, with the inode number, before it shows them to a program.
            Ok(entry) => {
                let node = file_attr(&entry.attr, entry.attr.id.raw());
                let generation = Generation(entry.generation.into());
                self.entry_with_ttls(&Duration::ZERO, &entry.timeout, &node, generation);
            }
            Err(errno) => self.error(fuse_errno(errno)),
        }
    }
}

impl Reply<(Attr, Duration)> for ReplyAttr {
    fn send(self, answer: Result<(Attr, Duration), Errno>) {
        match answer {
            Ok((attr, timeout)) => self.attr(&timeout, &file_attr(&attr, attr.ino.into())),
            Err(errno) => self.error(fuse_errno(errno)),
        }
    }
}

impl Reply<Opened> for ReplyOpen {
    fn send(self, answer: Result<Opened, Errno>) {
        match answer {
            Ok(opened) => {
                let flags = match opened {
                    Opened::Direct(_) => FopenFlags::FOPEN_DIRECT_IO,
                    Opened::Paged { keep: true } => FopenFlags::FOPEN_KEEP_CACHE,
                    Opened::Paged { keep: false } => FopenFlags::empty(),
                };
                let handle = FileHandle(opened.handle().0);
                self.opened(handle, flags | FopenFlags::FOPEN_NOFLUSH);
            }
            Err(errno) => self.error(fuse_errno(errno)),
        }
    }
}

impl Reply<&[u8]> for ReplyData {
    fn send(self, answer: Result<&[u8], Errno>) {
        match answer {
            Ok(bytes) => self.data(bytes),
            Err(errno) => self.error(fuse_errno(errno)),
        }
    }
}

impl Reply<usize> for ReplyWrite {
    fn send(self, answer: Result<usize, Errno>) {
        match answer {
            Ok(bytes) => self.written(u32::try_from(bytes).unwrap_or(u32::MAX)),
            Err(errno) => self.error(fuse_errno(errno)),
        }
    }
}

impl Reply<Polled> for ReplyPoll {
    fn send(self, answer: Result<Polled, Errno>) {
        // DEFAULT_POLLMASK, and what psi_trigger_poll adds to it.
        let ready = PollEvents::POLLIN
            | PollEvents::POLLOUT
            | PollEvents::POLLRDNORM
            | PollEvents::POLLWRNORM;
        match answer {
            Ok(Polled::Quiet) => self.poll(ready),
            Ok(Polled::Fired) => self.poll(ready | PollEvents::POLLPRI),
            Ok(Polled::Error) => self.poll(ready | PollEvents::POLLERR | PollEvents::POLLPRI),
            Err(errno) => self.error(fuse_errno(errno)),
        }
    }
}

impl Reply<()> for ReplyEmpty {
    fn send(self, answer: Result<(), Errno>) {
        match answer {
            Ok(()) => self.ok(),
            Err(errno) => self.error(fuse_errno(errno)),
        }
    }
}

/// The reply to a READDIR, with what it asked for.
#[derive(Debug)]
pub(super) struct DirectoryReply {
    /// The number of entries that the kernel has already.
    pub(super) offset: u64,
    pub(super) reply: ReplyDirectory,
}

impl Reply<Listing> for DirectoryReply {
    fn send(mut self, answer: Result<Listing, Errno>) {
        let Listing {
            own,
            parent,
            entries,
        } = match answer {
            Ok(listing) => listing,
            Err(errno) => return self.reply.error(fuse_errno(errno)),
        };
        let dots = [
            (own, FileType::Directory, "."),
            (parent, FileType::Directory, ".."),
        ];
        let all = dots.into_iter().chain(
            entries
                .iter()
                .map(|entry| (entry.ino, file_type(entry.kind), entry.name.as_str())),
        );
        let skip = usize::try_from(self.offset).unwrap_or(usize::MAX);
        for (index, (ino, kind, name)) in all.enumerate().skip(skip) {
            let next = index as u64 + 1;
            if self.reply.add(INodeNo(ino.into()), next, kind, name) {
                break;
            }
        }
        self.reply.ok();
    }
}
