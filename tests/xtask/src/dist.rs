//! Archives of the installed server, for people without pip.

use std::{path::Path, process::Command};

use crate::{
    files, matrix,
    paths::{root, target},
    run::run,
    stage::{self, Linker, Machine, stage},
};

/// Makes an archive of the installed server, one of its debug information, and one of the matrix of behaviors, to be
/// unpacked over the first, in target/dist.
pub(crate) fn archives() -> Result<(), String> {
    let dist = target().join("dist");
    let machine = Machine::X86_64;
    let linker = Linker::Zig(machine);
    let name = format!("jimu-{}-{}-linux", env!("CARGO_PKG_VERSION"), machine.name());
    let (prefix, debug) = (dist.join(&name), dist.join(format!("{name}-debug")));
    files::fresh(&debug)?;
    stage(linker, &prefix, Some(&debug))?;
    stage::kit(linker, &prefix)?;
    for file in ["README.md", "LICENSE", "CHANGELOG.md"] {
        files::copy(&root().join(file), &prefix.join("share/doc/jimu").join(file))?;
    }
    examples(&prefix)?;
    for unit in UNITS {
        let from = root().join("docs/deploy").join(unit);
        files::copy(&from, &prefix.join("lib/systemd/system").join(unit))?;
    }
    archive(&dist, &name)?;
    archive(&dist, &format!("{name}-debug"))?;
    let beside = dist.join("matrix");
    files::fresh(&beside)?;
    matrix::stage(linker, &beside.join(&name))?;
    pack(&beside, &name, &dist.join(format!("{name}-matrix.tar.gz")))
}

/// Copies the examples into `prefix`, whose headers they name instead of those of the source tree.
fn examples(prefix: &Path) -> Result<(), String> {
    let place = prefix.join("share/doc/jimu/examples");
    for example in EXAMPLES {
        files::copy_tree(&root().join("plugins/examples").join(example), &place.join(example))?;
    }
    for (file, in_tree, in_archive) in PATHS {
        let path = place.join(file);
        let text = files::read(&path)?;
        if !text.contains(in_tree) {
            return Err(format!("{} does not contain {in_tree}", path.display()));
        }
        files::write(&path, &text.replace(in_tree, in_archive), 0o644)?;
    }
    Ok(())
}

/// Makes `NAME.tar.gz` of the directory `NAME`.
fn archive(directory: &Path, name: &str) -> Result<(), String> {
    pack(directory, name, &directory.join(format!("{name}.tar.gz")))
}

/// Makes an archive of the directory `name` in `directory`.
fn pack(directory: &Path, name: &str, archive: &Path) -> Result<(), String> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-czf"]);
    run(tar.arg(archive).arg(name).current_dir(directory))
}

/// Plugins that need nothing but a compiler, the headers in `include` and, the class, the kit in `lib`.
const EXAMPLES: [&str; 5] = ["hello-c", "hello-cpp", "hello-go", "hello-zig", "threaded-worker-c"];
/// Files of the examples with a path of the source tree, and the same path in the archive.
const PATHS: [(&str, &str, &str); 7] = [
    ("hello-c/hello.c", HEADERS, "../../../../../include"),
    ("hello-cpp/hello.cpp", HEADERS, "../../../../../include"),
    ("hello-zig/hello.zig", HEADERS, "../../../../../include"),
    // One directory further down, from which the example in the tree ascends as well.
    ("hello-go/jimu/jimu.go", HEADERS, "../../../../../include"),
    ("threaded-worker-c/threaded.c", HEADERS, "../../../../../include"),
    ("threaded-worker-c/threaded.c", " -I ../../../workers/kit-c/include", ""),
    ("threaded-worker-c/threaded.c", "../../../target/release", "../../../../../lib"),
];
const HEADERS: &str = "../../../worker-api/include";
/// Units of systemd, in docs/deploy.
pub(crate) const UNITS: [&str; 2] = ["jimu.service", "jimu.socket"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_that_ship_have_sources() {
        let prefix = std::env::temp_dir().join(format!("jimu-examples-{}", std::process::id()));
        examples(&prefix).unwrap();
        let place = prefix.join("share/doc/jimu/examples");
        for example in EXAMPLES {
            let copied = std::fs::read_dir(place.join(example)).unwrap().count();
            assert!(copied > 0, "{example} is empty");
        }
        files::remove_directory(&prefix).unwrap();
    }

    #[test]
    fn the_examples_that_ship_find_the_headers() {
        let prefix = std::env::temp_dir().join(format!("jimu-headers-{}", std::process::id()));
        examples(&prefix).unwrap();
        let place = prefix.join("share/doc/jimu/examples");
        files::create(&prefix.join("include")).unwrap();
        let header = prefix.join("include").canonicalize().unwrap();
        for (file, _, path) in PATHS.into_iter().filter(|(_, in_tree, _)| *in_tree == HEADERS) {
            let text = files::read(&place.join(file)).unwrap();
            let line = text.lines().find(|line| line.contains(path)).unwrap();
            let named = line.split(' ').find(|word| word.contains(path)).unwrap();
            let named = named.trim_start_matches("-I${SRCDIR}/");
            let directory = place.join(file).parent().unwrap().join(named);
            assert_eq!(directory.canonicalize().ok().as_ref(), Some(&header), "{file}: {line}");
        }
        files::remove_directory(&prefix).unwrap();
    }
}
