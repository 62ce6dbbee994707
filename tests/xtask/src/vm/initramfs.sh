#!/bin/sh
# First program of the guest, in the initramfs: makes a root file system that pivot_root accepts
# (the initramfs itself cannot be pivoted away from), fills it from the first disk, goes there.
export PATH=/bin
die() { echo; echo "@eci-vm error: $*"; poweroff -f; }

mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t devtmpfs dev /dev ||
    die "cannot mount proc, sysfs, devtmpfs"
# A module may be there that this kernel cannot use; what matters is missed by name below.
for module in /modules/*.ko; do insmod "$module" 2>/dev/null; done

case " $(cat /proc/cmdline) " in
*" eci-vm-system "*) init=/sbin/init last=/dev/vdb ;;
*) init=/vm/init last=/dev/vda ;;
esac
tries=0
until [ -b /dev/vda ] && [ -b $last ]; do
    tries=$((tries + 1)); [ $tries -lt 200 ] || die "no disk $last appeared"
    sleep 0.05
done
if [ $init = /sbin/init ]; then
    mount -t ext4 /dev/vdb /root || die "cannot mount the disk of the system"
else
    mount -t tmpfs -o mode=755,size=95% root /root || die "cannot mount the root"
    mkdir -p /root/proc /root/sys /root/dev /root/run /root/tmp
    mount -t tmpfs -o mode=755 run /root/run
    mount -t tmpfs -o mode=1777 tmp /root/tmp
fi
tar -x -f /dev/vda -C /root || die "cannot unpack the files of the guest (more --memory?)"
[ $init = /vm/init ] || mv /root/vm/eci-vm.service /root/etc/systemd/system/ ||
    die "cannot place the service"
for dir in proc sys dev; do mount -o move /$dir /root/$dir || die "cannot move /$dir"; done
exec switch_root /root $init
