export PATH=/bin:/usr/bin
set -e
# `until_it_says TEXT LOG COMMAND...`: in the background from then on, as $started.
until_it_says() {
    text=$1 log=$2; shift 2
    mkfifo "$log.said"
    "$@" > "$log.said" 2>&1 & started=$!
    exec 7< "$log.said"
    while read -r line <&7; do
        echo "$line" >> "$log"
        case $line in *"$text"*) cat <&7 >> "$log" & exec 7<&-; return ;; esac
    done
    cat "$log" >&2
    exit 1
}
