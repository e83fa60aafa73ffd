#!/bin/sh
# A Slurm cluster of one controller and two nodes of two cores each, on this machine: each is a network
# namespace with an address of its own. Needs root, and `scripts/deps.sh slurm`.
#
#   tests/slurm/cluster.sh up DIR [LINE…]     DIR: a new directory for all of it; more lines of slurm.conf
#   tests/slurm/cluster.sh on DIR HOST CMD…   runs a command as on ctl, h1 or h2
#   tests/slurm/cluster.sh start DIR HOST     the Slurm daemon of a host, after it was killed
#   tests/slurm/cluster.sh pids DIR HOST NAME the processes there whose program has this name
#   tests/slurm/cluster.sh cut DIR NODE       pulls a node's cable; `join` plugs it in again
#   tests/slurm/cluster.sh down DIR           stops all and removes it
#
# The daemons' process ids are in DIR/pids, their logs in DIR/logs. Jobs have their temporary files in DIR/tmp/NODE.
set -eu

controller=ctl
nodes='h1 h2'

usage() {
    sed -n 's/^#   //p' "$0" >&2
    exit 2
}

[ $# -ge 2 ] || usage
verb=$1
dir=$2
shift 2
case $dir in /*) ;; *) echo "DIR must be an absolute path, got $dir" >&2 && exit 2 ;; esac
# Namespaces have names for the whole machine: others may have a cluster too.
space() { echo "ovrd-$(echo "$dir" | cksum | cut -d' ' -f1)-$1"; }
address() {
    case $1 in
    ctl) echo 10.77.0.1 ;;
    h1) echo 10.77.0.11 ;;
    h2) echo 10.77.0.12 ;;
    *) usage ;;
    esac
}

# A process sees the network and the name of its host, and knows the others by name.
on() {
    host=$1
    shift
    # shellcheck disable=SC2016
    SLURM_CONF=$dir/slurm.conf exec nsenter --net="/run/netns/$(space "$host")" unshare --uts --mount sh -c '
        hostname "$1" && mount --bind "$2/hosts" /etc/hosts && shift 2 && exec "$@"' sh "$host" "$dir" "$@"
}

start() {
    case $1 in
    "$controller") (on "$1" slurmctld) ;;
    *) (on "$1" slurmd -N "$1") ;;
    esac
}

configure() {
    mkdir -p "$dir/state" "$dir/pids" "$dir/logs" "$dir/munge" "$dir/tmp"
    chmod 755 "$dir" "$dir/munge"
    echo '127.0.0.1 localhost' >"$dir/hosts"
    for host in $controller $nodes; do
        echo "$(address "$host") $host" >>"$dir/hosts"
    done
    # shellcheck disable=SC2016
    printf '#!/bin/sh\necho "export TMPDIR=%s/tmp/$SLURMD_NODENAME"\n' "$dir" >"$dir/prolog"
    chmod 755 "$dir/prolog"
    head -c 128 /dev/urandom >"$dir/munge/key"
    chmod 600 "$dir/munge/key"
    # Quick to notice things, and nothing that takes a cluster's own accounts or control groups.
    cat >"$dir/slurm.conf" <<END
ClusterName=ovrd
SlurmctldHost=$controller($(address $controller))
SlurmUser=root
AuthInfo=socket=$dir/munge/socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/pids/$controller
SlurmdPidFile=$dir/pids/%n
SlurmctldLogFile=$dir/logs/$controller
SlurmdLogFile=$dir/logs/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog=$dir/prolog
TmpFS=$dir/tmp/%n
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
MessageTimeout=5
SlurmdTimeout=10
KillWait=5
ReturnToService=2
JobRequeue=0
MailProg=/bin/true
NodeName=h1 NodeAddr=$(address h1) CPUs=2 RealMemory=4000
NodeName=h2 NodeAddr=$(address h2) CPUs=2 RealMemory=4000
PartitionName=main Nodes=h1,h2 Default=YES State=UP
END
    [ $# -eq 0 ] || printf '%s\n' "$@" >>"$dir/slurm.conf"
}

# A switch in the controller's namespace, and a cable to each node.
connect() {
    for host in $controller $nodes; do
        ip netns add "$(space "$host")"
        ip -n "$(space "$host")" link set lo up
    done
    hub=$(space $controller)
    ip -n "$hub" link add switch type bridge
    ip -n "$hub" addr add "$(address $controller)/24" dev switch
    ip -n "$hub" link set switch up
    for node in $nodes; do
        ip -n "$hub" link add "to-$node" type veth peer name lan netns "$(space "$node")"
        ip -n "$hub" link set "to-$node" master switch up
        ip -n "$(space "$node")" addr add "$(address "$node")/24" dev lan
        ip -n "$(space "$node")" link set lan up
    done
}

pids() {
    for pid in $(ip netns pids "$(space "$1")"); do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$2" ] || echo "$pid"
    done
}

wait_for_nodes() {
    for _ in $(seq 100); do
        idle=$( (on $controller timeout 5 sinfo --noheader --Node --format=%T) 2>/dev/null | grep -c '^idle$' || true)
        [ "$idle" = 2 ] && return 0
        sleep 0.1
    done
    echo "The nodes did not come up; see $dir/logs" >&2
    return 1
}

up() {
    mkdir "$dir"
    trap down EXIT
    configure "$@"
    connect
    munged --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/pids/munged" \
        --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
    for host in $controller $nodes; do
        mkdir -p "$dir/spool-$host" "$dir/tmp/$host"
        start "$host"
    done
    wait_for_nodes
    trap - EXIT
}

# Also what is left of half a cluster. A job's processes end with their node.
down() {
    [ -d "$dir/pids" ] || return 0
    for file in "$dir"/pids/*; do
        [ -s "$file" ] && kill -KILL "$(cat "$file")" 2>/dev/null || true
    done
    for host in $controller $nodes; do
        name=$(space "$host")
        ip netns pids "$name" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true
        ip netns delete "$name" 2>/dev/null || true
    done
    rm -rf "$dir"
}

case $verb in
up) up "$@" ;;
on) [ $# -ge 2 ] || usage; on "$@" ;;
start) [ $# -eq 1 ] || usage; start "$1" ;;
pids) [ $# -eq 2 ] || usage; pids "$@" ;;
cut) ip -n "$(space $controller)" link set "to-$1" down ;;
join) ip -n "$(space $controller)" link set "to-$1" up ;;
down) down ;;
*) usage ;;
esac
