//! The lists of all emulators. The server, the documentation and the tests walk them.

use crate::proc::sys::net::ipv4::{neigh, vs};
use crate::proc::sys::net::{core, netfilter};
use crate::proc::sys::{fs, kernel as sys_kernel, vm};
use crate::proc::{self, pressure};
use crate::sys::devices::system::{cpu, node};
use crate::sys::devices::virtual_::{dmi::id, powercap};
use crate::sys::module::nf_conntrack::parameters;
use crate::sys::{firmware, kernel};
use crate::tunable::Tunable;
use crate::{Directory, Emulator};

/// The tables of tunables, one for each directory that has any. Their ids are from the same numbers.
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

/// The tunable with an id.
pub fn tunable(id: u16) -> Option<&'static Tunable> {
    TUNABLES
        .iter()
        .copied()
        .flatten()
        .find(|tunable| tunable.facts().id == id)
}

/// All file emulators, tunables last. Their ids are never given again to another file.
pub static EMULATORS: &[&'static dyn Emulator] = &with_tunables::<{ VIEWS.len() + count() }>();

const VIEWS: &[&'static dyn Emulator] = &[
    &proc::uptime::Uptime,
    &proc::meminfo::Meminfo,
    &proc::cpuinfo::Cpuinfo,
    &proc::stat::Stat,
    &proc::swaps::Swaps,
    &proc::loadavg::Loadavg,
    &cpu::online::Online,
    &cpu::possible::Possible,
    &cpu::present::Present,
    &cpu::offline::Offline,
    &proc::vmstat::Vmstat,
    &proc::zoneinfo::Zoneinfo,
    &proc::buddyinfo::Buddyinfo,
    &proc::pagetypeinfo::Pagetypeinfo,
    &proc::slabinfo::Slabinfo,
    &proc::interrupts::Interrupts,
    &proc::softirqs::Softirqs,
    &proc::diskstats::Diskstats,
    &proc::schedstat::Schedstat,
    &proc::timer_list::TimerList,
    &proc::sched_debug::SchedDebug,
    &proc::latency_stats::LatencyStats,
    &pressure::cpu::Cpu,
    &pressure::memory::Memory,
    &pressure::io::Io,
    &pressure::irq::Irq,
    &proc::sys::kernel::random::boot_id::BootId,
    &id::product_uuid::ProductUuid,
    &id::product_serial::ProductSerial,
    &id::board_serial::BoardSerial,
    &id::chassis_serial::ChassisSerial,
    &kernel::notes::Notes,
];

#[allow(clippy::indexing_slicing, reason = "evaluated when compiling")]
const fn count() -> usize {
    let (mut count, mut table) = (0, 0);
    while table < TUNABLES.len() {
        count += TUNABLES[table].len();
        table += 1;
    }
    count
}

/// One table of all. It is made when this is compiled, so no index can be wrong at another time.
#[allow(clippy::indexing_slicing, reason = "evaluated when compiling")]
const fn with_tunables<const N: usize>() -> [&'static dyn Emulator; N] {
    let mut all = [VIEWS[0]; N];
    let mut next = 0;
    while next < VIEWS.len() {
        all[next] = VIEWS[next];
        next += 1;
    }
    let mut table = 0;
    while table < TUNABLES.len() {
        let mut row = 0;
        while row < TUNABLES[table].len() {
            all[next] = &TUNABLES[table][row];
            next += 1;
            row += 1;
        }
        table += 1;
    }
    all
}

/// All directory emulators. Their ids are from the same numbers.
pub static DIRECTORIES: &[&'static dyn Directory] = &[
    &cpu::Cpu,
    &node::Node,
    &kernel::debug::DEBUG,
    &kernel::tracing::TRACING,
    &kernel::security::SECURITY,
    &kernel::config::CONFIG,
    &firmware::FIRMWARE,
    &powercap::POWERCAP,
    &core::CORE,
    &neigh::NEIGH,
    &vs::VS,
];
