//! A root directory that never answers: an overlay over a FUSE file system whose server keeps each LOOKUP.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::answer::Answer;

/// The directory that holds the mounts. They are in the mount namespace of the container alone.
const DIR: &str = "/mnt";

// Operations of the FUSE protocol (include/uapi/linux/fuse.h).
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// Mounts the file system and makes it the root directory of this process. What the process holds open stays as it is.
pub(crate) fn hang_root() -> Answer {
    let none = None::<&str>;
    mount(Some("tmpfs"), DIR, Some("tmpfs"), MsFlags::empty(), none)?;
    let path = |name: &str| format!("{DIR}/{name}");
    for name in ["fuse", "below", "root"] {
        std::fs::create_dir(path(name))?;
    }
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
        device.as_raw_fd()
    );
    mount(
        Some("hang"),
        path("fuse").as_str(),
        Some("fuse"),
        MsFlags::empty(),
        Some(options.as_str()),
    )?;
    std::thread::spawn(move || serve(device));
    let options = format!("lowerdir={}:{}", path("fuse"), path("below"));
    mount(
        Some("overlay"),
        path("root").as_str(),
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )?;
    nix::unistd::chroot(path("root").as_str())?;
    Ok(Value::Null)
}

/// Answers what is needed to mount, and nothing else.
fn serve(mut device: File) -> io::Result<()> {
    let mut request = vec![0; 1 << 18];
    loop {
        // A read takes one whole request.
        if device.read(&mut request)? == 0 {
            return Ok(());
        }
        let number =
            |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap_or_default());
        let (error, answer) = match number(4) {
            LOOKUP | FORGET | INTERRUPT | BATCH_FORGET => continue,
            INIT => (0, init()),
            GETATTR => (0, attributes()),
            STATFS => (0, state()),
            _ => (-nix::libc::ENOSYS, Vec::new()),
        };
        let mut reply = Vec::new();
        reply.extend(u32::try_from(16 + answer.len()).unwrap_or(0).to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(&request[8..16]);
        reply.extend(answer);
        device.write_all(&reply)?;
    }
}

/// `fuse_init_out`: version 7.31, and nothing more than it needs.
fn init() -> Vec<u8> {
    let mut out = vec![0; 64];
    out[..4].copy_from_slice(&7u32.to_ne_bytes());
    out[4..8].copy_from_slice(&31u32.to_ne_bytes());
    out[20..24].copy_from_slice(&4096u32.to_ne_bytes());
    out
}

/// `fuse_attr_out` of a directory, good for an hour.
fn attributes() -> Vec<u8> {
    let mut out = vec![0; 104];
    out[..8].copy_from_slice(&3600u64.to_ne_bytes());
    out[16..24].copy_from_slice(&1u64.to_ne_bytes());
    out[76..80].copy_from_slice(&0o40755u32.to_ne_bytes());
    out[80..84].copy_from_slice(&2u32.to_ne_bytes());
    out
}

/// `fuse_statfs_out`: names of 255 bytes.
fn state() -> Vec<u8> {
    let mut out = vec![0; 80];
    out[40..44].copy_from_slice(&4096u32.to_ne_bytes());
    out[44..48].copy_from_slice(&255u32.to_ne_bytes());
    out[48..52].copy_from_slice(&4096u32.to_ne_bytes());
    out
}
