//! Compiles the protocol buffers with `protox`, so that nobody needs `protoc`.
//!
//! Files are found by reading their directories: a new one is picked up without a change here. The public package is
//! also written as a file descriptor set, comments included, which the reflection service hands out; what is stored
//! is nobody's business outside and stays out of it.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use prost::Message;

/// Where imports are resolved from.
const PROTO_ROOT: &str = "../../proto";

/// The package that other programs are written against.
const PUBLIC_DIR: &str = "../../proto/portcullis/v1";

/// The package of what is stored.
const STORAGE_DIR: &str = "../../proto/portcullis/storage/v1";

fn main() -> Result<(), Box<dyn Error>> {
    rerun_if_changed(PROTO_ROOT);
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let public_files = proto_files(Path::new(PUBLIC_DIR))?;
    let public = protox::compile(&public_files, [PROTO_ROOT])?;
    fs::write(out_dir.join("portcullis_descriptor.bin"), public.encode_to_vec())?;

    let mut files = public_files;
    files.extend(proto_files(Path::new(STORAGE_DIR))?);
    let everything = protox::compile(files, [PROTO_ROOT])?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names(); // JSON finds the descriptor of a message by its name.
    tonic_prost_build::configure()
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds_with_config(everything, config)?;
    Ok(())
}

/// The `.proto` files of a directory, sorted, so that the output does not depend on the file system.
fn proto_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    Ok(files)
}

/// Has Cargo run this script again when anything below `path` changes, or the script itself.
fn rerun_if_changed(path: &str) {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={path}");
}
