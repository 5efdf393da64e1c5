# What the scripts of this repository share: packages, a Rust toolchain, the build's folder, Docker.
# Sourced, not run. Every step says what it does and how long it took.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/forestay/target}"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"
export PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() { printf '\033[1;31merror:\033[0m %s\n' "$*" >&2; exit 1; }

# step TEXT COMMAND...: runs a command that may take long, with its output in the log and its time on the screen.
step() {
    local text=$1 log began=$SECONDS; shift
    log=$(mktemp "${TMPDIR:-/tmp}/forestay-step.XXXXXX")
    printf '\033[1m==>\033[0m %s ' "$text"
    "$@" >"$log" 2>&1 &
    local pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        [ $(((SECONDS - began) % 5)) = 0 ] && printf '.'
    done
    if wait "$pid"; then
        printf ' done (%ss)\n' $((SECONDS - began)); rm -f "$log"
    else
        printf ' FAILED\n'; tail -n 60 "$log" >&2; rm -f "$log"; fail "$text: see above"
    fi
}

packages_are_listed=
# need_packages NAME...: installs those of Debian's packages that are missing.
need_packages() {
    local name missing=()
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${Status}' "$name" 2>/dev/null)" = "install ok installed" ] || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return
    [ "$(id -u)" = 0 ] || fail "these packages are missing: ${missing[*]}. Install them, or run this as root"
    export DEBIAN_FRONTEND=noninteractive
    if [ -z "$packages_are_listed" ]; then
        step "Updating the list of packages" apt-get update -q
        packages_are_listed=yes
    fi
    step "Installing ${missing[*]}" apt-get install -yq --no-install-recommends "${missing[@]}"
}

# The least Rust that builds this: `rust-version` in Cargo.toml.
rust_is_new_enough() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    have=$(rustc --version 2>/dev/null | awk '{print $2}') && command -v cargo >/dev/null || return 1
    [ -n "$have" ] && [ "$(printf '%s\n%s\n' "$wanted" "${have%%-*}" | sort -V | head -n 1)" = "$wanted" ]
}

need_rust() {
    need_packages ca-certificates git gcc libc6-dev libclang-dev librocksdb-dev
    rust_is_new_enough && return
    need_packages rustc-web cargo-web
    hash -r
    rust_is_new_enough || fail "Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml") or newer is needed; found: $(rustc --version 2>&1). Debian's security suite has it as rustc-web and cargo-web; rustup has it too"
}

# RocksDB and Snappy are linked statically from Debian's packages; their folder carries the machine's triplet.
rocksdb_environment() {
    local folder
    folder=/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)
    export ROCKSDB_LIB_DIR=$folder SNAPPY_LIB_DIR=$folder
}

docker_root=/var/lib/docker
docker_answers() { docker version >/dev/null 2>&1; }

# need_docker PIDFILE: starts dockerd where none answers, and leaves its pid in the file only then.
need_docker() {
    local pidfile=$1 log=${1%.pid}.log
    need_packages docker.io
    docker_answers && return
    [ "$(id -u)" = 0 ] || fail "Docker does not answer, and only root can start it"
    mkdir -p "$(dirname "$pidfile")"
    say "Starting dockerd (log: $log)"
    mountpoint -q "$docker_root" || touch "${pidfile%.pid}.mount"
    # Pods are wired by the kubelet: Docker's own bridge and packet filter rules are not needed, and leave traces.
    setsid nohup dockerd --pidfile "$pidfile.docker" --bridge=none --iptables=false --ip-forward=false --ip-masq=false \
        >"$log" 2>&1 </dev/null &
    local pid=$! waited=0
    until docker_answers; do
        kill -0 "$pid" 2>/dev/null || { tail -n 20 "$log" >&2; fail "dockerd ended; its last words are above"; }
        [ $waited -lt 300 ] || fail "dockerd does not answer after 60 s; see $log"
        sleep 0.2; waited=$((waited + 1))
    done
    echo "$pid" >"$pidfile"
}

# stop_docker PIDFILE: ends the dockerd that need_docker started. Below a private mount it mounts its own folder upon
# itself, and leaves that where the root is a bind mount, as a chroot's can be.
stop_docker() {
    local pidfile=$1 mount=${1%.pid}.mount
    stop_pid "$pidfile" 30
    if [ -f "$mount" ]; then
        if mountpoint -q "$docker_root"; then umount "$docker_root"; fi
        rm -f "$mount"
    fi
}

# is_alive PID: it runs; one that ended and waits for a parent that never asks (a container's first process) does not.
is_alive() { kill -0 "$1" 2>/dev/null && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }

# stop_pid PIDFILE SECONDS: ends the process the file names, first kindly.
stop_pid() {
    local pidfile=$1 patience=$2 pid waited=0
    [ -f "$pidfile" ] || return 0
    pid=$(cat "$pidfile")
    if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
        while is_alive "$pid"; do
            [ $waited -lt $((patience * 5)) ] || { kill -9 "$pid" 2>/dev/null; break; }
            sleep 0.2; waited=$((waited + 1))
        done
    fi
    rm -f "$pidfile"
}
