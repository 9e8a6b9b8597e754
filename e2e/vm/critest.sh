# critest on our runtime, on kernels that have AppArmor and SELinux; sourced by run.

bed=$(dirname "$lighter")/bed

# What critest calls on its host, beside a registry.
critest_packages=(apparmor docker-registry)

# What loads a policy, and compiles one.
selinux_packages=(selinux-policy-default policycoreutils selinux-utils libselinux1 libsemanage2 libsemanage-common libsepol2)

# selinux_policy ROOT: Debian 13's policy, whose module container names what containers are,
# compiled for the kernels' version of policies; kept in the cache.
selinux_policy() {
    local root=$1 modules kept=$cache/selinux-policy.tar
    add trixie "$root" "${selinux_packages[@]}" || return
    printf 'SELINUX=%s\nSELINUXTYPE=default\n' "permissive" >"$root/etc/selinux/config"
    [ -e "$kept" ] || {
        echo "vm: compiling Debian's SELinux policy"
        echo 'policy-version=33' >>"$root/etc/selinux/semanage.conf"
        modules=$(sed 's|.*|-i/usr/share/selinux/default/&.pp.bz2|' <(tr ' ' '\n' <"$root/usr/share/selinux/default/.modules" | grep .))
        # shellcheck disable=SC2086
        chroot "$root" semodule --noreload --priority 100 --store default $modules || return
        tar -c -C "$root/etc/selinux" default >"$kept.partial" && mv "$kept.partial" "$kept"
    }
    tar -x -C "$root/etc/selinux" <"$kept" && rm -rf "$root/var/lib/selinux" "$root/usr/share/selinux"
}

# critest KIND SUITE DIR: one machine for all parts of the kind.
critest() {
    local kind=$1 suite=$2 dir=$3 root=$3/debian
    local words=(pid1=/usr/local/bin/check)
    local of=$suite
    # What this one needs of it does not look at the kernel.
    [ "$kind" != selinux ] || of=trixie words+=(security=selinux)
    debian_root "$of" || return
    initramfs "$suite" "$dir/root"
    install -m 755 "$here/disk-init" "$dir/root/init"
    pack "$dir/root" "$dir/initrd"

    mkdir "$root" && tar -xf "$root_tar" -C "$root" --exclude='./dev/*'
    add "$of" "$root" "${critest_packages[@]}" || return
    [ "$kind" != selinux ] || selinux_policy "$root" || return
    # Its one caller is root.
    printf '#!/bin/sh\nexec "$@"\n' >"$root/usr/bin/sudo" && chmod 755 "$root/usr/bin/sudo"
    mkdir -p "$root"/demo/reports "$root"/etc/lighter
    "$bed" critest --export "$root/demo"
    mkdir "$root/etc/containerd" && mv "$root/demo/certs.d" "$root/etc/containerd/"
    install -m 755 "$lighter" "$root/usr/local/bin/lighter"
    install -m 755 "$here/critest/check" "$root/usr/local/bin/check"
    cp "$here/critest/$kind" "$root/demo/parts"
    [ ! -e "$here/critest/$kind.before" ] || cp "$here/critest/$kind.before" "$root/demo/before"
    cp "$here/pods.yaml" "$root/demo/"
    "$here/../busybox-image" "$root/demo/busybox.tar" "$image"
    truncate -s 3G "$dir/disk" && mkfs.ext4 -q -d "$root" "$dir/disk" && rm -rf "$root"
    boot "$suite" "$dir" "${VM_TIMEOUT:-900}" "${words[@]}" || return
    sum_up "$kind" "$dir"
}

# sum_up KIND DIR: the specs' outcomes, from the reports on the machine's disk.
sum_up() {
    local kind=$1 dir=$2 reports=() part
    while read -r part _; do
        debugfs -R "dump /demo/reports/$part.json $dir/$part.json" "$dir/disk" 2>/dev/null
        reports+=(--report "$dir/$part.json")
    done < <(grep -v '^#' "$here/critest/$kind")
    "$bed" critest "${reports[@]}"
}
