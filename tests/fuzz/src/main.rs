//! A target with libFuzzer around it. `cargo xtask fuzz` builds and runs this; the environment names the target.
#![no_main]

use std::sync::LazyLock;

use fuzz::Target;

/// The environment variable with the name of the target.
const NAME: &str = "ECI_FS_FUZZ_TARGET";

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var(NAME).unwrap_or_default();
    let target = fuzz::target(&name);
    target.unwrap_or_else(|| panic!("{NAME} is {name:?}, which is no target"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET.feed(bytes));
