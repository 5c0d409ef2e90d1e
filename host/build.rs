//! Identifies the sources of this build: the server and its runtime for Python must come from the same.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let mut files = Vec::new();
    for directory in ["src", "tls/src", "../worker-api/src"] {
        println!("cargo::rerun-if-changed={directory}");
        collect(Path::new(directory), &mut files);
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in &files {
        file.hash(&mut hasher);
        fs::read(file).expect("cargo has just listed the file").hash(&mut hasher);
    }
    for name in ["CARGO_PKG_VERSION", "PROFILE", "TARGET"] {
        env::var(name).expect("cargo sets it").hash(&mut hasher);
    }
    println!("cargo::rustc-env=JIMU_BUILD={:016x}", hasher.finish());
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the sources are readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
