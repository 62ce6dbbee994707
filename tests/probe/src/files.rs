//! Facts about a file that need no read.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde_json::{Value, json};

use crate::answer::{self, Answer};

/// Returns the results of stat, fstat and statfs.
pub(crate) fn stat(path: &str) -> Answer {
    let by_path = fs::metadata(path)?;
    let opened = File::open(path).and_then(|file| file.metadata());
    let mut value = json!({
        "size": by_path.size(),
        "mode": format!("{:o}", by_path.mode() & 0o7777),
        "uid": by_path.uid(),
        "gid": by_path.gid(),
        "file": by_path.is_file(),
        "fstype": format!("{:x}", nix::sys::statfs::statfs(path)?.filesystem_type().0),
    });
    value["opened_size"] = match opened {
        Ok(opened) => json!(opened.size()),
        Err(error) => json!({ "error": answer::name(&error) }),
    };
    Ok(value)
}

/// Returns the sorted names in a directory.
pub(crate) fn list(path: &str) -> Answer {
    let mut names = fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(json!(names))
}

/// Returns the result of each way to open a file for writing: "opened", or the kernel's name of the error.
pub(crate) fn open_for_writing(path: &str) -> Answer {
    let ways: [(&str, bool, OFlag); 5] = [
        ("write", false, OFlag::empty()),
        ("read and write", true, OFlag::empty()),
        ("truncate", false, OFlag::O_TRUNC),
        ("append", false, OFlag::O_APPEND),
        ("create", false, OFlag::O_CREAT),
    ];
    let outcomes = ways.into_iter().map(|(name, read, flags)| {
        let opened = File::options()
            .read(read)
            .write(true)
            .custom_flags(flags.bits())
            .open(path);
        let outcome = match opened {
            Ok(_) => "opened".to_owned(),
            Err(error) => answer::name(&error),
        };
        (name.to_owned(), json!(outcome))
    });
    Ok(Value::Object(outcomes.collect()))
}

/// Opens a file below a directory. Returns "opened", or the kernel's name of the error.
pub(crate) fn open_beneath(dir: &File, path: &str) -> Value {
    let how = OpenHow::new().flags(OFlag::O_RDONLY).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_XDEV
            | ResolveFlag::RESOLVE_NO_SYMLINKS,
    );
    match openat2(dir, path, how) {
        Ok(_) => json!("opened"),
        Err(errno) => json!(format!("{errno:?}")),
    }
}

/// Sets an extended attribute to the bytes of these hexadecimal digits.
pub(crate) fn set_xattr(path: &str, name: &str, digits: &str) -> Answer {
    let bytes = (0..digits.len())
        .step_by(2)
        .map(|at| {
            digits
                .get(at..at + 2)
                .and_then(|two| u8::from_str_radix(two, 16).ok())
        })
        .map(|byte| byte.ok_or_else(|| answer::wrong("no hexadecimal digits")));
    let bytes = bytes.collect::<std::io::Result<Vec<u8>>>()?;
    rustix::fs::setxattr(path, name, &bytes, rustix::fs::XattrFlags::empty())?;
    Ok(Value::Null)
}
