//! nginx with the recipe, whose upstream is changed as its comment says for a fleet. The time after which a silent host is
//! given up is shortened: nginx has no other way to find one that has vanished.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{
    network::{NAMES, Network, address},
    proxy::Proxy,
    recipe::Recipe,
};
use crate::{process, tools::works};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    proxy: Proxy,
    directory: TempDir,
    site: String,
}

impl Nginx {
    /// Returns whether this machine has it.
    pub fn is_present() -> bool {
        works("nginx", &["-v"])
    }

    /// Starts it, and waits until it accepts connections.
    pub fn start(network: &Network, recipe: &Recipe) -> Self {
        let directory = TempDir::with_prefix("jimu-nginx-").unwrap();
        let site = for_fleet(&recipe.text);
        fs::write(directory.path().join("site.conf"), &site).unwrap();
        fs::write(directory.path().join("nginx.conf"), MAIN).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(directory.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
        Self { proxy: Proxy::start(network, command), directory, site }
    }

    /// Takes a host out: `down` in its line, and a reload.
    pub fn take_out(&self, host: usize) {
        let line = server_line(&self.site, host);
        self.reload(&self.site.replace(&line, &line.replace(';', " down;")));
    }

    /// Uses all hosts again.
    pub fn put_back(&self) {
        self.reload(&self.site);
    }

    fn reload(&self, site: &str) {
        let path: PathBuf = self.directory.path().join("site.conf");
        fs::write(path, site).unwrap();
        let mark = self.proxy.log().mark();
        process::signal(self.proxy.pid(), Signal::SIGHUP);
        // The old worker has closed its listeners and finished its requests.
        self.proxy.log().line_after(mark, &["exited with code 0"], PATIENCE);
    }
}

/// Replaces the server on this host by the lines of the comment.
fn for_fleet(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim().starts_with("server unix:"));
    let lines = lines.map(|line| line.replacen("# server 10.", "server 10.", 1) + "\n");
    let site: String = lines.collect();
    let site = site.replace("proxy_read_timeout 60s;", "proxy_read_timeout 4s;");
    assert!(site.contains("proxy_read_timeout 4s;"), "the recipe has another time");
    for host in 0..NAMES.len() {
        server_line(&site, host);
    }
    site
}

fn server_line(site: &str, host: usize) -> String {
    let start = format!("server {} ", address(host));
    let line = site.lines().find(|line| line.trim().starts_with(&start));
    line.unwrap_or_else(|| panic!("no {start:?} in the recipe")).to_owned()
}

/// What the recipe is part of.
const MAIN: &str = "\
daemon off;
pid nginx.pid;
error_log stderr notice;
worker_processes 1;
events { worker_connections 512; }
http { access_log off; include site.conf; }
";
const PATIENCE: Duration = Duration::from_secs(20);
