//! The log of both programs: standard error, at the level that `ECI_FS_LOG` names.

use tracing_subscriber::EnvFilter;

/// The environment variable with the filter, in the syntax of `tracing_subscriber::EnvFilter`.
pub const FILTER: &str = "ECI_FS_LOG";

/// Starts logging. A second call does nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("warn"));
    // It fails only where a subscriber has been set already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that cannot be written is no reason to end: the message about it would panic.
        .log_internal_errors(false)
        .try_init();
}
