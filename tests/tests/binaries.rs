//! The binaries as files: what a machine needs to start them.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use tests::cluster::binary;

#[test]
fn binaries_need_no_library_that_a_bare_debian_lacks() {
    for name in ["forestay", "stay", "raft-store"] {
        let listed = Command::new("ldd").arg(binary(name)).output().unwrap();
        assert!(listed.status.success(), "ldd {name}: {}", String::from_utf8_lossy(&listed.stderr));
        // What libc6 and libgcc-s1 bring; libstdc++6 comes with apt itself.
        let known =
            ["linux-vdso", "ld-linux", "libc.so", "libm.so", "libdl", "libpthread", "librt", "libgcc_s", "libstdc++"];
        for line in String::from_utf8(listed.stdout).unwrap().lines() {
            assert!(known.iter().any(|library| line.contains(library)), "{name} needs {}", line.trim());
        }
    }
}
