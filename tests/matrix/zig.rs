//! The example application in Zig, under every class.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    sync::OnceLock,
};

use jimu_tests::{
    artifacts, behaviour, cell::Cell, runner::Behaviour, server::Setup, tools::works,
};

pub(crate) fn behaviours() -> Vec<Behaviour> {
    vec![
        behaviour!(an_application_in_zig_serves)
            .of_class()
            .within(300)
            .only_if(has_zig, "no zig compiler on PATH"),
    ]
}

fn an_application_in_zig_serves(cell: &Cell) {
    let server = Setup::new(cell).app(library()).start();
    let worker = server.serving_pid();
    assert_eq!(server.get("/").text(), "Hello, world!\n");
    assert_eq!(server.get("/none").status, 404);
    assert_eq!(server.get("/sleep?ms=20").text(), "Slept for 20 ms.\n");
    let body = vec![b'z'; 100_000];
    assert_eq!(server.connect().post("/echo", &body).unwrap().body, body);
    assert!(server.get("/headers").text().starts_with("Host: "));
    assert_eq!(server.get("/fail").status, 500);
    assert_eq!(server.serving_pid(), worker);
    server.stop();
}

/// Builds the example once, as its first lines say.
fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let place = artifacts::compiled().join("zig");
            fs::create_dir_all(&place).unwrap();
            let (header, library) = (place.join("jimu.zig"), place.join("libhello_zig_app.so"));
            let include = artifacts::root().join("worker-api/include");
            let mut translate = Command::new("zig");
            translate.args(["translate-c", "-lc", "-I"]).arg(&include).arg(include.join("jimu.h"));
            translate.stdout(File::create(&header).unwrap());
            assert!(translate.status().unwrap().success(), "{translate:?}");
            let mut build = Command::new("zig");
            build.args(["build-lib", "-dynamic", "-OReleaseSafe", "-lc", "--dep", "jimu"]);
            build.args(["-Mroot=hello.zig", &format!("-Mjimu={}", header.display())]);
            build.arg(format!("-femit-bin={}", library.display()));
            build.current_dir(artifacts::root().join("plugins/examples/hello-zig"));
            // By default the cache is in the current directory, which the program may not write to.
            build.env("ZIG_LOCAL_CACHE_DIR", place.join("cache"));
            assert!(build.status().unwrap().success(), "{build:?}");
            library
        })
        .clone()
}

fn has_zig() -> bool {
    works("zig", &["version"])
}
