//! The built-in rules about volumes and devices of the host. docs/isolation.md lists them.

use super::rules::Access;

/// Restricted directories of the host, with the access that containers have to them and to everything below.
const RESTRICTED: &[(Access, &[&str])] = &[
    (
        Access::None,
        &[
            "/boot",
            "/dev",
            "/efi",
            "/etc",
            "/proc",
            "/root/.bash_profile",
            "/root/.bashrc",
            "/root/.config",
            "/root/.docker",
            "/root/.kube",
            "/root/.profile",
            "/root/.ssh",
            "/run",
            "/sys",
            "/var/lib/cni",
            "/var/lib/containerd",
            "/var/lib/containers",
            "/var/lib/crio",
            "/var/lib/docker",
            "/var/lib/dpkg",
            "/var/lib/etcd",
            "/var/lib/incus",
            "/var/lib/kubelet",
            "/var/lib/lxc",
            "/var/lib/lxd",
            "/var/lib/machines",
            "/var/lib/rancher",
            "/var/lib/rpm",
            "/var/lib/systemd",
            "/var/spool/at",
            "/var/spool/cron",
        ],
    ),
    // Root of the host executes what is in these.
    (
        Access::ReadOnly,
        &[
            "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/snap", "/sbin", "/usr",
        ],
    ),
];

/// Paths below those directories that containers may have all the same: files that engines put into each container, and
/// files that tell nothing of the host. A `*` stands for any letters of one name.
const ALLOWED: &[(Access, &[&str])] = &[
    (
        Access::ReadOnly,
        &[
            "/etc/ca-certificates",
            "/etc/hostname",
            "/etc/hosts",
            "/etc/localtime",
            "/etc/pki/ca-trust",
            "/etc/pki/tls/certs",
            "/etc/resolv.conf",
            "/etc/ssl/certs",
            "/etc/timezone",
            "/run/systemd/resolve/*resolv.conf",
            // Images as volumes.
            "/var/lib/containers/storage/*/*/merged",
            "/var/lib/docker/*/*/merged",
        ],
    ),
    (
        Access::ReadWrite,
        &[
            "/dev/full",
            "/dev/fuse",
            "/dev/net/tun",
            "/dev/null",
            "/dev/random",
            "/dev/tty",
            "/dev/urandom",
            "/dev/zero",
            // The kernel lets a container write only to the cgroups that it is given.
            "/sys/fs/cgroup",
            // Docker.
            "/var/lib/docker/buildkit/executor",
            "/var/lib/docker/containers/*/hostname",
            "/var/lib/docker/containers/*/hosts",
            "/var/lib/docker/containers/*/mounts",
            "/var/lib/docker/containers/*/resolv.conf",
            "/var/lib/docker/plugins/*/propagated-mount",
            "/var/lib/docker/volumes/*/_data",
            // Podman and CRI-O.
            "/run/containers/storage/*-containers/*/userdata/.containerenv",
            "/run/containers/storage/*-containers/*/userdata/group",
            "/run/containers/storage/*-containers/*/userdata/hostname",
            "/run/containers/storage/*-containers/*/userdata/hosts",
            "/run/containers/storage/*-containers/*/userdata/passwd",
            "/run/containers/storage/*-containers/*/userdata/resolv.conf",
            "/run/containers/storage/*-containers/*/userdata/run",
            "/run/containers/storage/*-containers/*/userdata/shm",
            "/var/lib/containers/storage/*-containers/*/userdata/overlay",
            "/var/lib/containers/storage/*-containers/*/userdata/secrets",
            "/var/lib/containers/storage/*-containers/*/userdata/shm",
            "/var/lib/containers/storage/volumes/*/_data",
            // The CRI plugin of containerd, and the kubelet.
            "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/*/shm",
            "/run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/*/shm",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/*/volumes",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/*/hostname",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/*/hosts",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/*/resolv.conf",
            "/var/lib/kubelet/pods/*/containers",
            "/var/lib/kubelet/pods/*/etc-hosts",
            "/var/lib/kubelet/pods/*/volume-subpaths",
            "/var/lib/kubelet/pods/*/volumes",
            "/var/lib/rancher/k3s/agent/containerd/io.containerd.grpc.v1.cri/containers/*/volumes",
            "/var/lib/rancher/k3s/agent/containerd/io.containerd.grpc.v1.cri/sandboxes/*/hostname",
            "/var/lib/rancher/k3s/agent/containerd/io.containerd.grpc.v1.cri/sandboxes/*/hosts",
            "/var/lib/rancher/k3s/agent/containerd/io.containerd.grpc.v1.cri/sandboxes/*/resolv.conf",
        ],
    ),
];

/// Paths at which engines keep the root file systems of containers.
const ROOTS: &[&str] = &[
    "/run/containerd/io.containerd.runtime.v2.task/*/*/rootfs",
    "/run/k3s/containerd/io.containerd.runtime.v2.task/*/*/rootfs",
    "/var/lib/containers/storage/*/*/merged",
    "/var/lib/containers/storage/*/dir/*",
    "/var/lib/containers/storage/*/subvolumes/*",
    "/var/lib/docker/*/*/merged",
    "/var/lib/docker/*/dir/*",
    "/var/lib/docker/*/graph/*",
    "/var/lib/docker/*/subvolumes/*",
    "/var/lib/docker/rootfs/*/*",
];

/// Paths at which they keep layers: those of images, and the upper directories of containers.
const LAYERS: &[&str] = &[
    "/var/lib/containerd/*/snapshots/*/fs",
    "/var/lib/containers/storage/*/*/diff",
    "/var/lib/containers/storage/*/*/empty",
    "/var/lib/containers/storage/*/*/merged",
    "/var/lib/containers/storage/*/l/*",
    "/var/lib/docker/*/*/diff",
    "/var/lib/docker/*/*/merged",
    "/var/lib/docker/*/l/*",
    "/var/lib/rancher/k3s/agent/containerd/*/snapshots/*/fs",
];

/// The upper directories of overlays that engines make for volumes.
const VOLUME_UPPERS: &[&str] = &["/var/lib/containers/storage/*-containers/*/userdata/overlay"];

/// Devices that read or write memory, disks or other devices of the host past all permissions, by type, first and last
/// major and minor number, with a name for messages.
const DEVICES: &[(bool, [u32; 2], [u32; 2], &str)] = &[
    (true, [0, u32::MAX], [0, u32::MAX], "a block device"),
    (false, [1, 1], [1, 2], "the memory of the host"),
    (false, [1, 1], [4, 4], "the ports of the host"),
    (false, [1, 1], [11, 11], "the log of the kernel"),
    (false, [10, 10], [144, 144], "the NVRAM of the host"),
    (
        false,
        [10, 10],
        [234, 237],
        "a control of file systems and disks",
    ),
    (false, [21, 21], [0, u32::MAX], "a SCSI device"),
    (false, [90, 90], [0, u32::MAX], "a flash memory"),
    (false, [162, 162], [0, u32::MAX], "a raw disk"),
    (false, [202, 203], [0, u32::MAX], "a CPU's registers"),
];

/// Returns the restricted directories.
pub(super) fn restricted() -> impl Iterator<Item = (&'static str, Access)> {
    of(RESTRICTED)
}

/// Returns the patterns of what is allowed below them as a volume.
pub(super) fn allowed() -> impl Iterator<Item = (&'static str, Access)> {
    of(ALLOWED)
}

/// Returns the patterns of paths that are allowed as a root file system.
pub(super) fn roots() -> impl Iterator<Item = (&'static str, Access)> {
    ROOTS.iter().map(|path| (*path, Access::ReadWrite))
}

/// Returns the patterns of paths that are allowed as layers of an overlay.
pub(super) fn layers() -> impl Iterator<Item = (&'static str, Access)> {
    let read = LAYERS.iter().map(|path| (*path, Access::ReadOnly));
    read.chain(volume_uppers())
}

/// Returns the patterns of paths that are allowed as the upper directory of a root file system.
pub(super) fn root_uppers() -> impl Iterator<Item = (&'static str, Access)> {
    let written = LAYERS.iter().map(|path| (*path, Access::ReadWrite));
    written.chain(volume_uppers())
}

fn volume_uppers() -> impl Iterator<Item = (&'static str, Access)> {
    VOLUME_UPPERS.iter().map(|path| (*path, Access::ReadWrite))
}

fn of(
    list: &'static [(Access, &'static [&'static str])],
) -> impl Iterator<Item = (&'static str, Access)> {
    list.iter()
        .flat_map(|(access, paths)| paths.iter().map(|path| (*path, *access)))
}

/// Kinds of character devices whose numbers differ from host to host, by the name of their class in sysfs.
const CLASSES: &[(&str, &str)] = &[
    ("bsg", "a SCSI device"),
    ("nvme", "a disk"),
    ("nvme-generic", "a disk"),
    ("scsi_generic", "a SCSI device"),
    ("uio", "a device with its memory"),
    ("watchdog", "a watchdog of the host"),
];

/// Returns what a device is, in words, if no container may have it.
pub(super) fn restricted_device(block: bool, major: u32, minor: u32) -> Option<&'static str> {
    let is_within = |[first, last]: [u32; 2], number| (first..=last).contains(&number);
    let by_number = DEVICES.iter().find(|(kind, majors, minors, _)| {
        *kind == block && is_within(*majors, major) && is_within(*minors, minor)
    });
    if let Some((_, _, _, what)) = by_number {
        return Some(what);
    }
    let class = std::fs::read_link(format!("/sys/dev/char/{major}:{minor}/subsystem")).ok()?;
    let class = class.file_name()?.to_str()?;
    let known = CLASSES.iter().find(|(name, _)| *name == class);
    known.filter(|_| !block).map(|(_, what)| *what)
}
