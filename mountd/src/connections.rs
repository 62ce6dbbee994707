//! The two FUSE connections: their `/dev/fuse` descriptors, and what was negotiated on them.
//!
//! The kernel sends INIT once in the life of a connection. Its bytes are kept, and so is the answer that the
//! first server gave: a later server is fed the same request, and must give the same answer, because what was
//! negotiated belongs to the connection and not to the process that serves it.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::container::procfs::Proc;
use crate::error::{Error, Kind, Result};
use crate::grafts::place::Grafter;
use crate::protocol::link::Connection;

/// Bytes of a buffer for reading from `/dev/fuse`; the kernel wants at least 8192 (`FUSE_MIN_READ_BUFFER`).
const READ_BUFFER: usize = 64 * 1024;

/// Both connections, mounted.
#[derive(Debug)]
pub struct Connections {
    each: [One; 2],
}

#[derive(Debug)]
struct One {
    fuse: OwnedFd,
    init: Vec<u8>,
    reply: Option<Vec<u8>>,
}

impl Connections {
    /// Open and mount both, in a grafter that is started for them.
    ///
    /// # Errors
    /// When `/dev/fuse` cannot be opened, or a mount is refused.
    pub fn open(proc: Arc<Proc>) -> Result<(Self, Grafter)> {
        let fuse = [open_fuse()?, open_fuse()?];
        let copy = |fd: &OwnedFd| {
            fd.try_clone()
                .map_err(|e| Error::io("duplicate", "/dev/fuse", e))
        };
        let grafter = Grafter::start(proc, [copy(&fuse[0])?, copy(&fuse[1])?])?;
        let [cached, live] = fuse;
        Ok((
            Self {
                each: [One::new(cached)?, One::new(live)?],
            },
            grafter,
        ))
    }

    /// The `/dev/fuse` descriptors, in the order of [`Connection::ALL`].
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.each[0].fuse.as_fd(), self.each[1].fuse.as_fd()]
    }

    /// The INIT requests, in the same order.
    pub fn init(&self) -> Vec<Vec<u8>> {
        self.each.iter().map(|one| one.init.clone()).collect()
    }

    /// Take a server's answers to the INIT requests: the first go to the kernel, later ones must be the same.
    ///
    /// # Errors
    /// When an answer differs from the first one: this server cannot serve these connections.
    pub fn accept(&mut self, replies: Vec<Vec<u8>>) -> Result<()> {
        if replies.len() != self.each.len() {
            return Err(Error::refused(
                "the server did not answer both INIT requests",
            ));
        }
        for ((one, reply), connection) in self.each.iter_mut().zip(replies).zip(Connection::ALL) {
            match &one.reply {
                None => {
                    let mut device = std::fs::File::from(
                        one.fuse
                            .try_clone()
                            .map_err(|e| Error::io("duplicate", "/dev/fuse", e))?,
                    );
                    device
                        .write_all(&reply)
                        .map_err(|e| Error::io("answer INIT on", "/dev/fuse", e))?;
                    one.reply = Some(reply);
                }
                Some(first) if *first == reply => {}
                Some(_) => {
                    return Err(Error::refused(format!(
                        "the server negotiates other features on the {} connection than the one before it",
                        connection.name()
                    ))
                    .remedy("install the version that was running, or restart the containers"));
                }
            }
        }
        Ok(())
    }
}

impl One {
    fn new(fuse: OwnedFd) -> Result<Self> {
        let mut device = std::fs::File::from(
            fuse.try_clone()
                .map_err(|e| Error::io("duplicate", "/dev/fuse", e))?,
        );
        let mut init = vec![0; READ_BUFFER];
        let size = device
            .read(&mut init)
            .map_err(|e| Error::io("read INIT from", "/dev/fuse", e))?;
        init.truncate(size);
        Ok(Self {
            fuse,
            init,
            reply: None,
        })
    }
}

fn open_fuse() -> Result<OwnedFd> {
    rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        let error = Error::io("open", "/dev/fuse", e);
        match error.kind {
            Kind::NotFound => {
                error.remedy("load the module: `modprobe fuse`; in a container, pass /dev/fuse in")
            }
            _ => error.remedy("run as root, with access to /dev/fuse"),
        }
    })
}
