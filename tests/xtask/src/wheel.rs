//! The distributions for pip: a wheel and a source distribution.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    files,
    paths::{root, target},
    python,
    run::{output, run},
    stage::{Linker, Machine, OLDEST_GLIBC, stage},
};

/// Makes the wheel for a machine in target/wheels.
pub(crate) fn wheel(machine: Machine) -> Result<(), String> {
    let prefix = target().join("staged");
    stage(Linker::Zig(machine), &prefix, None)?;
    let package = package_in("wheel-source")?;
    let platform = format!("manylinux_{}_{}", OLDEST_GLIBC.replace('.', "_"), machine.name());
    let mut build = build("--wheel", &package)?;
    build.arg(format!("-C--build-option=--plat-name={platform}")).env("JIMU_STAGED", &prefix);
    run(&mut build)
}

/// Makes the source distribution in target/wheels: the Python package, and below it all files of the repository.
pub(crate) fn source() -> Result<(), String> {
    let package = package_in("sdist-source")?;
    let listed = output(Command::new("git").args(["ls-files", "-z"]).current_dir(root()))?;
    for name in listed.split_terminator('\0').filter(|name| !name.starts_with("python/")) {
        let from = root().join(name);
        if from.exists() {
            files::copy(&from, &package.join("source").join(name))?;
        }
    }
    files::write(&package.join("MANIFEST.in"), "graft source\n", 0o644)?;
    run(&mut build("--sdist", &package)?)
}

/// Copies the Python package to a directory, in which setuptools leaves its files.
fn package_in(name: &str) -> Result<PathBuf, String> {
    let package = target().join(name);
    files::fresh(&package)?;
    files::copy_tree(&root().join("python"), &package)?;
    files::copy(&root().join("LICENSE"), &package.join("LICENSE"))?;
    Ok(package)
}

fn build(kind: &str, package: &Path) -> Result<Command, String> {
    let tools = python::tools()?;
    let mut command = Command::new(tools.join("python"));
    command.args(["-m", "build", "--no-isolation", kind, "--outdir"]);
    command.arg(target().join("wheels")).arg(package);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_has_the_version_of_the_workspace() {
        let version = |file: &str| {
            let text = files::read(&root().join(file)).unwrap();
            text.lines().find_map(|line| line.strip_prefix("version = ").map(str::to_owned))
        };
        assert_eq!(version("python/pyproject.toml"), version("Cargo.toml"));
    }
}
