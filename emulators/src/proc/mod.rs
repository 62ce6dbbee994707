//! Views in /proc.
//!
//! A file that is computed in its own way has a source of its name. Files that are alike are rows in the table here.

pub mod buddyinfo;
pub mod cgroups;
pub mod cpuinfo;
pub mod diskstats;
pub mod fs;
pub mod loadavg;
pub mod meminfo;
pub mod modules;
pub mod pressure;
pub mod stat;
pub mod swaps;
pub mod sys;
pub mod uptime;
pub mod vmstat;
pub mod zoneinfo;

use crate::directory::Empty;
use crate::model::irq;
use crate::view::Render;
use crate::{Needs, View};

/// The files of this directory.
pub static VIEWS: &[View] = &[
    buddyinfo::VIEW,
    cgroups::VIEW,
    cpuinfo::VIEW,
    diskstats::VIEW,
    loadavg::VIEW,
    meminfo::VIEW,
    modules::VIEW,
    stat::VIEW,
    swaps::VIEW,
    uptime::VIEW,
    vmstat::VIEW,
    zoneinfo::VIEW,
    // show_interrupts, kernel/irq/proc.c.
    counts(31, "/proc/interrupts", irq::render_marked_counts)
        .sources(
            "cpuset.effective_cpus, cpu.cfs_quota_us, cpu.cfs_period_us",
            "cpuset.cpus.effective, cpu.max",
        )
        .invented("zeros, and in the first row a 1 for each CPU of V"),
    // show_softirqs, fs/proc/softirqs.c.
    counts(32, "/proc/softirqs", irq::render_counts),
    // These are headers without rows. Only root may read the kernel's files, so the server does not read them.
    View::constant(
        29,
        "/proc/pagetypeinfo",
        0o400,
        PAGETYPEINFO,
        "that there are no pages, in blocks of 2 MiB",
    ),
    View::constant(
        30,
        "/proc/slabinfo",
        0o400,
        SLABINFO,
        "that there are no caches: the kernel keeps no list per cgroup",
    ),
    // show_schedstat, kernel/sched/stats.c: it tells when others ran.
    View::hidden(34, "/proc/schedstat"),
    // timer_list_show, kernel/time/timer_list.c: the timers of the host.
    View::hidden(35, "/proc/timer_list"),
    // sched_debug_show, kernel/sched/debug.c: the tasks of the host. Gone since Linux 5.13.
    View::hidden(36, "/proc/sched_debug"),
    // lstats_show, kernel/latencytop.c: it tells what others wait for.
    View::hidden(37, "/proc/latency_stats"),
    // kpage_read, fs/proc/page.c: who uses each page of the host, and how.
    View::hidden(51, "/proc/kpagecount"),
    View::hidden(52, "/proc/kpageflags"),
    View::hidden(53, "/proc/kpagecgroup"),
    // vmalloc_info_show, mm/vmalloc.c: one line for the stack of each thread of the host.
    View::hidden(54, "/proc/vmallocinfo"),
    // allocinfo_show, lib/alloc_tag.c: the memory that each line of the kernel has allocated.
    View::hidden(55, "/proc/allocinfo"),
    // lock_stat_show, kernel/locking/lockdep_proc.c: who waits for locks of the kernel.
    View::hidden(56, "/proc/lock_stat"),
    // proc_key_users_show, security/keys/proc.c: the keys of each user of the host, or of those that containers share.
    View::constant(
        57,
        "/proc/key-users",
        0o444,
        b"",
        "that no user has keys: the kernel keeps no count per container",
    ),
    // md_seq_show, drivers/md/md.c: the RAID arrays of the host.
    View::constant(
        58,
        "/proc/mdstat",
        0o444,
        b"Personalities : \nunused devices: <none>\n",
        "that there are no arrays",
    )
    .only_for(|cx| !cx.can_measure_cpus()),
];

/// Where interrupts go, and how many nobody wanted. Programs that spread interrupts write to it.
pub static IRQ: Empty = Empty::new(143, "/proc/irq", 0o555).unless_measuring();

/// Returns the row of a table with a column for each CPU. Rows and columns are the kernel's, and the numbers are 0: the
/// counts tell what other containers do.
const fn counts(id: u16, path: &'static str, render: Render) -> View {
    View::new(id, path, render)
        .steady()
        .invented("zeros")
        .needs(Needs::CGROUP)
}

/// pagetypeinfo_show, mm/vmstat.c.
const PAGETYPEINFO: &[u8] = concat!(
    "Page block order: 9\n",
    "Pages per block:  512\n",
    "\n",
    "Free pages count per migrate type at order ",
    "      0      1      2      3      4      5      6      7      8      9     10 \n",
    "\n",
    "Number of blocks type ",
    "    Unmovable      Movable  Reclaimable   HighAtomic      Isolate \n",
)
.as_bytes();

/// print_slabinfo_header, mm/slab_common.c.
const SLABINFO: &[u8] = b"slabinfo - version: 2.1\n\
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> \
: tunables <limit> <batchcount> <sharedfactor> \
: slabdata <active_slabs> <num_slabs> <sharedavail>\n";
