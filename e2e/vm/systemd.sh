# Debian with systemd as pid 1; sourced by run.

# What a minimal node has, and what the checks use.
root_packages=(dpkg base-files base-passwd bash coreutils dash debianutils diffutils findutils grep gzip hostname
    libc-bin login mawk mount perl-base sed tar util-linux systemd systemd-sysv dbus procps iproute2 kmod)

# debian_root SUITE [PACKAGE…]: $root_tar is the suite's minimal root with these; cached by
# what is in it.
debian_root() {
    local suite=$1 key packages
    shift
    packages=("${root_packages[@]}" "$@")
    key=$(echo "${packages[@]}" | sha256sum | cut -c1-12)
    root_tar=$cache/roots/$suite-$key.tar
    [ -e "$root_tar" ] && return
    echo "vm: installing Debian $suite into a directory"
    mkdir -p "$cache/roots"
    refresh "$suite"
    mmdebstrap --quiet --mode=root --variant=custom --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --include="$(IFS=, && echo "${packages[*]}")" \
        "$suite" "$root_tar.partial.tar" "$cache/apt/$suite/sources.list" || return
    mv "$root_tar.partial.tar" "$root_tar"
}

# systemd SUITE DIR ROOT: a machine whose root is the suite ROOT; check is its one job.
systemd() {
    local suite=$1 dir=$2 root=$2/debian kube
    debian_root "$3" || return
    kube=$("$bed" build kube | grep '^/') || return
    disk_initramfs "$suite" "$dir"

    mkdir "$root" && tar -xf "$root_tar" -C "$root" --exclude='./dev/*'
    mkdir -p "$root"/{demo,etc/lighter,etc/kubernetes/manifests,var/lib/kubelet}
    install -m 755 "$lighter" "$root/usr/local/bin/lighter"
    install -m 755 "$here/systemd/check" "$root/usr/local/bin/check"
    cp "$here"/systemd/*.yaml "$here/pods.yaml" "$here/../../deploy/manifests/play.yaml" "$root/demo/"
    "$here/../busybox-image" "$root/demo/busybox.tar" "$image"
    "$here/../busybox-image" "$root/demo/stable.tar" docker.io/library/busybox:stable
    install -m 755 "$kube" "$root/usr/local/bin/kubeadm"
    ln -s lighter "$root/usr/local/bin/kubelet"
    cp "$here"/../../deploy/manifests/*.{service,socket} "$root/etc/systemd/system/"
    at_start "$root"
    disk "$root" "$dir/disk"
    boot "$suite" "$dir" "${VM_TIMEOUT:-420}"
}

# at_start ROOT: its systemd runs /usr/local/bin/check.
at_start() {
    mkdir -p "$1/etc/systemd/system/multi-user.target.wants"
    cp "$here/systemd/check.service" "$1/etc/systemd/system/"
    ln -s ../check.service "$1/etc/systemd/system/multi-user.target.wants/check.service"
    # No udev, so nobody tells of the console.
    ln -s /dev/null "$1/etc/systemd/system/serial-getty@ttyS0.service"
    echo vm >"$1/etc/hostname"
}
