
trap '[ ! -e /run/eci-fs/hook.log ] || cat /run/eci-fs/hook.log >&2' EXIT
mkdir -p /var/tmp /etc/docker
start_dockerd() {
    rm -f /tmp/dockerd.log.said
    until_it_says "API listen on" /tmp/dockerd.log dockerd --data-root /disk/dockerd --bridge none --iptables=false \
        --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs
    dockerd=$started
}
eci-fs install --engine docker --bin-dir /bin >&2
start_dockerd
docker load --quiet --input /image.tar >&2
podman() {
    /usr/bin/podman --root /disk/podman --cgroup-manager cgroupfs --events-backend file --runtime /bin/eci-runc "$@"
}
podman load --quiet --input /image.tar >&2

options="--network=none --volume=/disk/volume:/volume --memory=128m --memory-swap=128m"
image=localhost/eci-test:1
engine() { $engine "$@"; }
first_of() { engine exec "$1" cat /proc/self/uid_map | sed -n 's/^ *0 *\([1-9][0-9]*\) *65536$/\1/p'; }

# `engine_with ENGINE LABEL PROGRAM`: two containers at once, one of them restarted, and one that is privileged.
engine_with() {
    engine=$1 label="$1 with $2" runtime=
    if [ $engine = docker ]; then runtime=--runtime=eci; fi
    # Read at each call of the runtime. An emulated machine on a busy host takes its time.
    # youki was built without filters of system calls.
    case $3 in *youki) traps=false ;; *) traps=true ;; esac
    printf '[runtime]\npath = "%s"\n[hook]\ntimeout = 100\n[isolation]\nenabled = true\nsystem-calls = %s\n' "$3" $traps \
        > /etc/eci-fs/config.toml
    for name in one two; do engine run --detach --name $name $runtime $options $image >&2; done
    one=$(first_of one) two=$(first_of two)
    if [ $((one > two ? one - two : two - one)) -ge 65536 ]; then echo "$label ranges: exclusive"; fi
    echo "$label volume: $(engine exec one stat -c %u:%g /volume/file)"
    echo "$label memory: $(engine exec one sed -n 's/^MemTotal: *//p' /proc/meminfo)"
    engine exec one sh -c 'echo w:x:1234:1234::/:/bin/sh >> /etc/passwd; touch /made; chown 42:43 /made'
    echo "$label exec as w: $(engine exec --user w one id -u)"
    engine cp one:/etc/passwd /tmp/passwd
    echo "$label copied out: $(grep -c ^w: /tmp/passwd)"
    # podman enters the container's mount namespace, where the host's root has no id.
    if [ $engine = docker ]; then
        engine cp /config.json one:/copied
        echo "$label copied in: $(engine exec one stat -c %u:%g /copied)"
    fi
    engine restart --time 0 one >&2
    echo "$label again: $(engine exec one stat -c %u:%g /made)"
    if [ "$(first_of one)" != "$one" ]; then echo "$label again: other ids"; fi
    engine rm --force one two >&2
    engine run --rm --privileged $runtime $options $image sh -c \
        'sed "s/^ *0 *[1-9][0-9]* */ids: /" /proc/self/uid_map; dmesg > /dev/null 2>&1 || echo refused' |
        sed "s/^/$label privileged /"
}
end_engines() {
    kill $dockerd
    wait $dockerd || true
    if [ "$(eci-fs list --json)" = "[]" ]; then echo "engines left: none"; else eci-fs list; fi
}
