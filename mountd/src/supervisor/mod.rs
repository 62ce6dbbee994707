//! The server process: started, spoken to, and started again when it has died.

pub mod asks;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::connections::Connections;
use crate::container::Facts;
use crate::error::{Error, Kind, Result};
use asks::PressureDirs;

use crate::protocol::channel::Channel;
use crate::protocol::choices::Choices;
use crate::protocol::link::{self, FromServer, Row, Secrets, Settings, ToServer};

/// How long the server may take for one answer. It computes nothing slow in them.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Rows of a catalogue that are believed at most.
const MAX_ROWS: usize = 1024;

/// Bytes of the state. It is sparse: what nothing was written to takes no memory.
const STATE_SIZE: u64 = 64 << 20;

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable: `eci-fs`.
    pub path: PathBuf,
    /// What the views are set to.
    pub settings: Settings,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pidfd: OwnedFd,
    link: Channel,
}

impl Server {
    /// Start a server on the two connections. It answers nothing before [`Self::serve`].
    ///
    /// # Errors
    /// When it cannot be executed, does not answer, or negotiates what the connections do not have.
    pub fn start(
        program: &Program,
        connections: &mut Connections,
        dirs: &PressureDirs,
    ) -> Result<Self> {
        let (ours, theirs) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        let child = Command::new(&program.path)
            .arg("serve")
            .stdin(Stdio::from(theirs.into_inner()))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| Error::io("start", &program.path, e))?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let pidfd = crate::container::open_pidfd(pid)?;
        ours.set_timeout(Some(ANSWER_LIMIT))
            .map_err(|e| Error::io("set up", "the link", e))?;
        let mut server = Self {
            child,
            pidfd,
            link: ours,
        };
        let start = ToServer::Start {
            version: link::VERSION,
            init: connections.init(),
            settings: program.settings.clone(),
            held: 0,
        };
        let state = new_state().map_err(|e| Error::io("make", "the state of the server", e))?;
        let (answers, asks) = Channel::pair().map_err(|e| Error::io("make", "a socket pair", e))?;
        asks::answer(answers, dirs.clone())?;
        let [cached, live] = connections.descriptors();
        match server.call(&start, &[cached, live, asks.as_fd(), state.as_fd()]) {
            Ok(FromServer::Started { replies }) => connections.accept(replies)?,
            Ok(other) => return Err(unexpected(&other)),
            Err(error) => {
                server.kill();
                return Err(error);
            }
        }
        Ok(server)
    }

    /// Hand over a container, with the pidfd of its process; returns what can be grafted into it.
    pub fn add(
        &mut self,
        slot: u64,
        secrets: Secrets,
        facts: &Facts,
        choices: &Choices,
        dirs: &[OwnedFd],
        pidfd: BorrowedFd<'_>,
    ) -> Result<Vec<Row>> {
        let mut fds: Vec<BorrowedFd<'_>> = dirs.iter().map(AsFd::as_fd).collect();
        fds.push(pidfd);
        match self.call(
            &ToServer::Add {
                slot,
                secrets,
                facts: Box::new(facts.clone()),
                choices: choices.clone(),
            },
            &fds,
        )? {
            FromServer::Added { catalogue } => checked(catalogue),
            other => Err(unexpected(&other)),
        }
    }

    /// Let go of a container.
    pub fn remove(&mut self, slot: u64) -> Result<()> {
        match self.call(&ToServer::Remove { slot }, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Begin to answer requests; with `resend`, have those sent again that the server before this one had read and
    /// not answered.
    pub fn serve(&mut self, resend: bool) -> Result<()> {
        match self.call(&ToServer::Serve { resend }, &[])? {
            FromServer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Readable when the server has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// End it, whatever it is doing, and reap it.
    pub fn kill(&mut self) {
        // Either can only fail because it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn call(&mut self, packet: &ToServer, fds: &[BorrowedFd<'_>]) -> Result<FromServer> {
        let trouble = |e: std::io::Error| Error::io("speak to", "the server", e);
        self.link.send(packet, fds).map_err(trouble)?;
        match self.link.recv::<FromServer>().map_err(trouble)? {
            Some((FromServer::Failed { why }, _)) => Err(Error::new(Kind::System, why)),
            Some((answer, _)) => Ok(answer),
            None => {
                Err(Error::new(Kind::System, "the server ended")
                    .remedy("see its log for the reason"))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A memory file for what the server must not forget. It never changes its size.
fn new_state() -> std::io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let state = rustix::fs::memfd_create("eci-fs-state", flags)?;
    rustix::fs::ftruncate(&state, STATE_SIZE)?;
    rustix::fs::fcntl_add_seals(
        &state,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(state)
}

/// The server parses what containers send, so its catalogue is judged before anything is grafted by it.
fn checked(catalogue: Vec<Row>) -> Result<Vec<Row>> {
    let bad = |row: &&Row| {
        !(row.path.starts_with("/proc/") || row.path.starts_with("/sys/"))
            || row
                .path
                .split('/')
                .skip(1)
                .any(|part| matches!(part, "" | "." | ".."))
            || row.path.contains('\0')
    };
    if catalogue.len() > MAX_ROWS {
        return Err(Error::refused(format!(
            "the server offers {} views",
            catalogue.len()
        )));
    }
    if let Some(row) = catalogue.iter().find(bad) {
        return Err(Error::refused(format!(
            "the server offers a view at {:?}",
            row.path
        )));
    }
    Ok(catalogue)
}

fn unexpected(answer: &FromServer) -> Error {
    Error::refused(format!("the server answered out of turn: {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::link::Connection;

    fn row(path: &str) -> Row {
        Row {
            path: path.to_owned(),
            connection: Connection::Cached,
            writable: false,
            directory: false,
        }
    }

    #[test]
    fn a_catalogue_that_leaves_proc_and_sys_is_refused() {
        assert!(checked(vec![row("/proc/meminfo"), row("/sys/kernel/notes")]).is_ok());
        for path in [
            "/etc/passwd",
            "/proc/../etc",
            "/proc//x",
            "proc/x",
            "/proc/",
            "/sys/./x",
            "/proc/a\0",
        ] {
            assert!(checked(vec![row(path)]).is_err(), "{path}");
        }
        assert!(checked(vec![row("/proc/a"); MAX_ROWS + 1]).is_err());
    }
}
