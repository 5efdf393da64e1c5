# Makes the demo's image from Debian's busybox: no image registry is needed. Sourced after machine.sh.

# hello_image NAME: imports busybox with its applets as an image, unless it is there.
hello_image() {
    local name=$1 folder applet
    docker image inspect "$name" >/dev/null 2>&1 && return
    need_packages busybox-static
    folder=$(mktemp -d)
    mkdir -p "$folder/bin" "$folder/tmp" "$folder/etc" "$folder/proc" "$folder/sys" "$folder/dev"
    cp /bin/busybox "$folder/bin/busybox"
    for applet in $(/bin/busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$folder/bin/$applet"
    done
    tar -C "$folder" -c . | docker import --change 'ENV PATH=/bin' --change 'CMD ["/bin/sh"]' - "$name" >/dev/null
    rm -rf "$folder"
}
