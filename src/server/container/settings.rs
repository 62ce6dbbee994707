//! The daemon's settings in the words of the emulators.

use eci_fs_emulators as emulators;
use eci_fs_protocol::link::{CpuIds, CpuQuota, Settings};

/// Returns those of the daemon's settings that change the text of views.
pub fn view_settings(settings: &Settings) -> emulators::Settings {
    emulators::Settings {
        cpu_ids: cpu_ids(settings.cpu_ids),
        cpu_quota: settings.cpu_quota.map(cpu_quota),
        host_clamp: settings.host_clamp,
    }
}

/// Returns the same choice as the emulators name it.
pub(super) fn cpu_ids(cpu_ids: CpuIds) -> emulators::CpuIds {
    match cpu_ids {
        CpuIds::Physical => emulators::CpuIds::Physical,
        CpuIds::Dense => emulators::CpuIds::Dense,
    }
}

/// Returns the same choice as the emulators name it.
pub(super) fn cpu_quota(cpu_quota: CpuQuota) -> emulators::CpuQuota {
    match cpu_quota {
        CpuQuota::Online => emulators::CpuQuota::Online,
        CpuQuota::Ignore => emulators::CpuQuota::Ignore,
    }
}
