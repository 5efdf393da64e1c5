//! Says early, and in words, where the static libraries of RocksDB are missing: the linker's own message helps nobody.
//!
//! `.cargo/config.toml` and `deploy/lib/machine.sh` set the folders; on Debian they are `/usr/lib/<triplet>`, which follows
//! from the target.

use std::{env, path::Path};

fn main() {
    println!("cargo:rerun-if-env-changed=ROCKSDB_LIB_DIR");
    let triplet = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("aarch64") => "aarch64-linux-gnu",
        _ => "x86_64-linux-gnu",
    };
    let folder = env::var("ROCKSDB_LIB_DIR").unwrap_or_else(|_| format!("/usr/lib/{triplet}"));
    for library in ["librocksdb.a", "libsnappy.a"] {
        if !Path::new(&folder).join(library).exists() {
            println!(
                "cargo:warning={folder}/{library} is missing: install librocksdb-dev and libsnappy-dev, or set ROCKSDB_LIB_DIR and SNAPPY_LIB_DIR to /usr/lib/{triplet}"
            );
        }
    }
}
