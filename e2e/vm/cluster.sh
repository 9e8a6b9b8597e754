# A control plane and a node of ours in one machine: what of the cluster tests and of upstream's
# specs only cgroup v2 and all capabilities can show; sourced by run.

# What the bed calls on its host.
cluster_packages=(docker-registry iptables nftables conntrack ipset curl procps openssl)

# The cluster tests that speak of cgroups; VM_FILTER names others.
cluster_tests='a_pod_runs_logs limits_are resize_reaches resize_restarts pods_as_a_whole a_reserved_cgroup system_oom swap_is pressure_of huge_pages_are'

# Where the bed keeps what it has built: here, and in a machine, whose HOME is root's.
built=${cache%/vm}
home=/root/.cache/lighter-bed

# bed_root NAME SUITE ROOT BIN: the root of that machine with the bed in BIN, with its tree, which it knows by its path,
# and with all that it has built already: nothing is built or fetched inside. Runs in the repository.
bed_root() {
    local name=$1 suite=$2 root=$3 bin=$4
    mkdir "$root" && tar -xf "$root_tar" -C "$root" --exclude='./dev/*'
    add_modules "$suite" "$root"
    mkdir -p "$root"/demo/reports "$root$bin" "$root$home/debian" "$root$PWD/e2e"
    install -m 755 "$lighter" "$bed" "$root$bin/"
    cp -r e2e/peers "$root$PWD/e2e/" && cp -r deploy "$root$PWD/"
    cp -r "$built"/{peers,layers,registry} "$root$home/"
    cp -r "$built"/debian/{pool,source} "$root$home/debian/"
    install -m 755 "$here/pid1" "$here/$name/check" "$root/usr/local/bin/"
}

# bed_boot NAME SUITE DIR SECONDS WORD: boots the root; its reports go to reports/NAME-SUITE of the cache.
bed_boot() {
    local name=$1 suite=$2 dir=$3 seconds=$4 word=$5 ended=0
    disk_initramfs "$suite" "$dir"
    disk "$dir/debian" "$dir/disk" 8G
    VM_MEMORY=${VM_MEMORY:-4096} boot "$suite" "$dir" "${VM_TIMEOUT:-$seconds}" "$word" || ended=1
    reports "$dir/disk" "$cache/reports/$name-$suite"
    return $ended
}

# cluster SUITE DIR
cluster() {
    local suite=$1 dir=$2 root=$2/debian program
    debian_root "$suite" "${cluster_packages[@]}" || return
    "$bed" build --images >/dev/null || return
    program=$(cargo test --workspace --profile "${PROFILE:-fastrel}" --test cluster --no-run --message-format=json 2>/dev/null \
        | sed -nE 's/.*"name":"cluster".*"executable":"([^"]*)".*/\1/p')
    [ -n "$program" ] || { echo "vm: no cluster tests: cargo test --no-run" >&2 && return 1; }
    bed_root cluster "$suite" "$root" "$(dirname "$(dirname "$program")")" || return
    install -m 755 "$program" "$root/demo/cluster"
    echo "filter='${VM_FILTER:-$cluster_tests}'" >"$root/demo/filter"
    bed_boot cluster "$suite" "$dir" 1800 pid1=/usr/local/bin/check
}

# Of the specs of `bed conformance --group vm` those of guaranteed pods, whose oom_score_adj takes a
# capability, and the one of a dummy interface; VM_FILTER names others (a Go regular expression).
conformance_specs=' Container guaranteed (qos|pods)|should enable privileged commands'

# conformance SUITE DIR: what passed in an earlier run is not run again (AGAIN=1: all of it). What is
# known is among the reports, as the bed keeps it and as a document.
conformance() {
    local suite=$1 dir=$2 root=$2/debian state=$home/conformance/vm-lighter known seconds=${VM_TIMEOUT:-5400}
    debian_root "$suite" "${cluster_packages[@]}" || return
    "$bed" conformance --group vm --prepare || return
    bed_root conformance "$suite" "$root" /usr/local/bin || return
    mkdir -p "$root$state"
    known=$cache/reports/conformance-$suite/results.json
    [ -n "${AGAIN:-}" ] || [ ! -e "$known" ] || cp "$known" "$root$state/"
    # A cluster takes ten minutes to come up; a report, two to be written.
    local words=(--group vm --parallel "${PARALLEL:-4}" --limit $((seconds - 900))s --focus "${VM_FILTER:-$conformance_specs}"
        --build "$(git describe --always --dirty --exclude='*')")
    declare -p words >"$root/demo/words"
    VM_MEMORY=${VM_MEMORY:-6144} bed_boot conformance "$suite" "$dir" "$seconds" pid1=/usr/local/bin/check
}

# csi SUITE DIR: the machine itself is the node, with systemd and Debian 13's policy, which is enforcing
# once the control plane is up (VM_SELINUX=permissive: never).
csi() {
    local suite=$1 dir=$2 root=$2/debian driver
    debian_root trixie "${cluster_packages[@]}" e2fsprogs || return
    driver=$("$bed" build --images csi-driver | grep '^/') && "$bed" build kube >/dev/null || return
    bed_root csi "$suite" "$root" /usr/local/bin || return
    install -m 755 "$driver" "$root/usr/local/bin/"
    cp "$here"/csi/*.yaml "$root/demo/"
    cp "$here/../../deploy/manifests/lighter.service" "$root/etc/systemd/system/"
    at_start "$root"
    [ "${VM_SELINUX:-enforcing}" = enforcing ] || touch "$root/demo/permissive"
    VM_SELINUX=permissive selinux_policy "$root" && selinux_labels "$root" || return
    bed_boot csi "$suite" "$dir" 1800 security=selinux
}
