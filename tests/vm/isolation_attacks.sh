set_locks() {
    # Read at each call of the runtime.
    printf '[hook]\ntimeout = 100\n[isolation]\nenabled = true\nlocked-mounts = %s\n' "$1" > /etc/eci-fs/config.toml
}

# `attempt RUNTIME NAME`: makes the attempt in a container of its own, and prints what it got.
attempt() {
    case $2 in mask-* | ro-sys*) config=/hidden.json ;; *) config=/bare.json ;; esac
    case $2 in ro-root*) readonly=true ;; *) readonly=false ;; esac
    sed "s/@NAME@/$1/g; s/@ATTEMPT@/$2/; s/\"@READONLY@\"/$readonly/" $config > "/bundles/$1/config.json"
    $runtime run --bundle "/bundles/$1" "$1"
    rm -f /disk/volume/w
}

# `attacks LABEL PROGRAM`: all attempts with locks, and some without.
attacks() {
    runtime="eci-runc --eci-runtime-path $2"
    disk "$1"
    for dir in mnt tmp vol; do mkdir -p "/disk/docker/$1/merged/$dir"; done
    set_locks true
    held=0
    for name in $(/rootfs/bin/probe breaches | sed 's/.*\[//; s/\].*//' | tr -d '"' | tr , ' '); do
        said=$(attempt "$1" "$name")
        case $said in
            *'"breach":false'*) held=$((held + 1)) ;;
            *) echo "$1 $name: $said" ;;
        esac
    done
    echo "$1 held: $held"
    set_locks false
    for name in umount-detach bind-proc proc; do
        case $(attempt "$1" "$name") in *'"breach":true'*) echo "$1 without locks: $name" ;; esac
    done
    umount "/disk/docker/$1/merged"
}

# `reach LABEL PROGRAM`: what a privileged container gets of the host. The other container is the host itself.
reach() {
    runtime="eci-runc --eci-runtime-path $2"
    set_locks false
    disk "$1-reach"
    mkdir -p "/disk/docker/$1-reach/merged/tmp" /sys/fs/cgroup/other
    key=$(/rootfs/bin/probe add-key | sed 's/[^0-9]//g')
    sed "s/@NAME@/$1-reach/g; s/@PID@/$$/; s/@KEY@/$key/" /reach.json > "/bundles/$1-reach/config.json"
    echo "$1 reached: $($runtime run --bundle "/bundles/$1-reach" "$1-reach")"
    # Root of the guest, for whom most of it is allowed: without a container, on a host that nobody needs.
    mkdir -p /vol /v
    echo "$1 without a container: $(/rootfs/bin/probe reach $$ /sys/fs/cgroup/other "$key")"
    rmdir /sys/fs/cgroup/other
    umount "/disk/docker/$1-reach/merged"
}
