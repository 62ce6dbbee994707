//! Files below directory grafts that the kernel does not open, or opens and then fails to read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::nodes::NODE;
use crate::sysfs::CPU;
use crate::{LIMITS, Live};

/// The errno of an open, or those of three reads: from the beginning, the same again, and somewhere else. None where they
/// succeed.
type Outcome = Result<[Option<i32>; 3], Option<i32>>;

fn outcome(path: &Path) -> Outcome {
    let errno = |error: std::io::Error| error.raw_os_error();
    let mut file = File::open(path).map_err(errno)?;
    let mut read = || file.read(&mut [0; 64]).err().and_then(errno);
    let (first, second) = (read(), read());
    let elsewhere = file.read_at(&mut [0; 64], 8).err().and_then(errno);
    Ok([first, second, elsewhere])
}

/// The files below a directory.
fn files(directory: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), all);
        } else if kind.is_file() {
            all.push(entry.path());
        }
    }
}

#[test]
fn privileged_what_the_kernel_fails_to_open_or_to_read_fails_alike() {
    let Some(live) = Live::start(&LIMITS) else {
        return;
    };
    let root = PathBuf::from(format!("/proc/{}/root", live.container.pid()));
    let mut all = Vec::new();
    for directory in [CPU, NODE] {
        files(&root.join(directory.trim_start_matches('/')), &mut all);
    }
    let mut failed = Vec::new();
    for path in all {
        let host = Path::new("/").join(path.strip_prefix(&root).unwrap());
        // A computed file can be one that the host lacks.
        if !host.exists() {
            continue;
        }
        let kernel = outcome(&host);
        // Whatever a read elsewhere of a file that can be read is: a computed one has another size.
        if !matches!(kernel, Ok([None, None, _])) {
            assert_eq!(outcome(&path), kernel, "{}", host.display());
            // It can be looked at all the same.
            assert!(path.metadata().unwrap().is_file());
            failed.push(kernel);
        }
    }
    // Every kernel has files of both kinds there.
    assert!(failed.iter().any(Result::is_ok), "{failed:?}");
    assert!(failed.iter().any(Result::is_err), "{failed:?}");
}
