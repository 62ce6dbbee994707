export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
set -e
cd /root
# `block NAME`: what a reader does who copies the commands of that page and heading.
block() {
    echo "ran $1"
    sh -e -x "/root/blocks/$1.sh" > /tmp/said 2> /tmp/errors ||
        { cat /tmp/said /tmp/errors >&2; echo "failed: $1"; journalctl -n 30 >&2; exit 1; }
    sed "s|^|$1: |" /tmp/said
}
say() { name=$1; shift; echo "$name: $("$@")"; }
first="head -n 1 /proc/meminfo"

block engines/installing-and-looking-whether-all-is-well
block operating/as-a-service
say "daemon" systemctl is-active eci-mountd
say "kept" systemctl show eci-mountd -p NFileDescriptorStore

docker load --quiet --input image.tar >&2
docker tag localhost/eci-test:1 busybox
block engines/docker
podman load --quiet --input image.tar >&2
podman tag localhost/eci-test:1 docker.io/library/busybox
block engines/podman
ctr images import image.tar >&2
ctr images tag localhost/eci-test:1 docker.io/library/busybox:latest >&2
block engines/containerd

# Both programs die at once, while somebody reads.
limits="--memory=256m --cpus=1"
docker run --detach --name one --runtime=eci $limits busybox sleep 100000 >&2
podman run --detach --name two $limits busybox sleep 100000 >&2
pid=$(docker inspect --format '{{.State.Pid}}' one)
grafts() { grep eci-fs "/proc/$pid/mountinfo" | cut -d' ' -f1 | sort; }
same() { grafts > /tmp/now; if cmp /tmp/before /tmp/now >&2; then echo the same; else echo other; fi; }
grafts > /tmp/before
say "docker before" docker exec one $first
mkfifo /tmp/readers
docker exec one sh -c 'echo begun; for i in $(seq 300); do head -n 1 /proc/meminfo; done | uniq' > /tmp/readers &
reader=$!
exec 9< /tmp/readers
read -r begun <&9
kill -9 "$(systemctl show eci-mountd -p MainPID --value)" "$(cut -d' ' -f1 /run/eci-fs/server)"
say "docker when both have died" docker exec one $first
say "podman when both have died" podman exec two $first
say "grafts when both have died" same
wait $reader
if [ "$(wc -l <&9)" = 1 ]; then echo "readers: all alike"; fi
exec 9<&-
say "restarts" systemctl show eci-mountd -p NRestarts
systemctl reload eci-mountd
say "docker after a reload" docker exec one $first
say "grafts after a reload" same
systemctl restart eci-mountd
if [ "$(docker exec one $first)" = "$($first)" ]; then echo "docker after a restart: as the machine"; fi
eci-fs attach "$pid" >&2
say "docker attached again" docker exec one $first
docker rm --force one >&2
podman rm --force --time 0 two >&2

block engines/kubernetes-with-containerd
ctr --namespace k8s.io images import image.tar >&2
pause=$(containerd config dump | sed -n 's/^ *sandbox_image = "\(.*\)"/\1/p')
ctr --namespace k8s.io images tag localhost/eci-test:1 "$pause" >&2
cri() { PATIENCE=120 python3 cri.py /run/containerd/containerd.sock "$@"; }
cri run eci localhost/eci-test:1 /eci > /tmp/ids
read -r pod container < /tmp/ids
cri limit "$container" 268435456
say "pod" cri exec "$container" $first
cri end "$pod"

sed 's/veth/empty/; /link\|flags/d' /etc/lxc/default.conf > lxc.conf
lxc-create --name one --template busybox --config lxc.conf >&2
cat blocks/engines/lxc.text >> /var/lib/lxc/one/config
echo "lxc.cgroup2.memory.max = 268435456" >> /var/lib/lxc/one/config
lxc-start --name one --logfile lxc.log --logpriority INFO || { cat lxc.log >&2; exit 1; }
say "lxc" lxc-attach --name one -- $first
lxc-stop --kill --name one

# What the page calls NAME and my-program.
mkdir -p rootfs/bin rootfs/etc rootfs/usr rootfs/proc rootfs/sys rootfs/dev
cp /bin/busybox rootfs/bin/
echo ID=fresh > rootfs/etc/os-release
systemd-run --quiet --unit=nspawn -p Type=notify -p MemoryMax=256M \
    systemd-nspawn --quiet --keep-unit --machine=NAME --directory=/root/rootfs /bin/busybox sleep 100000
printf '#!/bin/sh\necho begun > /tmp/begun\nread -r line < /tmp/begun\n' > /usr/local/bin/my-program
chmod +x /usr/local/bin/my-program
mkfifo /tmp/begun
systemd-run --quiet --unit=unshare -p MemoryMax=256M unshare --mount --pid --fork --mount-proc my-program
read -r begun < /tmp/begun
block engines/systemd-nspawn-unshare-bwrap
leader=$(machinectl show --property=Leader --value NAME)
say "nspawn" nsenter --all --target "$leader" /bin/busybox $first
say "unshare" nsenter --mount --target "$(pgrep --newest --exact my-program)" $first
machinectl terminate NAME
systemctl stop unshare

for engine in runc crun; do
    mkdir -p "bundles/$engine"
    (cd "bundles/$engine" && $engine spec)
    python3 - "bundles/$engine/config.json" << 'end'
import json, sys
config = json.load(open(sys.argv[1]))
config.update(json.loads("{" + open("/root/blocks/engines/runc-crun-youki.json").read() + "}"))
config["process"].update(terminal=False, args="/bin/busybox head -n 1 /proc/meminfo".split())
config["root"]["path"] = "/root/rootfs"
config["linux"]["cgroupsPath"] = "/one"
config["linux"]["resources"]["memory"] = {"limit": 256 << 20}
json.dump(config, open(sys.argv[1], "w"))
end
    say "config.json of $engine" $engine run --bundle "bundles/$engine" one
done

eci-fs doctor > doctor
sed -n 's/^ *ok *\(docker\|podman\|containerd\) [^ ]* uses eci-fs .*/doctor: ok \1 uses eci-fs/p' doctor
for engine in docker podman containerd; do eci-fs uninstall --engine $engine >&2; done
systemctl reload docker
systemctl restart containerd
if [ "$(eci-fs list --json)" = "[]" ]; then echo "left: none"; else eci-fs list; fi
