#!/bin/sh
# PID 1 of the guest: sets up what a small system has, runs /vm/command, hands back what it said.
export PATH=/bin HOME=/ TERM=dumb
die() { echo; echo "@eci-vm error: $*"; poweroff -f; }

mkdir -p /dev/pts /dev/shm /out
mount -t devpts -o gid=0,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
ln -sf pts/ptmx /dev/ptmx
# Without /dev/fd, TOMOYO of Linux 5.10 makes execveat fail, and OCI runtimes with it.
ln -sfn /proc/self/fd /dev/fd
ln -sfn fd/0 /dev/stdin
ln -sfn fd/1 /dev/stdout
ln -sfn fd/2 /dev/stderr
hostname eci-vm
ip link set lo up

# cgroup2 alone, as systemd leaves it: processes in a child, every controller handed down.
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup || die "cannot mount cgroup2"
mkdir /sys/fs/cgroup/init
while read -r pid; do echo "$pid" > /sys/fs/cgroup/init/cgroup.procs; done \
    < /sys/fs/cgroup/cgroup.procs 2>/dev/null
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control ||
        die "cannot enable the controller $controller"
done

if [ -b /dev/vdb ]; then
    mkswap /dev/vdb > /dev/null && swapon /dev/vdb || die "cannot swap to /dev/vdb"
fi

# Output goes to ports of its own: no kernel message can get into it, no terminal changes it.
port() {
    for dir in /sys/class/virtio-ports/*; do
        [ "$(cat "$dir/name" 2>/dev/null)" = "$1" ] && echo "/dev/${dir##*/}" && return
    done
    return 1
}
tries=0
until [ -c "$(port files)" ]; do
    tries=$((tries + 1)); [ $tries -lt 200 ] || die "no virtio port appeared"
    sleep 0.05
done
mkfifo /vm/stdout /vm/stderr
cat /vm/stdout > "$(port stdout)" & stdout=$!
cat /vm/stderr > "$(port stderr)" & stderr=$!

echo
echo "@eci-vm start"
cd /
sh /vm/command > /vm/stdout 2> /vm/stderr < /dev/null
status=$?

# What the command left behind holds the two pipes open: end it, so that their readers see the end.
for dir in /proc/[0-9]*; do
    pid=${dir##*/}
    case $pid in 1 | $stdout | $stderr) continue ;; esac
    [ -n "$(readlink "$dir/exe")" ] && kill -KILL "$pid"
done 2>/dev/null
wait $stdout $stderr
[ -z "$(ls -A /out)" ] || tar -c -C / out > "$(port files)" || die "cannot hand back /out"

# The kernel's messages must not break into the line that the host looks for.
echo 1 > /proc/sys/kernel/printk
echo
echo "@eci-vm exit $status"
poweroff -f
