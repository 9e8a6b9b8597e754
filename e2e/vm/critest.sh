# critest on our runtime, on kernels that have AppArmor and SELinux; sourced by run.

bed=$(dirname "$lighter")/bed

# What critest calls on its host, beside a registry.
critest_packages=(apparmor docker-registry)

# What loads a policy, compiles one and labels files.
selinux_packages=(selinux-policy-default policycoreutils selinux-utils libselinux1 libsemanage2 libsemanage-common libsepol2)

# selinux_policy ROOT: Debian 13's policy, whose module container names what containers are,
# and our own, compiled for the kernels' version of policies; kept in the cache.
selinux_policy() {
    local root=$1 modules module=$here/../../deploy/selinux/lighter.cil kept
    kept=$cache/selinux/$(sha256sum "$module" | cut -c1-12).tar
    add trixie "$root" "${selinux_packages[@]}" || return
    printf 'SELINUX=%s\nSELINUXTYPE=default\n' "${VM_SELINUX:-enforcing}" >"$root/etc/selinux/config"
    [ -e "$kept" ] || {
        echo "vm: compiling Debian's SELinux policy"
        echo 'policy-version=33' >>"$root/etc/selinux/semanage.conf"
        modules=$(sed 's|.*|-i/usr/share/selinux/default/&.pp.bz2|' <(tr ' ' '\n' <"$root/usr/share/selinux/default/.modules" | grep .))
        cp "$module" "$root/lighter.cil"
        # shellcheck disable=SC2086
        chroot "$root" semodule --noreload --priority 100 --store default $modules || return
        chroot "$root" semodule --noreload --store default -i /lighter.cil || return
        rm -rf "$root/lighter.cil" "$cache/selinux" && mkdir "$cache/selinux"
        tar -c -C "$root/etc/selinux" default >"$kept.partial" && mv "$kept.partial" "$kept"
    }
    tar -x -C "$root/etc/selinux" <"$kept" && rm -rf "$root/var/lib/selinux" "$root/usr/share/selinux"
}

# selinux_labels ROOT: every file as the policy says, before its disk boots; the demo's as
# what a runtime may read.
selinux_labels() {
    echo '/demo(/.*)? system_u:object_r:container_config_t:s0' >"$1/etc/selinux/default/contexts/files/file_contexts.local"
    chroot "$1" setfiles -m -F /etc/selinux/default/contexts/files/file_contexts /
}

# critest KIND SUITE DIR: one machine for all parts of the kind that have not passed yet with
# this very LIGHTER (AGAIN=1: for all). That with SELinux has systemd as pid 1, which loads
# the policy and starts what it starts in a domain of its own.
critest() {
    local kind=$1 suite=$2 dir=$3 root=$3/debian of=$2 kept
    local words=(pid1=/usr/local/bin/check)
    kept=$cache/critest/$kind-$suite-$(sha256sum "$lighter" | cut -c1-12)
    [ -z "${AGAIN:-}" ] || rm -rf "$kept"
    mkdir -p "$kept"
    # Those of other programs are of no use any more.
    find "$cache/critest" -mindepth 1 -maxdepth 1 -name "$kind-$suite-*" ! -path "$kept" -exec rm -r {} +
    missing "$kind" "$kept" >"$dir/parts"
    [ -s "$dir/parts" ] || { sum_up "$kind" "$kept" && return; }
    # The policy of Debian 13 on either kernel; VM_SELINUX=permissive to see what it lacks.
    [ "$kind" != selinux ] || of=trixie words=(security=selinux)
    debian_root "$of" || return
    disk_initramfs "$suite" "$dir"

    mkdir "$root" && tar -xf "$root_tar" -C "$root" --exclude='./dev/*'
    add_modules "$suite" "$root"
    add "$of" "$root" "${critest_packages[@]}" || return
    # Its one caller is root.
    printf '#!/bin/sh\nexec "$@"\n' >"$root/usr/bin/sudo" && chmod 755 "$root/usr/bin/sudo"
    mkdir -p "$root"/demo/reports "$root"/etc/lighter
    "$bed" critest --export "$root/demo"
    mkdir "$root/etc/containerd" && mv "$root/demo/certs.d" "$root/etc/containerd/"
    install -m 755 "$lighter" "$here/pid1" "$here/critest/check" "$root/usr/local/bin/"
    cp "$dir/parts" "$root/demo/parts"
    [ ! -e "$here/critest/$kind.before" ] || cp "$here/critest/$kind.before" "$root/demo/before"
    cp "$here/pods.yaml" "$here"/critest/*.yaml "$here"/systemd/*.yaml "$root/demo/"
    install -D -m 644 "$here/../../deploy/manifests/lighter.service" "$root/etc/systemd/system/lighter.service"
    "$here/../busybox-image" "$root/demo/busybox.tar" "$image"
    [ "$kind" != selinux ] || {
        at_start "$root"
        selinux_policy "$root" && selinux_labels "$root" || return
    }
    disk "$root" "$dir/disk"
    local ended=0
    boot "$suite" "$dir" "${VM_TIMEOUT:-1800}" "${words[@]}" || ended=1
    reports "$dir/disk" "$kept"
    sum_up "$kind" "$kept" && return $ended
}

# missing KIND KEPT: its parts without a report that all of them passed.
missing() {
    local part flags
    while read -r part flags; do
        "$bed" critest --report "$2/$part.json" >/dev/null 2>&1 || echo "$part $flags"
    done < <(grep -v '^#' "$here/critest/$1")
}

# sum_up KIND KEPT: the specs' outcomes. A part without a report is one that did not end.
sum_up() {
    local reports=() part
    while read -r part _; do
        reports+=(--report "$2/$part.json")
    done < <(grep -v '^#' "$here/critest/$1")
    "$bed" critest "${reports[@]}"
}
