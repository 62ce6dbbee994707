export PATH=/bin:/usr/bin
set -e
# `until_it_says TEXT LOG COMMAND...`: in the background from then on, as $started.
until_it_says() {
    text=$1 log=$2; shift 2
    mkfifo "$log.said"
    # Opened both ways first, so that neither end waits for the other: the end of a child would interrupt that.
    exec 7<> "$log.said" 8< "$log.said" 9> "$log.said"
    "$@" >&9 2>&1 7<&- 8<&- 9>&- & started=$!
    exec 7<&- 9>&-
    while read -r line <&8; do
        echo "$line" >> "$log"
        case $line in *"$text"*) cat <&8 >> "$log" & exec 8<&-; return ;; esac
    done
    cat "$log" >&2
    exit 1
}
