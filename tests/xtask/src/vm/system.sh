#!/bin/sh
# The service of a guest with systemd: runs /vm/command, hands back what it said, powers off.
die() { echo; echo "@eci-vm error: $*"; systemctl poweroff --force --force; }
mkdir -p /out
# By the kernel's own names: udev may not have come to its links yet.
port() {
    for dir in /sys/class/virtio-ports/*; do
        [ "$(cat "$dir/name" 2>/dev/null)" = "$1" ] && echo "/dev/${dir##*/}" && return
    done
    return 1
}
[ -c "$(port stdout)" ] && [ -c "$(port stderr)" ] || die "there are no virtio ports"
echo
echo "@eci-vm start"
cd /root
sh /vm/command > "$(port stdout)" 2> "$(port stderr)" < /dev/null
status=$?
[ -z "$(ls -A /out)" ] || tar -c -C / out > "$(port files)" || die "cannot hand back /out"

# The kernel's messages must not break into the line that the host looks for.
echo 1 > /proc/sys/kernel/printk
echo
echo "@eci-vm exit $status"
systemctl poweroff --force --force
