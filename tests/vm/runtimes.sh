mkdir -p /tmp /run /rootfs/proc /rootfs/sys /rootfs/dev /rootfs/jobs
busybox --install -s /rootfs/bin
ln -s eci-fs /bin/eci-runc
ECI_FS_LOG=info until_it_says ready /tmp/mountd.log eci-fs mountd

# Where what runs, is mounted, and has a cgroup shows that something was left.
traces() {
    cut -d' ' -f5- /proc/self/mountinfo | sort
    find /sys/fs/cgroup -type d | sort
    for dir in /proc/[0-9]*; do readlink "$dir/exe"; done 2>/dev/null | grep -v /busybox | sort
    eci-fs list --json
}
traces > /tmp/before

# `prepare CONFIG NAME SCRIPT [MEBIBYTES]`: a bundle of that name whose container runs this script.
prepare() {
    mkdir -p "/bundles/$2"
    sed -e "s/@NAME@/$2/g" -e "s/134217728/$((${4:-128} << 20))/g" "/configs/$1.json" > "/bundles/$2/config.json"
    echo "$3" > "/rootfs/jobs/$2"
}
run() { $runtime run --bundle "/bundles/$1" "$1"; }
show='echo $(sed -n "s/^MemTotal: *//p" /proc/meminfo), $(grep -c ^processor /proc/cpuinfo) CPU'

# One that waits until its standard input ends, and is used meanwhile.
views() {
    mkfifo /tmp/in /tmp/out
    prepare "$1" one "$show; cat; exit 7"
    run one < /tmp/in > /tmp/out &
    running=$!
    exec 8> /tmp/in 9< /tmp/out
    read -r said <&9
    echo "$2: $said"
    $runtime update --memory $((192 << 20)) --memory-swap $((192 << 20)) --cpu-quota 200000 --cpu-period 100000 one
    echo "$2 exec after update: $($runtime exec one sh -c "$show")"
    exec 8>&-
    code=0; wait $running || code=$?
    exec 9<&-
    rm /tmp/in /tmp/out
    echo "$2 code: $code"
}

for engine in runc crun; do
    for user in "" -user; do
        runtime=$engine
        views "hooked$user" "$engine$user hook"
        runtime="eci-runc --eci-runtime-path /usr/bin/$engine"
        views "plain$user" "$engine$user eci-runc"
    done
done

# Some at once, each with a limit of its own; they stay until all have said what they see.
many=10
for engine in runc crun; do
    runtime=$engine
    mkfifo /tmp/in /tmp/out
    : > /tmp/wanted
    all=
    for i in $(seq $many); do
        prepare hooked "many$i" "$show; cat" $((64 + i))
        echo "$(((64 + i) << 10)) kB, 1 CPU" >> /tmp/wanted
        (run "many$i" || echo "many$i ended with $?") < /tmp/in > /tmp/out &
        all="$all $!"
    done
    exec 8> /tmp/in 9< /tmp/out
    for i in $(seq $many); do read -r line <&9; echo "$line"; done > /tmp/said
    listed=$(eci-fs list --json | grep -o '"id":' | wc -l)
    exec 8>&-
    for pid in $all; do wait $pid; done
    exec 9<&-
    rm /tmp/in /tmp/out
    if sort -n /tmp/said | diff - /tmp/wanted >&2; then echo "$engine at once: $listed, each its own"; fi
done

# What an engine says and does is the same with us and without.
note() {
    code=0; "$@" > /tmp/stdout 2> /tmp/stderr || code=$?
    echo "--- $*" | sed "s|$runtime|runtime|"
    echo "code $code"
    cut -c 1-300 /tmp/stdout /tmp/stderr | sed -e 's/time="[^"]*"/time/' -e '/"pid"/d' -e '/"created"/d'
}
job() { prepare plain same "$1"; note run same; }
script() {
    job 'echo out; echo err >&2; exit 42'
    job 'kill -9 $$'
    job 'ls /proc/self/fd | wc -l; env | sort; id; ulimit -n; cat /proc/self/oom_score_adj
        grep -E "^(Cap|NoNewPrivs|Seccomp)" /proc/self/status
        wc -c < /proc/kcore; ls /proc/acpi; echo > /file; echo > /proc/sysrq-trigger'
    prepare plain same 'wc -c; head -c 300000 /dev/zero | tr "\0" x'
    note run same < /rootfs/bin/busybox
    wc -c < /tmp/stdout
    prepare plain same true
    cp /bundles/same/config.json /bundles/kept
    for change in 's|/bin/sh|/no-such-program|' 's|/bin/sh|/proc/version|' 's|"cwd":"/"|"cwd":"/bin/sh"|'; do
        sed "$change" /bundles/kept > /bundles/same/config.json
        note run same
    done
    # One that ends when it is asked to.
    prepare plain same "trap 'echo bye; exit 9' TERM; echo ready; read -r line; read -r line"
    mkfifo /tmp/in /tmp/out
    note $runtime create --bundle /bundles/same same <> /tmp/in
    rm /tmp/in /tmp/out
    note $runtime state same
    note $runtime create --bundle /bundles/same same
    note $runtime delete same
    note $runtime delete --force same
    note $runtime state same
    mkfifo /tmp/in /tmp/out
    run same < /tmp/in > /tmp/out & running=$!
    exec 8> /tmp/in 9< /tmp/out
    read -r line <&9
    note $runtime exec same sh -c 'echo in; echo on >&2; exit 3'
    note $runtime exec same no-such-program
    note $runtime exec --user 1:1 --cwd /dev same sh -c 'id; pwd'
    note $runtime pause same
    note $runtime state same
    note $runtime resume same
    note $runtime kill same TERM
    code=0; wait $running || code=$?
    read -r line <&9
    echo "ended with $code, $line"
    exec 8>&- 9<&-
    rm /tmp/in /tmp/out
    note $runtime state same
}
for engine in runc crun; do
    runtime=$engine; script > /tmp/without
    runtime="eci-runc --eci-runtime-path /usr/bin/$engine"; script > /tmp/with
    if diff /tmp/without /tmp/with >&2; then echo "$engine: as without, $(grep -c ^--- /tmp/with) steps"; fi
done

traces > /tmp/after
if diff /tmp/before /tmp/after >&2; then echo "left: none"; fi
