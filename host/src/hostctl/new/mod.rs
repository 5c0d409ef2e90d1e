//! `hostctl new`: writes the project of a plugin, as `cargo new` does for a crate. The files come from `templates`.

mod templates;

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use thiserror::Error;

use crate::exit_status::FAILED;

/// The project to write.
#[derive(Args)]
pub(super) struct Project {
    /// Kind of plugin
    #[arg(value_name = "KIND")]
    kind: Kind,
    /// Name of the plugin and of the directory to create
    name: String,
    /// Programming language
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    lang: Language,
    /// Directory to create instead of NAME
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Clone of Jimu's source to build against: in Rust instead of published versions, of which there are none yet; for
    /// a class in C or C++ to take the kit from instead of the release archive that contains this command
    #[arg(long, value_name = "DIRECTORY")]
    path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An application, which responds to requests
    App,
    /// A worker class, which accepts connections, waits, and calls the application
    Class,
    /// Hooks, which run on server events and requests
    Hooks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    C,
    Cpp,
    Go,
}

/// Reason for which no project was written.
#[derive(Debug, Error)]
enum NewError {
    #[error(
        "invalid name {0:?}: use lower-case letters, digits, `-` and `_`, begin with a letter, end with a letter or a \
         digit, and use at most {NAME_MAX} characters"
    )]
    Name(String),
    #[error("{kind} cannot be written in {language}; use --lang {others}")]
    Language { kind: &'static str, language: &'static str, others: &'static str },
    #[error("{} exists and is not an empty directory; choose another one with --directory", .0.display())]
    Occupied(PathBuf),
    #[error("{} is not a clone of Jimu's source: cannot open {}/{MARK}: {reason}", path.display(), path.display())]
    NoSource { path: PathBuf, reason: io::Error },
    #[error("cannot write {}: {reason}", path.display())]
    Write { path: PathBuf, reason: io::Error },
}

/// Writes a project, and prints what to do with it.
pub(super) fn run(project: &Project) -> i32 {
    match project.write() {
        Ok(next) => {
            super::say(next);
            0
        }
        Err(error) => {
            eprintln!("error: {error}");
            FAILED
        }
    }
}

impl Project {
    /// Writes the files, and returns what to do next.
    fn write(&self) -> Result<String, NewError> {
        if !is_valid(&self.name) {
            return Err(NewError::Name(self.name.clone()));
        }
        let files = templates::files(self.kind, self.lang).ok_or_else(|| self.unsupported())?;
        let source = self.path.as_deref().map(find_source).transpose()?;
        let kit = source.as_deref().map_or_else(Kit::installed, Kit::in_clone);
        let values = self.values(source.as_deref(), &kit);
        let directory = self.directory.as_deref().unwrap_or(Path::new(&self.name));
        create_directory(directory)?;
        for file in files {
            let path = directory.join(fill_in(file.path, &values));
            write_file(&path, &fill_in(file.text, &values))
                .map_err(|reason| NewError::Write { path, reason })?;
        }
        Ok(self.next_steps(directory, source.is_some(), kit.is_present()))
    }

    fn unsupported(&self) -> NewError {
        let (kind, others) = match self.kind {
            Kind::App => ("an application", "rust, c, cpp or go"),
            Kind::Class => ("a worker class", "rust, c or cpp"),
            Kind::Hooks => ("hooks", "rust, c or cpp"),
        };
        NewError::Language { kind, language: self.lang.name(), others }
    }

    /// Returns what stands for each placeholder of the templates.
    fn values(&self, source: Option<&Path>, kit: &Kit) -> Vec<(&'static str, String)> {
        let rust = self.lang == Language::Rust;
        let compile = match self.lang {
            Language::Cpp => "$(CXX) -std=c++17 $(CXXFLAGS)",
            _ => "$(CC) -std=c11 $(CFLAGS)",
        };
        let library = self.library();
        vec![
            ("{{name}}", self.name.clone()),
            ("{{crate}}", format!("{}-{}", self.name, self.kind.suffix())),
            ("{{type}}", camel_case(&self.name)),
            ("{{built}}", self.built()),
            ("{{library}}", library),
            ("{{build}}", if rust { "cargo build --release" } else { "make" }.to_owned()),
            ("{{test}}", self.test().to_owned()),
            ("{{source}}", format!("{}.{}", self.name, self.lang.extension())),
            ("{{compile}}", compile.to_owned()),
            (
                "{{flags}}",
                if self.lang == Language::Cpp { "CXXFLAGS" } else { "CFLAGS" }.to_owned(),
            ),
            ("{{worker_api}}", dependency(worker_api::API_VERSION, source, "worker-api")),
            ("{{jimu_kit}}", dependency(env!("CARGO_PKG_VERSION"), source, "workers/kit")),
            ("{{jimu_is}}", kit.comment.to_owned()),
            ("{{jimu}}", kit.makefile_path()),
            ("{{kit}}", kit.library.to_owned()),
            ("{{kit_include}}", kit.include.to_owned()),
            // In the project, the package of the example in Go finds the header beside it, and has another name.
            (GO_INCLUDE, String::new()),
            (GO_NAME, GO_NAME.replace("go", &self.name)),
        ]
    }

    /// Returns the name of the library's file. Classes are found by it: `--worker-class NAME`.
    fn library(&self) -> String {
        format!("lib{}_{}.so", self.name.replace('-', "_"), self.kind.suffix())
    }

    /// Returns where the library is after the build, relative to the project.
    fn built(&self) -> String {
        let directory = if self.lang == Language::Rust { "target/release" } else { "." };
        format!("{directory}/{}", self.library())
    }

    fn test(&self) -> &'static str {
        if self.lang == Language::Rust { "cargo test" } else { "make test" }
    }

    fn next_steps(&self, directory: &Path, has_source: bool, has_kit: bool) -> String {
        let missing = match (self.lang, self.kind) {
            (Language::Rust, _) if !has_source => {
                "Until Jimu's crates are published, Cargo.toml needs paths to a clone of its source: see --path.\n"
            }
            (Language::C | Language::Cpp, Kind::Class) if !has_kit => {
                "The kit is in Jimu's source: name a clone of it as JIMU in the Makefile, or see --path.\n"
            }
            _ => "",
        };
        format!(
            "Created {}. To build and test it with the `host` on PATH, or the one that HOST names:\n    \
             cd {} && {}\n{missing}README.md has the other commands.\n",
            directory.display(),
            shell_word(directory),
            self.test()
        )
    }
}

impl Kind {
    /// Returns the end of the library's name, without extension.
    fn suffix(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Class => "worker",
            Self::Hooks => "hooks",
        }
    }
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::C => "C",
            Self::Cpp => "C++",
            Self::Go => "Go",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Rust => "rs",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Go => "go",
        }
    }
}

/// Where the Makefile of a class in C or C++ finds the kit.
struct Kit {
    /// The directory that the Makefile calls `JIMU`. None: its user has to set it, to a clone.
    place: Option<PathBuf>,
    comment: &'static str,
    library: &'static str,
    include: &'static str,
}

impl Kit {
    fn in_clone(path: &Path) -> Self {
        Self { place: Some(path.to_owned()), ..Self::CLONE }
    }

    /// The kit of the release archive that contains this executable, if it has one.
    fn installed() -> Self {
        let program = env::current_exe().unwrap_or_default();
        let prefix = program.ancestors().nth(2).unwrap_or(Path::new(""));
        let kit = Self { place: Some(prefix.to_owned()), ..Self::ARCHIVE };
        let has = |file: &str| prefix.join(file).is_file();
        let is_complete = has(kit.library) && has("include/jimu_kit.h");
        if is_complete { kit } else { Self::CLONE }
    }

    fn is_present(&self) -> bool {
        self.place.is_some()
    }

    fn makefile_path(&self) -> String {
        // In a Makefile, these two begin a variable and a comment.
        let text = self.place.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        text.replace('$', "$$").replace('#', r"\#")
    }

    const CLONE: Self = Self {
        place: None,
        comment: "# A clone of Jimu's source, for the kit: jimu_kit.h and libjimu_kit.a, which cargo builds there.",
        library: "target/release/libjimu_kit.a",
        include: "workers/kit-c/include",
    };
    const ARCHIVE: Self = Self {
        place: None,
        comment: "# Where Jimu's release archive is unpacked, for the kit: jimu_kit.h and libjimu_kit.a.",
        library: "lib/libjimu_kit.a",
        include: "include",
    };
}

/// Returns a path as a word of a shell's command.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Returns whether a name fits into the names of a crate, a library and a worker class.
fn is_valid(name: &str) -> bool {
    let letters = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
    let ends_well = name.ends_with(|last: char| last.is_ascii_alphanumeric());
    letters
        && ends_well
        && name.len() <= NAME_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
}

fn camel_case(name: &str) -> String {
    let words = name.split(['-', '_']).filter(|word| !word.is_empty());
    words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

/// Returns the value of a dependency in Cargo.toml.
fn dependency(version: &str, source: Option<&Path>, directory: &str) -> String {
    let (minor, _) = version.rsplit_once('.').unwrap_or((version, ""));
    match source {
        None => format!("\"{minor}\""),
        Some(source) => {
            let path = toml::Value::String(source.join(directory).display().to_string());
            format!("{{ version = \"{minor}\", path = {path} }}")
        }
    }
}

/// Returns the absolute path of a clone of the source.
fn find_source(path: &Path) -> Result<PathBuf, NewError> {
    let found = fs::metadata(path.join(MARK)).and_then(|_| path.canonicalize());
    found.map_err(|reason| NewError::NoSource { path: path.to_owned(), reason })
}

/// Creates the project's directory, unless it exists and is empty.
fn create_directory(path: &Path) -> Result<(), NewError> {
    let failed = |reason| NewError::Write { path: path.to_owned(), reason };
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(NewError::Occupied(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes a new file, executable if it is a script.
fn write_file(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let mode = if text.starts_with("#!") { 0o777 } else { 0o666 };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?
        .write_all(text.as_bytes())
}

fn fill_in(text: &str, values: &[(&str, String)]) -> String {
    values
        .iter()
        .fold(text.to_owned(), |text, (placeholder, value)| text.replace(placeholder, value))
}

/// Part of the source that every project in Rust depends on.
const MARK: &str = "worker-api/Cargo.toml";
/// Where the example in Go finds the header.
const GO_INCLUDE: &str = " -I${SRCDIR}/../../../../worker-api/include";
/// Name of the example in Go.
const GO_NAME: &str = "JIMU_GO_NAME \"go\"";
/// Keeps lines that contain the name readable.
const NAME_MAX: usize = 40;
