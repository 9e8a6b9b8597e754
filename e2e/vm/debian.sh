# Debian packages of a suite of our choice, whatever this host runs; sourced by run.
# apt works on state of its own under the cache; the host's apt is left alone.

# apt_of SUITE PROGRAM ARGUMENTS…: apt-get or apt-cache, as the suite sees the world.
apt_of() {
    local suite=$1 program=$2 state=$cache/apt/$1
    shift 2
    "$program" -qq -o Dir::State::lists="$state/lists" -o Dir::State::status="$state/status" \
        -o Dir::Cache="$state" -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=- \
        -o APT::Sandbox::User=root "$@"
}

# refresh SUITE: its package lists, once.
refresh() {
    local suite=$1 state=$cache/apt/$1
    [ -e "$state/done" ] && return
    rm -rf "$state" && mkdir -p "$state/lists/partial" "$state/archives/partial"
    : >"$state/status"
    sources "$suite" >"$state/sources.list"
    apt_of "$suite" apt-get update
    touch "$state/done"
}

sources() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keyring] http://deb.debian.org/debian $1 main"
    echo "deb [signed-by=$keyring] http://deb.debian.org/debian-security $1-security main"
}

# kernel SUITE: unpacks the suite's newest cloud kernel into $cache/kernel/SUITE.
kernel() {
    local suite=$1 dir=$cache/kernel/$1 package
    [ -e "$dir/done" ] && return
    echo "vm: fetching the cloud kernel of $suite"
    refresh "$suite"
    package=$(apt_of "$suite" apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    rm -rf "$dir" && mkdir -p "$dir"
    (cd "$dir" && apt_of "$suite" apt-get download "$package" && dpkg-deb -x ./*.deb . && rm ./*.deb)
    # Debian 13 keeps them in /usr/lib, where depmod doesn't look.
    [ -e "$dir/lib" ] || ln -s usr/lib "$dir/lib"
    depmod -b "$dir" "$(release "$suite")"
    touch "$dir/done"
}

# release SUITE: the kernel's version.
release() { basename "$cache/kernel/$1"/lib/modules/*; }

# modules SUITE NAME…: files of these modules and all they need, in the order of loading.
modules() {
    local suite=$1 m
    shift
    for m in "$@"; do
        modprobe -d "$cache/kernel/$suite" -S "$(release "$suite")" --show-depends "$m" 2>/dev/null \
            | awk '/^insmod/ { print $2 }'
    done | awk '!seen[$0]++'
}

# add SUITE ROOT PACKAGE…: their files, in a root that has what they are linked with.
# None of their scripts is run.
add() {
    local suite=$1 root=$2 package
    shift 2
    for package in "$@"; do
        local dir=$cache/packages/$suite/$package
        [ -e "$dir" ] || {
            rm -rf "$dir.partial" && mkdir -p "$dir.partial"
            refresh "$suite"
            (cd "$dir.partial" && apt_of "$suite" apt-get download "$package") || return
            mv "$dir.partial" "$dir"
        }
        dpkg-deb --fsys-tarfile "$dir"/*.deb | tar -x -C "$root" --keep-directory-symlink || return
    done
}
