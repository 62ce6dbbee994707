mkdir -p /tmp /run /rootfs/proc /rootfs/sys /rootfs/dev /disk /etc/eci-fs
busybox --install -s /rootfs/bin
ln -s eci-fs /bin/eci-runc
# An emulated machine on a busy host takes its time.
printf '[hook]\ntimeout = 100\n[isolation]\nenabled = true\n' > /etc/eci-fs/config.toml
# Of those on a disk the owners can be mapped by each kernel, of those on a tmpfs by newer ones.
mount -t ext4 /dev/vdc /disk
mkdir -p /disk/volume /tmp/volume /disk/layer/bin /disk/layer/home/u /disk/layer/srv
for volume in /disk/volume /tmp/volume; do echo x > $volume/file; chown 1000:1000 $volume/file; done
cd /disk/layer
cp /rootfs/bin/probe bin/suidprobe
chown 1000:1000 bin/suidprobe && chmod 6755 bin/suidprobe
printf 'root:x:0:0::/:/bin/sh\nu:x:1000:1000::/:/bin/sh\nv:x:2000:2000::/:/bin/sh\n' > /rootfs/passwd
mkdir -p etc && mv /rootfs/passwd etc/passwd
echo f > home/u/f && chown 1000:1000 home/u/f && chmod 600 home/u/f
echo max > srv/max && chown 65535:65535 srv/max
echo gone > srv/gone
mv /job job
cd /
cp -r /rootfs /disk/rootfs
ECI_FS_LOG=info until_it_says ready /tmp/mountd.log eci-fs mountd

# Where what runs, is mounted, and has a cgroup shows that something was left. The stage ends with the last range, which a
# thread of the daemon frees.
traces() {
    cut -d' ' -f5- /proc/self/mountinfo | grep -v eci-fs-stage | sort
    find /sys/fs/cgroup -type d | sort
    for dir in /proc/[0-9]*; do readlink "$dir/exe"; done 2>/dev/null | grep -v /busybox | sort
    eci-fs list --json
}

# `disk NAME`: an overlay as Docker's, with relative layers below a directory that only root can enter.
disk() {
    mkdir -p "/disk/docker/$1/diff" "/disk/docker/$1/work" "/disk/docker/$1/merged" /disk/docker/l
    chmod 710 /disk/docker
    ln -sfn /disk/layer /disk/docker/l/A; ln -sfn /disk/rootfs /disk/docker/l/B
    (cd /disk/docker && mount -t overlay overlay "$1/merged" \
        -o "lowerdir=l/A:l/B,upperdir=/disk/docker/$1/diff,workdir=/disk/docker/$1/work")
    mkdir -p "/bundles/$1"
}
begin() {
    # The file is written anew, because the hook has been added to it.
    sed "s/@NAME@/$1/g; $odd" /config.json > "/bundles/$1/config.json"
    mkfifo "/tmp/$1.in" "/tmp/$1.out"
    $runtime run --bundle "/bundles/$1" "$1" < "/tmp/$1.in" > "/tmp/$1.out" & started=$!
}
listen() { while read -r line; do [ "$line" != ready ] || return 0; echo "$line"; done; return 1; }
first_id() { sed -n 's/^map: 0 \([0-9]*\) 65536$/\1/p' "$1"; }
pid_of() { $runtime state "$1" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'; }

# `isolated LABEL PROGRAM`: two containers at once, and one of them once more.
isolated() {
    runtime="eci-runc --eci-runtime-path $2"
    # It sets limits when it is in the user namespace, where none can be raised above those that it has itself.
    if [ "$1" = youki ]; then odd='s/"rlimits":\[[^]]*\]/"rlimits":[]/'; else odd=; fi
    # It was built without filters of system calls.
    if [ "$1" = youki ]; then traps=false; else traps=true; fi
    printf '[hook]\ntimeout = 100\n[isolation]\nenabled = true\nsystem-calls = %s\n' $traps > /etc/eci-fs/config.toml
    traces > /tmp/before
    disk "$1-a"; disk "$1-b"
    begin "$1-a"; a=$started; exec 4> "/tmp/$1-a.in" 5< "/tmp/$1-a.out"; listen <&5 > /tmp/a
    begin "$1-b"; b=$started; exec 6> "/tmp/$1-b.in" 7< "/tmp/$1-b.out"; listen <&7 > /tmp/b
    grep -v ^map /tmp/a | sed "s/^/$1 /"
    one=$(first_id /tmp/a) two=$(first_id /tmp/b)
    if [ $((one > two ? one - two : two - one)) -ge 65536 ]; then echo "$1 ranges: exclusive"; fi
    pid=$(pid_of "$1-a")
    grep -E '^[UG]id' "/proc/$pid/status" | tr '\t' ' ' | sed "s/$one/first/g; s/^/$1 on the host /"
    eci-fs list | grep -c "$one" | sed "s/^/$1 listed: /"
    if [ "$1" = youki ]; then
        # It would not enter the user namespace.
        $runtime exec "$1-a" true 2>&1 | grep -c 'root of the host' | sed "s/^/$1 refused: /"
    else
        $runtime exec "$1-a" sh -c 'echo again > /dev/stdout; cat /proc/self/uid_map' | tr -s ' ' |
            sed "s/$one/first/; s/^/$1 exec: /"
        $runtime exec --user 1000:1000 "$1-a" sh -c 'cat /home/u/f; id -u' | sed "s/^/$1 exec as u: /"
    fi
    (cd "/disk/docker/$1-a/diff" && stat -c '%n %u:%g:%a' made) | sed "s/^/$1 on the disk: /"
    stat -c '%n %u:%g' "/disk/volume/of-$1-a" "/disk/volume/of-$1-b" | sed "s/^/$1 on the disk: /"
    exec 4>&- 6>&-
    wait $a $b
    exec 5<&- 7<&-
    rm /tmp/*.in /tmp/*.out
    begin "$1-a"; a=$started; exec 4> "/tmp/$1-a.in" 5< "/tmp/$1-a.out"; listen <&5 > /tmp/a
    grep again /tmp/a | sed "s/^/$1 /"
    if [ "$(first_id /tmp/a)" != "$one" ]; then echo "$1 again: other ids"; fi
    exec 4>&-; wait $a; exec 5<&-
    rm /tmp/*.in /tmp/*.out
    umount "/disk/docker/$1-a/merged" "/disk/docker/$1-b/merged"
    traces > /tmp/after
    if diff /tmp/before /tmp/after >&2; then echo "$1 left: none"; fi
}
