# The tests that need root, on kernels and cgroups that users have; sourced by run.

# What the tests call, and what they are shown.
tests_packages=(e2fsprogs nftables iptables docker-registry busybox-static)

# test_programs DIR: the programs of those tests, each under the name of its target; where
# cargo made them goes to $built_in. VM_FILTER chooses among the tests by their names. Runs in
# the repository.
test_programs() {
    local dir=$1 name file
    mkdir -p "$dir"
    while read -r name file; do
        install -m 755 "$file" "$dir/$name" && built_in=$(dirname "$(dirname "$file")")
    done < <(cargo test --workspace --profile "${PROFILE:-fastrel}" --lib --test process --test cri --test builtin \
        --test foreign --test plugin --no-run --message-format=json 2>/dev/null | programs)
    [ -n "${built_in:-}" ] || { echo "vm: no test programs: cargo test --no-run" >&2 && return 1; }
}

# What cargo says of them; of libraries those whose tests are not all without privileges.
programs() {
    sed -nE 's/.*"target":\{"kind":\["(lib|test)"\][^}]*"name":"([^"]*)".*"executable":"([^"]*)".*/\2 \3/p' \
        | grep -E '^(process|cri|builtin|foreign|plugin|runtime|kubelet) '
}

# root SUITE DIR
root() {
    local suite=$1 dir=$2 root=$2/debian plugins file
    debian_root "$suite" "${tests_packages[@]}" || return
    test_programs "$dir/tests" || return
    plugins=$("$bed" build bridge host-local loopback portmap) || return
    disk_initramfs "$suite" "$dir"

    mkdir "$root" && tar -xf "$root_tar" -C "$root" --exclude='./dev/*'
    add_modules "$suite" "$root"
    mkdir -p "$root"/demo/{reports,plugins} "$root$built_in"
    mv "$dir/tests" "$root/demo/"
    for file in $(grep '^/' <<<"$plugins"); do install -m 755 "$file" "$root/demo/plugins/"; done
    # Where the tests were told that it is.
    install -m 755 "$built_in/lighter-cni" "$root$built_in/"
    install -m 755 "$here/pid1" "$here/root/check" "$root/usr/local/bin/"
    echo "filter='${VM_FILTER:-}'" >"$root/demo/filter"
    disk "$root" "$dir/disk"
    local ended=0
    VM_MEMORY=${VM_MEMORY:-2048} boot "$suite" "$dir" "${VM_TIMEOUT:-900}" pid1=/usr/local/bin/check || ended=1
    reports "$dir/disk" "$cache/reports/root-$suite"
    return $ended
}
