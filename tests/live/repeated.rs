//! What other files repeat of a tunable follows the container's value.

use crate::{LIMITS, Live};

pub(crate) const VIEWS: &[&str] = &["/proc/sys/fs/file-nr"];

const RATIO: &str = "/proc/sys/vm/overcommit_ratio";
const KBYTES: &str = "/proc/sys/vm/overcommit_kbytes";

/// A line of the container's meminfo, in KiB. The text is no older than the freshness, which has passed by then.
fn commit_limit(live: &Live) -> u64 {
    support::number_after(&live.seen("/proc/meminfo"), "CommitLimit:")
}

#[test]
fn privileged_the_commit_limit_is_that_of_the_two_tunables_of_which_one_is_0() {
    // Without freshness, so that a write shows at once.
    let Some(mut live) = Live::start_with(&["--freshness", "0"], &LIMITS) else {
        return;
    };
    let total = 256 << 10;
    let swap = support::number_after(&live.seen("/proc/meminfo"), "SwapTotal:");
    live.container.ask(&["write", RATIO, "80"]);
    assert_eq!(commit_limit(&live), total * 80 / 100 + swap);
    live.container.ask(&["write", KBYTES, "123457"]);
    assert_eq!(live.container.read(RATIO), "0\n");
    // In whole pages.
    assert_eq!(commit_limit(&live), 123_456 + swap);
    live.container.ask(&["write", RATIO, "50"]);
    assert_eq!(live.container.read(KBYTES), "0\n");
    assert_eq!(live.container.busybox(&["cat", KBYTES]), "0\n");
    assert_eq!(commit_limit(&live), total / 2 + swap);
    // A write that is refused changes neither.
    let refused = live.container.try_ask(&["write", KBYTES, "x"]);
    assert_eq!(refused, Err("EINVAL".to_owned()));
    assert_eq!(live.container.read(RATIO), "50\n");
    // Both values outlive the server.
    live.container.ask(&["write", KBYTES, "4096"]);
    let server = i32::try_from(live.scene.wait_for_server()).unwrap();
    let server = nix::unistd::Pid::from_raw(server);
    nix::sys::signal::kill(server, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(live.container.read(RATIO), "0\n");
    assert_eq!(live.container.read(KBYTES), "4096\n");
}

#[test]
fn privileged_the_most_of_open_files_is_repeated_beside_their_number() {
    let Some(mut live) = Live::start(&LIMITS) else {
        return;
    };
    let host = std::fs::read_to_string("/proc/sys/fs/file-max").unwrap();
    let nr = |live: &Live| live.seen("/proc/sys/fs/file-nr");
    assert_eq!(nr(&live), format!("0\t0\t{host}"));
    for most in ["77", "1234567890"] {
        live.container
            .ask(&["write", "/proc/sys/fs/file-max", most]);
        assert_eq!(nr(&live), format!("0\t0\t{most}\n"));
    }
    let refused = live
        .container
        .try_ask(&["write", "/proc/sys/fs/file-nr", "1"]);
    assert_eq!(refused, Err("EROFS".to_owned()));
}
