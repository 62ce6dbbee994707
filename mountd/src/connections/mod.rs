//! The two FUSE connections: their `/dev/fuse` descriptors, and what was negotiated on them.
//!
//! The kernel sends INIT once in the life of a connection. Its bytes are kept, and so is the answer of the first
//! server. A later server is fed the same request and must give the same answer: what was negotiated belongs to the
//! connection, and not to the process that serves it.

mod clone_device;

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use eci_fs_protocol::error::{Error, Kind, Result};
use eci_fs_protocol::link::Connection;

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
    /// Opens both, has `mount` mount file systems on duplicates of the descriptors, and reads what the kernel then
    /// sends. Returns the connections, and what `mount` returns.
    ///
    /// # Errors
    /// When `/dev/fuse` cannot be opened, and the error of `mount`.
    pub fn open<T>(mount: impl FnOnce([OwnedFd; 2]) -> Result<T>) -> Result<(Self, T)> {
        let [cached, live] = [open_fuse()?, open_fuse()?];
        let mounted = mount([duplicate(&cached)?, duplicate(&live)?])?;
        let each = [One::new(cached)?, One::new(live)?];
        Ok((Self { each }, mounted))
    }

    /// Adopts the connections of a dead daemon: the descriptors, the INIT requests and the answers to these, in the
    /// order of [`Connection::ALL`].
    ///
    /// # Errors
    /// When these cannot be the connections.
    pub fn adopt(fuse: [OwnedFd; 2], init: Vec<Vec<u8>>, replies: Vec<Vec<u8>>) -> Result<Self> {
        for fd in &fuse {
            refuse_other_device(fd)?;
        }
        let (Ok(init), Ok(replies)) = (
            <[Vec<u8>; 2]>::try_from(init),
            <[Vec<u8>; 2]>::try_from(replies),
        ) else {
            return Err(Error::refused(
                "what was negotiated on the connections is not known",
            ));
        };
        let mut each = fuse.into_iter().zip(init).zip(replies);
        let mut one = || {
            let ((fuse, init), reply) = each.next()?;
            Some(One {
                fuse,
                init,
                reply: Some(reply),
            })
        };
        match (one(), one()) {
            (Some(cached), Some(live)) => Ok(Self {
                each: [cached, live],
            }),
            _ => Err(Error::refused("there are two connections")),
        }
    }

    /// Returns true if the kernel can send requests again that a dead server had read (Linux 6.9).
    pub fn can_resend(&self) -> bool {
        self.each.iter().all(|one| announces_resend(&one.init))
    }

    /// Returns descriptors for a server to read requests from. A kernel that cannot send requests again would keep for
    /// ever what a dead server had read, as long as we hold the same description. So there a server gets a description
    /// of its own, and what it had read fails with it (ECONNABORTED).
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn for_server(&self) -> Result<[OwnedFd; 2]> {
        let [cached, live] = &self.each;
        let copy = |one: &One| {
            if self.can_resend() {
                duplicate(&one.fuse)
            } else {
                let device = open_fuse()?;
                clone_device::join(&device, &one.fuse)
                    .map_err(|e| Error::io("clone", "/dev/fuse", e))?;
                Ok(device)
            }
        };
        Ok([copy(cached)?, copy(live)?])
    }

    /// Returns the answers to the INIT requests, once there were any.
    pub fn replies(&self) -> Vec<Vec<u8>> {
        self.each
            .iter()
            .filter_map(|one| one.reply.clone())
            .collect()
    }

    /// Returns duplicates of the `/dev/fuse` descriptors, in the order of [`Connection::ALL`].
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn duplicates(&self) -> Result<[OwnedFd; 2]> {
        let [cached, live] = &self.each;
        Ok([duplicate(&cached.fuse)?, duplicate(&live.fuse)?])
    }

    /// Returns the `/dev/fuse` descriptors, in the order of [`Connection::ALL`].
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.each[0].fuse.as_fd(), self.each[1].fuse.as_fd()]
    }

    /// Returns the INIT requests, in the same order.
    pub fn init(&self) -> Vec<Vec<u8>> {
        self.each.iter().map(|one| one.init.clone()).collect()
    }

    /// Takes a server's answers to the INIT requests. The first answers go to the kernel; later ones must be the same.
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
                    let mut device = std::fs::File::from(duplicate(&one.fuse)?);
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
        let mut device = std::fs::File::from(duplicate(&fuse)?);
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

/// Returns true if an INIT request has FUSE_HAS_RESEND of include/uapi/linux/fuse.h. That is bit 39 of the flags: bit 7
/// of their second word, which is valid with FUSE_INIT_EXT, bit 30 of the first. `struct fuse_in_header` has 40 bytes;
/// the flags are the fourth and fifth word of `struct fuse_init_in`.
fn announces_resend(init: &[u8]) -> bool {
    let word = |at: usize| {
        init.get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_ne_bytes)
    };
    word(52) & 1 << 30 != 0 && word(56) & 1 << 7 != 0
}

/// Refuses a descriptor that is not of `/dev/fuse`, the character device 10:229
/// (Documentation/admin-guide/devices.txt).
fn refuse_other_device(fd: &OwnedFd) -> Result<()> {
    let stat = rustix::fs::fstat(fd).map_err(|e| Error::io("look at", "/dev/fuse", e))?;
    let character = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
    if !character || stat.st_rdev != rustix::fs::makedev(10, 229) {
        return Err(Error::refused(
            "what was handed over as a connection is no descriptor of /dev/fuse",
        ));
    }
    Ok(())
}

fn duplicate(fuse: &OwnedFd) -> Result<OwnedFd> {
    fuse.try_clone()
        .map_err(|e| Error::io("duplicate", "/dev/fuse", e))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resending_is_announced_by_bit_39_of_the_flags() {
        let mut init = vec![0u8; 104];
        assert!(!announces_resend(&init));
        init[56] = 1 << 7;
        assert!(!announces_resend(&init), "without FUSE_INIT_EXT");
        init[55] = 1 << 6;
        assert!(announces_resend(&init));
        assert!(!announces_resend(&init[..54]));
    }

    #[test]
    fn what_is_no_fuse_device_is_not_adopted() {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let some = vec![Vec::new(), Vec::new()];
        let error = Connections::adopt([null(), null()], some.clone(), some).unwrap_err();
        assert!(error.to_string().contains("/dev/fuse"), "{error}");
    }
}
