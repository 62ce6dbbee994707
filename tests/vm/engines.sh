mkdir -p /tmp /run /var/tmp /etc/docker
echo containers:200000:1000000 | tee /etc/subuid > /etc/subgid
echo containers:x:999:999::/:/bin/false >> /etc/passwd

ln -s eci-fs /bin/eci-runc
ECI_FS_LOG=info until_it_says ready /tmp/mountd.log eci-fs mountd
for engine in docker podman; do eci-fs install --engine $engine --bin-dir /bin >&2; done

start_dockerd() {
    rm -f /tmp/dockerd.log.said
    until_it_says "API listen on" /tmp/dockerd.log dockerd --bridge none --iptables=false --ip6tables=false \
        --exec-opt native.cgroupdriver=cgroupfs
    dockerd=$started
}
start_dockerd
docker load --quiet --input /image.tar >&2
podman() { /usr/bin/podman --cgroup-manager cgroupfs --events-backend file "$@"; }
podman load --quiet --input /image.tar >&2

limits="--network=none --memory=128m --memory-swap=128m --cpus=0.5"
image=localhost/eci-test:1
show='echo $(sed -n "s/^MemTotal: *//p" /proc/meminfo), $(grep -c ^processor /proc/cpuinfo) CPU'
say() { name=$1; shift; echo "$name: $("$@")"; }

say "docker" docker run --rm --runtime=eci $limits $image sh -c "$show"
say "docker privileged" docker run --rm --runtime=eci --privileged $limits $image sh -c "$show"
docker run --detach --name one --runtime=eci $limits $image >&2
say "docker exec" docker exec one sh -c "$show"
docker update --memory=192m --memory-swap=192m --cpus=2 one >&2
say "docker update" docker exec one sh -c "$show"
docker rm --force one >&2

say "podman crun" podman run --rm --runtime=crun $limits $image sh -c "$show"
say "podman runc" podman run --rm --runtime=runc $limits $image sh -c "$show"
say "podman userns" podman run --rm --userns=auto:size=65536 $limits $image sh -c "$show"
say "podman privileged" podman run --rm --privileged $limits $image sh -c "$show"

eci-fs install --engine docker --bin-dir /bin --default-runtime >&2
kill $dockerd
wait $dockerd || true
start_dockerd
say "docker as default" docker run --rm $limits $image sh -c "$show"
kill $dockerd
wait $dockerd || true

echo "left: $(eci-fs list --json | grep -q '^\[\]$' && echo none || eci-fs list)"
