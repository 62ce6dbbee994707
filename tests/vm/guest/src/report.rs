//! The lines that the host reads.

use std::fmt::Debug;
use std::time::Instant;

use crate::Result;

/// Prints checks as they are made, and counts them.
#[derive(Debug)]
pub(crate) struct Report {
    scope: String,
    passed: u32,
    failed: u32,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            scope: String::new(),
            passed: 0,
            failed: 0,
        }
    }

    /// Makes a group of checks, whose names begin with `scope`. One that cannot be made fails.
    pub(crate) fn group(&mut self, scope: &str, checks: impl FnOnce(&mut Self) -> Result<()>) {
        let started = Instant::now();
        self.scope = scope.to_owned();
        if let Err(error) = checks(self) {
            self.check("everything could be done", Err(error));
        }
        println!("time {scope} {:.1} s", started.elapsed().as_secs_f64());
    }

    pub(crate) fn check(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok {}: {name}", self.scope);
            }
            Err(error) => {
                self.failed += 1;
                println!("FAIL {}: {name}: {error}", self.scope);
            }
        }
    }

    pub(crate) fn equal<T: PartialEq + Debug>(&mut self, name: &str, got: &T, expected: &T) {
        self.check(name, equal("it", got, expected));
    }

    /// Nothing to compare with on this kernel, or no view yet.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        println!("skip {}: {name}: {reason}", self.scope);
    }

    /// The last line. Whether all is well.
    pub(crate) fn end(&self) -> bool {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0 && self.passed > 0
    }
}

/// An error that names both sides.
pub(crate) fn equal<T: PartialEq + Debug>(what: &str, got: &T, expected: &T) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?} got {got:?}"))
}

/// That a number lies between two others.
pub(crate) fn between(what: &str, got: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&got) {
        return Ok(());
    }
    Err(format!("{what}: expected {least} to {most} got {got}"))
}
