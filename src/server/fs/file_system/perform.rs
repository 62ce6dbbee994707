//! Requests are taken apart here: each operation is performed, and its answer sent back.

use eci_fs_protocol::link::Connection;

use super::FileSystem;
use crate::server::error::Errno;
use crate::server::fs::attr::Entry;
use crate::server::fs::request::{FsRequest, Operation, Replies, Reply};
use crate::server::fs::snapshots::Write;

impl FileSystem {
    /// Answers a request.
    pub fn perform<R: Replies>(&self, request: FsRequest<'_, R>) {
        let FsRequest {
            connection,
            id,
            operation,
            ..
        } = request;
        match operation {
            Operation::Lookup { name, reply } => {
                let name = name.to_str().ok_or(Errno::NOENT);
                let found = name.and_then(|name| self.find(connection, id, name));
                let entry = found.and_then(|id| {
                    let (attr, timeout) = self.entry(id)?;
                    Ok(Entry {
                        attr,
                        timeout,
                        generation: self.directories.generation(id.slot())?,
                    })
                });
                reply.send(entry);
            }
            Operation::Attr { handle, reply } => reply.send(self.attr(connection, id, handle)),
            Operation::SetAttr {
                handle,
                is_access,
                reply,
            } => reply.send(self.set_attr(connection, id, handle, is_access)),
            Operation::ReadLink { reply } => match self.read_link(id) {
                Ok(target) => reply.send(Ok(&target)),
                Err(errno) => reply.send(Err(errno)),
            },
            Operation::Open {
                caller,
                flags,
                request,
                reply,
            } => reply.send(self.open(connection, id, caller, flags, request)),
            Operation::Read {
                handle,
                flags,
                offset,
                size,
                reply,
            } => match self.read(connection, id, handle, offset) {
                Ok(text) if connection == Connection::Cached && flags & libc::O_DIRECT == 0 => {
                    reply.send(Ok(&page(&text, offset, size)));
                }
                Ok(text) => reply.send(Ok(part(&text, offset, size))),
                Err(errno) => reply.send(Err(errno)),
            },
            Operation::Write {
                handle,
                caller,
                flags,
                offset,
                bytes,
                request,
                reply,
            } => {
                let write = Write {
                    caller,
                    flags,
                    offset,
                    bytes: &bytes,
                };
                self.write(connection, id, handle, write, request, reply);
            }
            Operation::Poll {
                handle,
                wake,
                reply,
            } => reply.send(Ok(self.poll(connection, id, handle, wake))),
            Operation::Release { handle, reply } => {
                self.release(id, handle);
                reply.send(Ok(()));
            }
            Operation::Entries { reply } => reply.send(self.entries(connection, id)),
        }
    }
}

/// Returns the bytes of a text that a READ of `size` bytes at `offset` gets.
fn part(text: &[u8], offset: u64, size: u32) -> &[u8] {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(text.len());
    let end = start.saturating_add(size as usize).min(text.len());
    &text[start..end]
}

/// Returns what a page of a cached view gets: the text, and newlines up to its end. A reader sees these when it has the size
/// of the next version, which is longer; without them the kernel would fill the page with zeros.
fn page(text: &[u8], offset: u64, size: u32) -> Vec<u8> {
    let mut page = Vec::with_capacity(size as usize);
    page.extend_from_slice(part(text, offset, size));
    page.resize(size as usize, b'\n');
    page
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn a_page_ends_with_newlines() {
        assert_eq!(page(b"12 3\n", 0, 8), b"12 3\n\n\n\n");
        assert_eq!(page(b"12 3\n", 2, 2), b" 3");
        assert_eq!(page(b"12 3\n", 5, 3), b"\n\n\n");
        assert_eq!(page(b"12 3\n", u64::MAX, 1), b"\n");
    }
}
