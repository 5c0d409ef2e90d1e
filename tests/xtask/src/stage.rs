//! Lays out the installed server below a prefix: what the wheel, the archive and the Debian package contain.
//!
//! ```text
//!     bin/        host, which is also the runtime for Python; hostctl, jimu and jimuctl, which execute it
//!     include/    headers for plugins in C
//!     lib/host/   worker classes and plugins
//!     share/      manual pages and completions
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    files,
    paths::{root, target},
    python,
    run::{cargo, in_root, output, run},
};

/// The oldest C library that runs what zig links: that of RHEL 7, the oldest that manylinux names. Rust itself requires
/// this version.
pub(crate) const OLDEST_GLIBC: &str = "2.17";

/// How the release is linked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linker {
    /// By this machine's compiler, for its C library and later ones.
    Own,
    /// By zig, for `OLDEST_GLIBC` and later ones on a machine.
    Zig(Machine),
}

/// The machine that a release is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// Returns the machine with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::X86_64, Self::Aarch64].into_iter().find(|machine| machine.name() == name)
    }

    /// Returns the name that the kernel, Rust and pip have for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Returns what Rust calls the machine and the operating system.
    fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.name())
    }

    /// Returns whether this machine cannot execute what is built for it.
    fn is_foreign(self) -> bool {
        self.name() != env::consts::ARCH
    }
}

impl Linker {
    fn is_foreign(self) -> bool {
        matches!(self, Self::Zig(machine) if machine.is_foreign())
    }
}

/// Builds the release and lays it out in `prefix`. Debug information goes to `debug`, if given.
pub(crate) fn stage(linker: Linker, prefix: &Path, debug: Option<&Path>) -> Result<(), String> {
    let libraries = libraries()?;
    let built = build(linker, &libraries)?;
    files::fresh(prefix)?;
    let place = |file: &str, to: &Path| {
        let from = built.join(file);
        // For another machine they are built without symbols: this one's `strip` does not know them.
        if linker.is_foreign() { files::copy(&from, to) } else { strip(&from, to, debug) }
    };
    place(&file_of(SERVER), &prefix.join("bin/host"))?;
    for library in &libraries {
        let file = file_of(library);
        place(&file, &prefix.join("lib/host").join(&file))?;
    }
    for (name, command, arguments) in SCRIPTS {
        files::write(&prefix.join("bin").join(name), &script(command, arguments), 0o755)?;
    }
    let headers = root().join("worker-api/include");
    if headers.exists() {
        files::copy_tree(&headers, &prefix.join("include"))?;
    }
    documents(&hostctl(linker, prefix)?, prefix)
}

/// Returns the packages whose libraries ship, by their manifests: every class, every plugin, and the application of
/// `host --check-worker`.
fn libraries() -> Result<Vec<String>, String> {
    let mut found = vec!["check-app".to_owned()];
    for directory in ["workers", "plugins"] {
        let entries = fs::read_dir(root().join(directory));
        let entries = entries.map_err(|error| format!("{directory}: {error}"))?.flatten();
        for manifest in entries.map(|entry| entry.path().join("Cargo.toml")) {
            if manifest.exists() {
                found.extend(plugin_of(&files::read(&manifest)?));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the name of the package of this manifest if it is built as a plugin.
fn plugin_of(manifest: &str) -> Option<String> {
    let is_library =
        manifest.lines().any(|line| line.starts_with("crate-type") && line.contains("\"cdylib\""));
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = "))?;
    is_library.then(|| name.trim_matches('"').to_owned())
}

/// Builds the release, and returns where cargo puts it.
fn build(linker: Linker, libraries: &[String]) -> Result<PathBuf, String> {
    let mut command = build_command(linker)?;
    command.args(["--release", "--lib", "-p", SERVER, "-p", KIT]);
    run(command.args(libraries.iter().flat_map(|library| ["-p", library])))?;
    Ok(directory(linker, "release"))
}

/// Copies the kit for classes in C into `prefix`, from the release that [`stage`] has built: its header and its library,
/// without debug information.
pub(crate) fn kit(linker: Linker, prefix: &Path) -> Result<(), String> {
    let header = root().join("workers/kit-c/include/jimu_kit.h");
    files::copy(&header, &prefix.join("include/jimu_kit.h"))?;
    let library = prefix.join("lib/libjimu_kit.a");
    files::copy(&directory(linker, "release").join("libjimu_kit.a"), &library)?;
    run(Command::new("strip").arg("--strip-debug").arg(library))
}

/// Returns where cargo puts what it builds with this profile.
pub(crate) fn directory(linker: Linker, profile: &str) -> PathBuf {
    match linker {
        Linker::Own => target().join(profile),
        Linker::Zig(machine) => target().join(machine.target()).join(profile),
    }
}

/// Returns the file name of a package's library.
pub(crate) fn file_of(package: &str) -> String {
    format!("lib{}.so", package.replace('-', "_"))
}

/// Returns the command `cargo build`, which links with `linker`.
pub(crate) fn build_command(linker: Linker) -> Result<Command, String> {
    match linker {
        Linker::Own => {
            let mut command = cargo();
            command.arg("build");
            Ok(command)
        }
        Linker::Zig(machine) => zig_build(machine),
    }
}

fn zig_build(machine: Machine) -> Result<Command, String> {
    let tools = python::tools()?;
    let target = machine.target();
    if machine.is_foreign() {
        install_std(&target)?;
    }
    let mut command = in_root(tools.join("cargo-zigbuild").as_os_str());
    command.args(["zigbuild", "--target"]);
    command.arg(format!("{target}.{OLDEST_GLIBC}")).env("PATH", python::path_with(&tools));
    if machine.is_foreign() {
        command.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    }
    // Debuggers and `hostctl status` identify a library by its build-id; zig writes none by default.
    command.env("RUSTFLAGS", "-C link-arg=-Wl,--build-id=sha1");
    Ok(command)
}

/// Installs Rust's standard library for a target, if it is missing.
fn install_std(target: &str) -> Result<(), String> {
    let mut rustc = in_root("rustc".as_ref());
    let directory = output(rustc.args(["--print", "target-libdir", "--target", target]))?;
    if Path::new(directory.trim()).exists() {
        return Ok(());
    }
    run(in_root("rustup".as_ref()).args(["target", "add", target]))
}

/// Copies an executable or a library without symbols and debug information, which go to `debug`, where debuggers find
/// them by build-id.
pub(crate) fn strip(from: &Path, to: &Path, debug: Option<&Path>) -> Result<(), String> {
    files::copy(from, to)?;
    if let Some(debug) = debug {
        let notes = output(Command::new("readelf").arg("-n").arg(from))?;
        let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: "));
        let id = id.ok_or_else(|| format!("{}: no build-id", from.display()))?;
        let file = debug.join(".build-id").join(&id[..2]).join(format!("{}.debug", &id[2..]));
        file.parent().map_or(Ok(()), files::create)?;
        run(Command::new("objcopy").arg("--only-keep-debug").arg(from).arg(file))?;
    }
    run(Command::new("strip").arg(to))
}

/// Returns a script that is another name of a command. The command is executed in place of the script, and so is what
/// `ps` and the application see. Wheels contain no symbolic links.
fn script(command: &str, arguments: &str) -> String {
    format!(
        "#!/bin/sh\nexec \"$(dirname \"$(readlink -f \"$0\")\")/{command}\" {arguments}\"$@\"\n"
    )
}

/// Returns a `hostctl` that this machine can execute: that of `prefix`, or one built for the purpose.
fn hostctl(linker: Linker, prefix: &Path) -> Result<PathBuf, String> {
    if !linker.is_foreign() {
        return Ok(prefix.join("bin/hostctl"));
    }
    run(cargo().args(["build", "-p", "host", "--bin", "hostctl"]))?;
    Ok(directory(Linker::Own, "debug").join("hostctl"))
}

/// Writes manual pages and completions.
fn documents(hostctl: &Path, prefix: &Path) -> Result<(), String> {
    let manual = prefix.join("share/man/man1");
    run(Command::new(hostctl).arg("man").arg(&manual))?;
    for (name, command) in PAGES {
        let page = format!(".so man1/{command}.1\n");
        files::write(&manual.join(name).with_extension("1"), &page, 0o644)?;
    }
    for (shell, directory) in COMPLETIONS {
        let directory = prefix.join("share").join(directory);
        run(Command::new(hostctl).args(["completions", shell]).arg(directory))?;
    }
    Ok(())
}

/// Package whose library is the executable.
const SERVER: &str = "jimu-runtime";
/// Package of the kit for classes in C.
const KIT: &str = "jimu-kit-c";
/// Commands that are scripts, with the command and the first arguments that they stand for. There are second names,
/// because a DNS tool is called `host`, too.
const SCRIPTS: [(&str, &str, &str); 3] =
    [("jimu", "host", ""), ("hostctl", "host", "--hostctl "), ("jimuctl", "hostctl", "")];
/// Second names, and the manual pages to show for them.
const PAGES: [(&str, &str); 2] = [("jimu", "host"), ("jimuctl", "hostctl")];
/// Where shells look for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "bash-completion/completions"),
    ("zsh", "zsh/site-functions"),
    ("fish", "fish/vendor_completions.d"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_ships_is_found() {
        let libraries = libraries().unwrap();
        for name in ["check-app", "asgi-worker", "sync-worker", "welcome-app", "wsgi-app"] {
            assert!(libraries.iter().any(|library| library == name), "{name}: {libraries:?}");
        }
        assert!(!libraries.iter().any(|library| library.starts_with("jimu-kit")), "{libraries:?}");
    }
}
