//! What code in the server could attack: processes, sockets and files of the host.

use std::fs::{self, Permissions};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Processes, sockets and files that are the test's own. They end with this value.
#[derive(Debug)]
pub(crate) struct Victims {
    dir: PathBuf,
    /// A process of root, and one of nobody.
    pub(crate) processes: [Child; 2],
    sockets: [UnixDatagram; 2],
    name: String,
}

impl Victims {
    /// Makes the victims, with files in `dir`, which is made.
    ///
    /// # Errors
    /// In words, when one cannot be made.
    pub(crate) fn new(dir: &Path, sleeper: &[&str]) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        fs::create_dir(dir).map_err(failed)?;
        fs::write(dir.join("secret"), "secret").map_err(failed)?;
        // What root alone may read, and search.
        fs::set_permissions(dir.join("secret"), Permissions::from_mode(0o600)).map_err(failed)?;
        let name = format!("intruder-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).map_err(failed)?;
        let sockets = [
            UnixDatagram::bind(dir.join("socket")).map_err(failed)?,
            UnixDatagram::bind_addr(&abstract_name).map_err(failed)?,
        ];
        for socket in &sockets {
            socket.set_nonblocking(true).map_err(failed)?;
        }
        fs::set_permissions(dir.join("socket"), Permissions::from_mode(0o777)).map_err(failed)?;
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
        let sleep = |user: u32| {
            let mut command = Command::new(sleeper[0]);
            command.args(&sleeper[1..]).stdin(Stdio::piped());
            command.stdout(Stdio::null()).uid(user).gid(user);
            command.spawn().map_err(failed)
        };
        Ok(Self {
            dir: dir.to_owned(),
            processes: [sleep(0)?, sleep(65534)?],
            sockets,
            name,
        })
    }

    /// Returns the path of a file in the directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// Returns the addresses of the two sockets, as the kernel takes them.
    pub(crate) fn addresses(&self) -> [Vec<u8>; 2] {
        let family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default();
        let address = |name: &[u8]| [&family.to_ne_bytes()[..], name].concat();
        let path = [self.path("socket").as_bytes(), b"\0"].concat();
        let name = [b"\0", self.name.as_bytes()].concat();
        [address(&path), address(&name)]
    }

    /// Returns what has happened to them.
    pub(crate) fn harm(&mut self) -> Vec<String> {
        let mut harm = Vec::new();
        for (process, user) in self.processes.iter_mut().zip(["root", "nobody"]) {
            if !matches!(process.try_wait(), Ok(None)) {
                harm.push(format!("a process of {user} was killed"));
                continue;
            }
            let status = fs::read_to_string(format!("/proc/{}/status", process.id()));
            let stopped = status.is_ok_and(|status| status.contains("State:\tT"));
            if stopped {
                harm.push(format!("a process of {user} was stopped"));
            }
        }
        for socket in &self.sockets {
            let mut bytes = [0; 64];
            if let Ok(length) = socket.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]);
                harm.push(format!("a datagram arrived: {text}"));
            }
        }
        harm
    }
}

impl Drop for Victims {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Both fail only when the process has ended.
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
