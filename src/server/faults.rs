//! Faults on purpose, for tests: only in a build with debug assertions, and only when `ECI_FS_FAULT` says so.
//!
//! The variable says what happens, at which point, and the how manieth time: `panic@open:3`, `hang@request:100`. A server
//! that hangs answers nothing at that point any more. `slow@request:200` takes 200 ms longer at the point each time. `resize@/proc/uptime:50` is no fault: the view has a digit more in every
//! other 50 ms, so that its size changes. In a release build there is no such code.

/// A point at which a fault can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The daemon has handed over a container, which is not known yet.
    Add,
    /// The daemon asks what can be grafted into a container that is known, as a daemon does that takes over.
    Catalogue,
    /// A request has been taken.
    Request,
    /// A view has been computed, and what was shown is written to the state.
    Render,
    /// A file has been opened, and that is written to the state; the answer has not been sent.
    Open,
    /// A write has taken effect, and that is written to the state; the answer has not been sent.
    Write,
}

#[cfg(debug_assertions)]
pub use with::{arm, at, resize};
#[cfg(not(debug_assertions))]
pub use without::{arm, at, resize};

#[cfg(not(debug_assertions))]
mod without {
    /// Does nothing: there are no faults in this build.
    pub fn arm() {}

    /// Does nothing: there are no faults in this build.
    pub fn at(_: super::Point) {}

    /// Does nothing: there are no faults in this build.
    pub fn resize(_: &str, _: &mut Vec<u8>) {}
}

#[cfg(debug_assertions)]
mod with {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime};

    use super::Point;

    #[derive(Debug)]
    struct Fault {
        kind: Kind,
        point: Point,
        time: u64,
        times: AtomicU64,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Panic,
        Hang,
        /// Its time is in milliseconds.
        Slow,
    }

    /// A view whose size changes.
    #[derive(Debug)]
    struct Resized {
        path: String,
        period_msec: u128,
    }

    static FAULT: OnceLock<Fault> = OnceLock::new();
    static RESIZED: OnceLock<Resized> = OnceLock::new();

    /// Reads the environment. The server calls this before anything else.
    pub fn arm() {
        let Ok(text) = std::env::var("ECI_FS_FAULT") else {
            return;
        };
        if let Some(resized) = parse_resized(&text) {
            tracing::warn!(?resized, "the size of a view will change on purpose");
            // It is set once, at the start.
            let _ = RESIZED.set(resized);
            return;
        }
        match parse(&text) {
            Some(fault) => {
                tracing::warn!(?fault, "there will be a fault on purpose");
                // The fault is set once, at the start.
                let _ = FAULT.set(fault);
            }
            None => tracing::error!(text, "ECI_FS_FAULT means nothing, ignoring"),
        }
    }

    fn parse(text: &str) -> Option<Fault> {
        let (what, place) = text.split_once('@')?;
        let (point, time) = place.split_once(':')?;
        Some(Fault {
            kind: match what {
                "panic" => Kind::Panic,
                "hang" => Kind::Hang,
                "slow" => Kind::Slow,
                _ => return None,
            },
            point: match point {
                "add" => Point::Add,
                "catalogue" => Point::Catalogue,
                "request" => Point::Request,
                "render" => Point::Render,
                "open" => Point::Open,
                "write" => Point::Write,
                _ => return None,
            },
            time: time.parse().ok().filter(|time| *time > 0)?,
            times: AtomicU64::new(0),
        })
    }

    fn parse_resized(text: &str) -> Option<Resized> {
        let (path, period) = text.strip_prefix("resize@")?.split_once(':')?;
        Some(Resized {
            path: path.to_owned(),
            period_msec: period.parse().ok().filter(|period| *period > 0)?,
        })
    }

    /// Lengthens the text of the view at `path` by a digit at its beginning, if it is the one and the time has come. All
    /// servers do so at the same times.
    pub fn resize(path: &str, text: &mut Vec<u8>) {
        let Some(resized) = RESIZED.get().filter(|resized| resized.path == path) else {
            return;
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let period = now.unwrap_or_default().as_millis() / resized.period_msec;
        if !period.is_multiple_of(2) {
            text.insert(0, b'1');
        }
    }

    /// Has the fault happen if it is at this point, and its time has come.
    pub fn at(point: Point) {
        let Some(fault) = FAULT.get().filter(|fault| fault.point == point) else {
            return;
        };
        let time = fault.times.fetch_add(1, Ordering::Relaxed) + 1;
        match fault.kind {
            Kind::Panic => assert!(time != fault.time, "a fault on purpose"),
            Kind::Hang if time >= fault.time => loop {
                std::thread::park();
            },
            Kind::Hang => {}
            Kind::Slow => std::thread::park_timeout(Duration::from_millis(fault.time)),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_fault_says_what_where_and_when() {
            let fault = parse("hang@render:12").unwrap();
            assert_eq!(
                (fault.kind, fault.point, fault.time),
                (Kind::Hang, Point::Render, 12)
            );
            let resized = parse_resized("resize@/proc/uptime:50").unwrap();
            assert_eq!(
                (resized.path.as_str(), resized.period_msec),
                ("/proc/uptime", 50)
            );
            assert!(parse_resized("resize@/proc/uptime:0").is_none());
            for bad in ["", "panic", "panic@open", "panic@open:0", "sleep@open:1"] {
                assert!(parse(bad).is_none(), "{bad}");
            }
        }
    }
}
