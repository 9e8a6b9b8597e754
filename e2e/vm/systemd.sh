# Debian 12 with systemd as pid 1, on either kernel; sourced by run.

# What a minimal node has, and what the checks use.
root_packages=(dpkg base-files base-passwd bash coreutils dash debianutils diffutils findutils grep gzip hostname
    libc-bin login mawk mount perl-base sed tar util-linux systemd systemd-sysv dbus procps iproute2 kmod)

# debian_root SUITE: a tar of the suite's minimal root; cached by what is in it.
debian_root() {
    local suite=$1 key
    key=$(echo "${root_packages[@]}" | sha256sum | cut -c1-12)
    root_tar=$cache/roots/$suite-$key.tar
    [ -e "$root_tar" ] && return
    echo "vm: installing Debian $suite into a directory"
    mkdir -p "$cache/roots"
    refresh "$suite"
    mmdebstrap --quiet --mode=root --variant=custom --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --include="$(IFS=, && echo "${root_packages[*]}")" \
        "$suite" "$root_tar.partial.tar" "$cache/apt/$suite/sources.list" || return
    mv "$root_tar.partial.tar" "$root_tar"
}

# systemd SUITE DIR: a machine whose disk is its root; check is its one job.
systemd() {
    local suite=$1 dir=$2 root=$2/debian
    debian_root bookworm || return
    initramfs "$suite" "$dir/root"
    cp "$here/disk-init" "$dir/root/init"
    chmod 755 "$dir/root/init"
    pack "$dir/root" "$dir/initrd"

    mkdir "$root" && tar -xf "$root_tar" -C "$root" --exclude='./dev/*'
    mkdir -p "$root"/{demo,etc/lighter,etc/kubernetes/manifests,var/lib/kubelet}
    install -m 755 "$lighter" "$root/usr/local/bin/lighter"
    install -m 755 "$here/systemd/check" "$root/usr/local/bin/check"
    cp "$here"/systemd/*.yaml "$here/pods.yaml" "$root/demo/"
    "$here/../busybox-image" "$root/demo/busybox.tar" "$image"
    cp "$here/../../deploy/manifests/lighter.service" "$here/systemd/check.service" "$root/etc/systemd/system/"
    ln -s ../check.service "$root/etc/systemd/system/multi-user.target.wants/check.service"
    # No udev, so nobody tells of the console.
    ln -s /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service"
    echo vm >"$root/etc/hostname"
    # mke2fs copies the directory in: no loop device, no mount.
    truncate -s 3G "$dir/disk" && mkfs.ext4 -q -d "$root" "$dir/disk" && rm -rf "$root"
    boot "$suite" "$dir" "${VM_TIMEOUT:-420}"
}
