//! Processes that stand for wrappers and containers.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use eci_fs_protocol::channel::Channel;
use eci_fs_protocol::control::{Answer, Call, Isolate, Isolated, Request, Response, VERSION};
use eci_fs_protocol::error::Error;
use support::{PATIENCE, Scene, find_program, open_pidfd};

/// A process that lives until this is dropped.
pub(super) struct Process(pub(super) Child);

impl Process {
    /// Stands for a wrapper that becomes a runtime.
    pub(super) fn start() -> Self {
        Self::of(&mut Command::new(find_program("cat")))
    }

    pub(super) fn of(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    pub(super) fn with_uid(uid: u32) -> Self {
        Self::of(Command::new(find_program("cat")).uid(uid).gid(uid))
    }

    /// Returns root of a user namespace, in a mount namespace of its own, as the process of a container is.
    #[track_caller]
    pub(super) fn container(namespace: &OwnedFd) -> Self {
        Self::entered(namespace, &["unshare", "--mount"])
    }

    /// Returns a process in a user namespace, whose user and group stay root of the host.
    #[track_caller]
    pub(super) fn guest(namespace: &OwnedFd) -> Self {
        Self::entered(namespace, &["--preserve-credentials"])
    }

    #[track_caller]
    fn entered(namespace: &OwnedFd, words: &[&str]) -> Self {
        let mut command = Command::new(find_program("nsenter"));
        command.arg(path_of(namespace)).args(words);
        let mut this = Self::of(command.args(["sh", "-c", "echo; exec cat"]));
        let mut line = [0];
        std::io::Read::read_exact(this.0.stdout.as_mut().unwrap(), &mut line).unwrap();
        this
    }

    pub(super) fn pidfd(&self) -> OwnedFd {
        open_pidfd(self.0.id())
    }

    /// Asks the daemon of the test for a range.
    pub(super) fn isolate(&self, scene: &Scene, key: &str) -> Result<(Isolated, OwnedFd), Error> {
        self.isolate_at(&scene.runtime_dir(), key)
    }

    /// Asks for a range, and returns its first id.
    #[track_caller]
    pub(super) fn first_id(&self, scene: &Scene, key: &str) -> u32 {
        self.isolate(scene, key).unwrap().0.first_id
    }

    pub(super) fn isolate_at(
        &self,
        runtime_dir: &Path,
        key: &str,
    ) -> Result<(Isolated, OwnedFd), Error> {
        let request = Request::Isolate(Isolate {
            key: key.to_owned(),
        });
        ask(runtime_dir, request, &[self.pidfd().as_fd()])
    }

    /// Asks the daemon of the test to be a member of the range that another process has.
    pub(super) fn join(&self, scene: &Scene, other: &Self) -> Result<(Isolated, OwnedFd), Error> {
        let request = Request::Join(Isolate {
            key: "/run/runc/joins".to_owned(),
        });
        let fds = [self.pidfd(), other.pidfd()];
        ask(
            &scene.runtime_dir(),
            request,
            &fds.each_ref().map(AsFd::as_fd),
        )
    }

    pub(super) fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The option of nsenter for a namespace.
pub(super) fn path_of(namespace: &OwnedFd) -> String {
    format!(
        "--user=/proc/{}/fd/{}",
        std::process::id(),
        namespace.as_raw_fd()
    )
}

fn ask(
    runtime_dir: &Path,
    request: Request,
    fds: &[BorrowedFd<'_>],
) -> Result<(Isolated, OwnedFd), Error> {
    let socket = runtime_dir.join("control.sock");
    let channel = Channel::connect(&socket, Some(PATIENCE)).unwrap().unwrap();
    let version = VERSION;
    channel.send(&Call { version, request }, fds).unwrap();
    match channel.recv::<Answer>() {
        Ok(Some((answer, mut fds))) => match answer.response {
            Response::Isolated(isolated) => Ok((isolated, fds.pop().unwrap())),
            Response::Failed(error) => Err(error),
            other => panic!("{other:?}"),
        },
        // The daemon has been killed.
        _ => Err(Error::ending()),
    }
}
