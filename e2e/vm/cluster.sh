# A control plane and a node of ours in one machine: what of the cluster tests only cgroup v2
# can show; sourced by run.

# What the bed calls on its host.
cluster_packages=(docker-registry iptables nftables conntrack ipset procps openssl)

# The cluster tests that speak of cgroups; VM_FILTER names others.
cluster_tests='a_pod_runs_logs limits_are resize_reaches resize_restarts'

# cluster SUITE DIR: runs in the repository, whose bed knows it by its path, and with all that
# the bed has built already: nothing is built or fetched inside.
cluster() {
    local suite=$1 dir=$2 root=$2/debian program bin home=/root/.cache/lighter-bed
    debian_root "$suite" "${cluster_packages[@]}" || return
    "$bed" build >/dev/null || return
    program=$(cargo test --workspace --profile "${PROFILE:-fastrel}" --test cluster --no-run --message-format=json 2>/dev/null \
        | sed -nE 's/.*"name":"cluster".*"executable":"([^"]*)".*/\1/p')
    [ -n "$program" ] || { echo "vm: no cluster tests: cargo test --no-run" >&2 && return 1; }
    bin=$(dirname "$(dirname "$program")")
    disk_initramfs "$suite" "$dir"

    mkdir "$root" && tar -xf "$root_tar" -C "$root" --exclude='./dev/*'
    add_modules "$suite" "$root"
    mkdir -p "$root"/demo/reports "$root$bin" "$root$home/debian" "$root$PWD/e2e"
    install -m 755 "$lighter" "$bed" "$root$bin/"
    install -m 755 "$program" "$root/demo/cluster"
    cp -r e2e/peers "$root$PWD/e2e/" && cp -r deploy "$root$PWD/"
    cp -r "${cache%/vm}"/{peers,layers,registry} "$root$home/"
    cp -r "${cache%/vm}"/debian/{pool,source} "$root$home/debian/"
    install -m 755 "$here/pid1" "$root/usr/local/bin/pid1"
    install -m 755 "$here/cluster/check" "$root/usr/local/bin/check"
    echo "filter='${VM_FILTER:-$cluster_tests}'" >"$root/demo/filter"
    disk "$root" "$dir/disk" 8G
    local ended=0
    VM_MEMORY=${VM_MEMORY:-4096} boot "$suite" "$dir" "${VM_TIMEOUT:-1800}" pid1=/usr/local/bin/check || ended=1
    reports "$dir/disk" "$cache/reports/cluster-$suite"
    return $ended
}
