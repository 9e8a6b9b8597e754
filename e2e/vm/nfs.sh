# A server of NFS in the machine, pods that have its folders, and what they do when it is away;
# sourced by run.

nfs_packages=(nfs-kernel-server nfs-common nftables)

# nfs SUITE DIR
nfs() {
    local suite=$1 dir=$2 root=$2/debian
    debian_root "$suite" "${nfs_packages[@]}" || return
    disk_initramfs "$suite" "$dir"

    mkdir "$root" && tar -xf "$root_tar" -C "$root" --exclude='./dev/*'
    add_modules "$suite" "$root"
    mkdir -p "$root"/{demo,srv/share,etc/kubernetes/manifests,etc/lighter,var/lib/kubelet}
    install -m 755 "$lighter" "$root/usr/local/bin/lighter"
    install -m 755 "$here/pid1" "$root/usr/local/bin/pid1"
    install -m 755 "$here/nfs/check" "$root/usr/local/bin/check"
    cp "$here"/nfs/*.yaml "$root/demo/"
    cp "$here/systemd/agent.yaml" "$root/var/lib/kubelet/config.yaml"
    cp "$here/systemd/kubeconfig.yaml" "$root/etc/kubernetes/kubelet.conf"
    echo 'podCidr: 10.88.0.0/24' >"$root/etc/lighter/config.yaml"
    echo '/srv/share 127.0.0.0/8(rw,no_root_squash,no_subtree_check,insecure,fsid=1)' >"$root/etc/exports"
    "$here/../busybox-image" "$root/demo/busybox.tar" "$image"
    disk "$root" "$dir/disk"
    boot "$suite" "$dir" "${VM_TIMEOUT:-900}" pid1=/usr/local/bin/check
}
