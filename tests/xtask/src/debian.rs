//! A Debian package. Its commands are `jimu` and `jimuctl`: `host` is the DNS tool of another package.
//!
//! ```text
//!     /usr/lib/jimu/           the installed server
//!     /usr/bin/                links to its executables
//!     /usr/include/            headers for plugins in C
//!     /usr/lib/systemd/system/ units, which start nothing until they are enabled
//!     /etc/jimu/               the administrator's settings
//! ```

use std::{os::unix::fs::symlink, path::Path, process::Command};

use crate::{
    dist::UNITS,
    files,
    paths::{root, target},
    run::run,
    stage::{Linker, Machine, stage},
};

/// Makes the package in target/dist.
pub(crate) fn package() -> Result<(), String> {
    let dist = target().join("dist");
    let tree = dist.join("deb");
    files::fresh(&tree)?;
    let server = tree.join("usr/lib/jimu");
    stage(Linker::Zig(Machine::X86_64), &server, None)?;
    commands(&tree)?;
    documents(&tree, &server.join("share"))?;
    let headers = server.join("include");
    if headers.exists() {
        files::rename(&headers, &tree.join("usr/include"))?;
    }
    for unit in UNITS {
        let to = tree.join("usr/lib/systemd/system").join(unit);
        files::copy(&root().join("docs/deploy").join(unit), &to)?;
    }
    files::create(&tree.join("etc/jimu"))?;
    control(&tree)?;
    let mut build = Command::new("dpkg-deb");
    run(build.args(["--root-owner-group", "--build"]).arg(&tree).arg(&dist))
}

/// Links the commands. The executables themselves have two names here, instead of scripts.
fn commands(tree: &Path) -> Result<(), String> {
    files::create(&tree.join("usr/bin"))?;
    for (name, file) in [("jimu", "host"), ("jimuctl", "hostctl"), ("hostctl", "hostctl")] {
        let link = tree.join("usr/bin").join(name);
        let made = symlink(format!("../lib/jimu/bin/{file}"), &link);
        made.map_err(|error| format!("{}: {error}", link.display()))?;
    }
    for name in ["jimu", "jimuctl"] {
        files::remove(&tree.join("usr/lib/jimu/bin").join(name))?;
    }
    Ok(())
}

/// Moves manual pages and completions where the system looks for them; those of `host` belong to another package.
fn documents(tree: &Path, share: &Path) -> Result<(), String> {
    let manual = share.join("man/man1");
    files::rename(&manual.join("host.1"), &manual.join("jimu.1"))?;
    for file in FOREIGN {
        files::remove(&share.join(file))?;
    }
    let usr = tree.join("usr/share");
    files::copy_tree(share, &usr)?;
    files::remove_directory(share)?;
    let doc = usr.join("doc/jimu");
    files::copy(&root().join("LICENSE"), &doc.join("copyright"))?;
    files::copy(&root().join("CHANGELOG.md"), &doc.join("changelog"))?;
    let mut gzip = Command::new("gzip");
    run(gzip.args(["-9nr"]).arg(usr.join("man")).arg(doc.join("changelog")))
}

fn control(tree: &Path) -> Result<(), String> {
    let directory = tree.join("DEBIAN");
    let fields = format!(
        "Package: jimu\nVersion: {}\nArchitecture: amd64\nSection: httpd\nPriority: optional\n\
         Maintainer: The Jimu developers <jimu@localhost>\nDepends: libc6 (>= 2.17)\n\
         Recommends: python3 (>= 3.9)\n\
         Description: pre-fork application server with exchangeable worker classes\n \
         Serves WSGI, ASGI and native applications, and accepts gunicorn's flags,\n \
         signals and most of its settings. The worker class of a running server can be replaced.\n",
        env!("CARGO_PKG_VERSION"),
    );
    files::write(&directory.join("control"), &fields, 0o644)?;
    for (name, script) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        files::write(&directory.join(name), script, 0o755)?;
    }
    Ok(())
}

/// Documents of the command `host`, below `share`.
const FOREIGN: [&str; 3] = [
    "bash-completion/completions/host.bash",
    "zsh/site-functions/_host",
    "fish/vendor_completions.d/host.fish",
];

/// A server that runs is upgraded by USR2, without losing a request. Once the new one serves, systemd calls it the main
/// process, without an event that a script could await. If that does not happen, the upgrade was refused.
const POSTINST: &str = "\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ \"$1\" = configure ] && [ -n \"$2\" ] && systemctl --quiet is-active jimu.service; then
        main() { systemctl show --property MainPID --value jimu.service; }
        old=$(main)
        systemctl kill --kill-who=main --signal=USR2 jimu.service
        tries=0
        while [ \"$(main)\" = \"$old\" ] && [ $tries -lt 300 ]; do
            sleep 0.2
            tries=$((tries + 1))
        done
        if [ \"$(main)\" = \"$old\" ]; then
            echo \"jimu: the old version continues to serve: see journalctl -u jimu\" >&2
        else
            kill -TERM \"$old\"
        fi
    fi
fi
";

const PRERM: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then
    systemctl --quiet disable --now jimu.socket jimu.service || true
fi
";

const POSTRM: &str = "\
#!/bin/sh
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
[ \"$1\" != purge ] || rm -rf /etc/jimu
";
