//! The tables of all emulated files. The server, the documentation and the tests walk them.

mod compile;

use crate::proc::fs as proc_fs;
use crate::proc::sys::kernel::{pty, random};
use crate::proc::sys::net::ipv4::{self, neigh, vs};
use crate::proc::sys::net::{core, netfilter};
use crate::proc::sys::{fs, kernel as sys_kernel, vm};
use crate::proc::{self, pressure};
use crate::sys::block;
use crate::sys::bus::memory::devices;
use crate::sys::devices::system::{self, cpu, memory, node};
use crate::sys::devices::virtual_::{self, dmi::id};
use crate::sys::kernel::mm::{self, hugepages, ksm, transparent_hugepage};
use crate::sys::module::nf_conntrack::parameters;
use crate::sys::{self, class, fs as sys_fs, kernel};
use crate::{Directory, Emulator, Tunable, View};

/// The tables of views, one for each directory that has any.
pub static VIEWS: &[&[View]] = &[
    proc::VIEWS,
    pressure::VIEWS,
    random::VIEWS,
    pty::VIEWS,
    cpu::VIEWS,
    id::VIEWS,
    kernel::VIEWS,
    fs::VIEWS,
];

/// The tables of tunables, one for each directory that has any. Views and tunables share one space of ids.
pub static TUNABLES: &[&[Tunable]] = &[
    sys_kernel::TUNABLES,
    sys_kernel::keys::TUNABLES,
    sys_kernel::yama::TUNABLES,
    fs::TUNABLES,
    fs::inotify::TUNABLES,
    vm::TUNABLES,
    core::TUNABLES,
    netfilter::TUNABLES,
    neigh::default::TUNABLES,
    vs::TUNABLES,
    parameters::TUNABLES,
];

/// All directory emulators. Files and directories share one space of ids.
pub static DIRECTORIES: &[&'static dyn Directory] = &[
    &cpu::Cpu,
    &node::Node,
    &kernel::DEBUG,
    &kernel::TRACING,
    &kernel::SECURITY,
    &kernel::CONFIG,
    &sys::FIRMWARE,
    &virtual_::POWERCAP,
    &core::CORE,
    &neigh::NEIGH,
    &vs::VS,
    &block::Block,
    &memory::Memory,
    &devices::Devices,
    &ipv4::Ipv4,
    &proc::IRQ,
    &proc_fs::EXT4,
    &proc_fs::JBD2,
    &proc_fs::XFS,
    &proc_fs::F2FS,
    &proc_fs::CIFS,
    &proc_fs::FSCACHE,
    &fs::QUOTA,
    &sys_fs::EXT4,
    &sys_fs::BTRFS,
    &sys_fs::XFS,
    &sys_fs::F2FS,
    &sys_fs::BCACHEFS,
    &sys_fs::NILFS2,
    &class::BDI,
    &class::THERMAL,
    &virtual_::BDI,
    &virtual_::THERMAL,
    &system::EDAC,
    &kernel::SLAB,
    &kernel::IRQ,
    &kernel::BOOT_PARAMS,
    &mm::DAMON,
    &mm::PAGE_IDLE,
    &mm::CMA,
    &hugepages::HUGEPAGES,
    &transparent_hugepage::TRANSPARENT_HUGEPAGE,
    &ksm::KSM,
];

/// All file emulators: the views sorted by id, then the tunables.
pub static EMULATORS: &[&'static dyn Emulator] = &compile::EMULATORS;

/// Returns the index into [`EMULATORS`] of the file with an id.
pub fn index(id: u16) -> Option<usize> {
    let index = *compile::INDICES.get(usize::from(id))?;
    (index != compile::NO_INDEX).then_some(usize::from(index))
}

/// Returns the file with an id.
pub fn emulator(id: u16) -> Option<&'static dyn Emulator> {
    EMULATORS.get(index(id)?).copied()
}

/// Returns the tunable with an id.
pub fn tunable(id: u16) -> Option<&'static Tunable> {
    emulator(id)?.tunable()
}
