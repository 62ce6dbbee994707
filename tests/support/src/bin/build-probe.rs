//! Builds the probe before the tests run, so that no test spends time on it.

fn main() {
    let target = std::env::args_os()
        .nth(1)
        .unwrap_or_else(|| "target".into());
    let program = support::build_probe(std::path::Path::new(&target));
    assert!(program.is_file(), "the probe was not built");
}
