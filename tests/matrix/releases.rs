//! What a reload reads again: a damaged settings file, and a release behind a symbolic link.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use jimu_tests::{
    artifacts, behaviour,
    cell::{self, Cell},
    executable, process,
    runner::Behaviour,
    server::{Server, Setup},
    wait,
};
use nix::sys::signal::Signal;

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(a_damaged_settings_file_is_refused).of_host().within(90),
        behaviour!(a_settings_file_without_application_is_refused).of_host(),
        behaviour!(a_new_release_behind_the_link_is_loaded).of_host().within(120),
        behaviour!(a_new_python_release_behind_the_link_is_loaded)
            .of_host()
            .within(120)
            .only_if(has_python, "no Python environment: cargo xtask python"),
    ]
}

const PATIENCE: Duration = Duration::from_secs(20);

fn a_damaged_settings_file_is_refused(cell: &Cell) {
    let app = artifacts::library("hello_app");
    let address = jimu_tests::server::address();
    let head = format!("workers = 1\nworker_class = \"{}\"\n", cell.class.path.display());
    let bind = format!("bind = [\"{address}\"]\n");
    let name = format!("wsgi_app = \"{}\"\n", app.display());
    let env = "raw_env = [\"A=1\"]\n";
    let table = "[application]\nkey = 1\n";
    let whole = format!("{head}{bind}{name}{env}{table}");
    let setup = Setup::bare().reached_at(jimu_tests::http::Address::Tcp(address));
    let server = setup.file("host.toml", &whole).start();
    let before = server.serving_pid();
    let file = server.dir().join("host.toml");
    let damaged = [
        (Some(String::new()), "no settings"),
        (Some("# workers = 1\n".to_owned()), "no settings"),
        (Some(head.clone()), "bind"),
        (Some(format!("{head}{bind}")), "wsgi_app"),
        (Some(format!("{head}{name}")), "bind"),
        (Some(format!("{head}{bind}{name}{table}")), "raw_env"),
        (Some(format!("{head}{bind}{name}{env}")), "[application]"),
        (None, "file not found"),
    ];
    for (text, word) in damaged {
        match &text {
            Some(text) => server.write("host.toml", text),
            None => fs::remove_file(&file).unwrap(),
        }
        let reason = server.ctl(&["reload"]).refused();
        assert!(reason.contains(word) && reason.contains("host.toml"), "{word:?}: {reason}");
        for (signal, words) in
            [(Signal::SIGHUP, "reload refused"), (Signal::SIGUSR2, "upgrade refused")]
        {
            let mark = server.log.mark();
            server.signal(signal);
            server.log.line_after(mark, &[words, word], PATIENCE);
        }
        assert_eq!(server.serving_pid(), before, "after {text:?}");
    }
    // A setting that is changed, not lost, takes effect.
    let moved = jimu_tests::server::address();
    server.write("host.toml", format!("{head}{name}raw_env = []\nbind = [\"{moved}\"]\n{table}"));
    server.ctl(&["reload"]).done();
    assert!(std::net::TcpStream::connect(moved).is_ok(), "not moved to {moved}");
    server.stop();
}

fn a_settings_file_without_application_is_refused(cell: &Cell) {
    let ended = Setup::bare().class(&cell.class.path).file("host.toml", "").refused();
    assert_eq!(ended.status(), 78, "{}", ended.log);
    assert!(ended.log.contains("host.toml: no application"), "{}", ended.log);
}

fn a_new_release_behind_the_link_is_loaded(cell: &Cell) {
    let releases = Releases::new();
    let fill = |release: &Path, app: &str| {
        fs::create_dir_all(release.join("bin")).unwrap();
        fs::create_dir_all(release.join("work")).unwrap();
        executable::copy(artifacts::executable("host"), release.join("bin/host"));
        fs::copy(&cell.class.path, release.join("work/libmine_worker.so")).unwrap();
        fs::copy(artifacts::library(app), release.join("work/app.so")).unwrap();
        fs::write(release.join("settings.toml"), "workers = 1\n").unwrap();
    };
    fill(&releases.make(1), "hello_app");
    let server = releases.start(
        "exec bin/host --config settings.toml --chdir work --worker-class ./libmine_worker.so \
         \"$@\" ./app.so",
    );
    assert!(!server.get("/").text().contains("<html"), "the first release is hello");
    fill(&releases.make(2), "welcome_app");
    releases.prune(1);
    reload(&server, 2);
    assert!(server.get("/").text().contains("<html"), "still the first release");
    fill(&releases.make(3), "hello_app");
    releases.prune(2);
    let new = upgrade(&server);
    let program = fs::read_link(format!("/proc/{new}/exe")).unwrap();
    assert!(program.ends_with("releases/3/bin/host"), "{}", program.display());
    assert!(!server.get("/").text().contains("<html"), "still the second release");
    process::signal(new, Signal::SIGTERM);
    assert!(server.all_gone(PATIENCE), "left: {:?}", server.processes());
}

fn has_python() -> bool {
    cell::python().is_some()
}

fn a_new_python_release_behind_the_link_is_loaded(cell: &Cell) {
    let python = cell::python().expect("the behavior's condition");
    let releases = Releases::new();
    let fill = |release: &Path, word: &str| {
        let text = format!(
            "def app(environ, start):\n    start('200 OK', [('Content-Length', '{}')])\n    return [b'{word}']\n",
            word.len()
        );
        fs::write(release.join("site.toml"), "workers = 1\nwsgi_app = \"release:app\"\n").unwrap();
        fs::write(release.join("release.py"), text).unwrap();
    };
    fill(&releases.make(1), "first");
    let script = format!(
        "exec {} --config site.toml --worker-class {} --python {} \"$@\"",
        artifacts::executable("host").display(),
        cell.class.path.display(),
        python.display()
    );
    let server = releases.start(&script);
    assert_eq!(server.get("/").text(), "first");
    fill(&releases.make(2), "second");
    releases.prune(1);
    reload(&server, 2);
    assert_eq!(server.get("/").text(), "second");
    fill(&releases.make(3), "third");
    releases.prune(2);
    let new = upgrade(&server);
    assert_eq!(server.get("/").text(), "third");
    process::signal(new, Signal::SIGTERM);
    assert!(server.all_gone(PATIENCE), "left: {:?}", server.processes());
}

/// Directories `releases/N`, and a link `current` to the latest one, as Capistrano creates them.
struct Releases(tempfile::TempDir);

impl Releases {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Creates an empty release and makes it the current one.
    fn make(&self, number: u32) -> PathBuf {
        let release = self.0.path().join(format!("releases/{number}"));
        fs::create_dir_all(&release).unwrap();
        let (link, current) = (self.0.path().join("next"), self.0.path().join("current"));
        symlink(&release, &link).unwrap();
        fs::rename(link, current).unwrap();
        release
    }

    fn prune(&self, number: u32) {
        fs::remove_dir_all(self.0.path().join(format!("releases/{number}"))).unwrap();
    }

    /// Starts the server by a shell that has entered the current release through the link.
    fn start(&self, script: &str) -> Server {
        let script = format!("cd {}/current && {script}", self.0.path().display());
        Setup::script(&script).start()
    }
}

/// Reloads by HUP and waits until the old generation has exited.
fn reload(server: &Server, generation: u32) {
    server.signal(Signal::SIGHUP);
    server.log.line(&[&format!("generation {generation} serves")], PATIENCE);
    wait::until("one generation is left", PATIENCE, || {
        let left = server.workers();
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// Replaces the arbiter by USR2 and TERM; returns the new one's PID.
fn upgrade(server: &Server) -> nix::unistd::Pid {
    let mark = server.log.mark();
    server.signal(Signal::SIGUSR2);
    server.log.line_after(mark, &["Server is ready"], PATIENCE);
    let new = server.successor();
    server.signal(Signal::SIGTERM);
    server.log.line(&["upgrade complete"], PATIENCE);
    new
}
