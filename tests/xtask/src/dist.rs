//! Archives of the installed server, for people without pip.

use std::{path::Path, process::Command};

use crate::{
    files,
    paths::{root, target},
    run::run,
    stage::{Linker, stage},
};

/// Makes an archive of the installed server, and one of its debug information, in target/dist.
pub(crate) fn archives() -> Result<(), String> {
    let dist = target().join("dist");
    let name = format!("jimu-{}-x86_64-linux", env!("CARGO_PKG_VERSION"));
    let (prefix, debug) = (dist.join(&name), dist.join(format!("{name}-debug")));
    files::fresh(&debug)?;
    stage(Linker::Zig, &prefix, Some(&debug))?;
    for file in ["README.md", "LICENSE", "CHANGELOG.md"] {
        files::copy(&root().join(file), &prefix.join("share/doc/jimu").join(file))?;
    }
    for example in EXAMPLES {
        let from = root().join("plugins/examples").join(example);
        files::copy_tree(&from, &prefix.join("share/doc/jimu/examples").join(example))?;
    }
    for unit in UNITS {
        let from = root().join("docs/deploy").join(unit);
        files::copy(&from, &prefix.join("lib/systemd/system").join(unit))?;
    }
    archive(&dist, &name)?;
    archive(&dist, &format!("{name}-debug"))
}

/// Makes `NAME.tar.gz` of the directory `NAME`.
fn archive(directory: &Path, name: &str) -> Result<(), String> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-czf"]);
    run(tar.arg(format!("{name}.tar.gz")).arg(name).current_dir(directory))
}

/// Applications that need nothing but a compiler and the headers in `include`.
const EXAMPLES: [&str; 4] = ["hello-c", "hello-cpp", "hello-go", "hello-zig"];
/// Units of systemd, in docs/deploy.
pub(crate) const UNITS: [&str; 2] = ["jimu.service", "jimu.socket"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_that_ship_have_sources() {
        let place = std::env::temp_dir().join(format!("jimu-examples-{}", std::process::id()));
        for example in EXAMPLES {
            files::copy_tree(&root().join("plugins/examples").join(example), &place.join(example))
                .unwrap();
            let copied = std::fs::read_dir(place.join(example)).unwrap().count();
            assert!(copied > 0, "{example} is empty");
        }
        files::remove_directory(&place).unwrap();
    }
}
