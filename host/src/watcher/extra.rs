//! Entries of `--reload-extra-file` besides files: directories and patterns.

use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// Files that are watched wherever they appear below a directory.
pub(super) struct Extra {
    /// Directory that is watched recursively, with links resolved.
    pub(super) directory: PathBuf,
    /// Pattern of the files; `None` for every file.
    pattern: Option<Pattern>,
}

impl Extra {
    /// Interprets `path` if it is a directory or a pattern; `None` if it is a file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        if path.is_dir() {
            return Some(Self { directory: real(path), pattern: None });
        }
        let is_plain =
            |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
        let plain: PathBuf = path.components().take_while(is_plain).collect();
        let rest = path.strip_prefix(&plain).ok().filter(|rest| !rest.as_os_str().is_empty())?;
        if path.exists() {
            // A file whose name contains such a character.
            return None;
        }
        let directory = real(&plain);
        let escaped = Pattern::escape(directory.to_str()?);
        let pattern = Pattern::new(&format!("{escaped}/{}", rest.to_str()?)).ok()?;
        Some(Self { directory, pattern: Some(pattern) })
    }

    /// Returns whether a file is included.
    pub(super) fn has(&self, path: &Path) -> bool {
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        path.starts_with(&self.directory)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches_path_with(path, options))
    }
}

/// Returns the links on the way to `path`, each as a path: a change of a link changes what is behind it.
pub(super) fn links_of(path: &Path) -> Vec<PathBuf> {
    path.ancestors().filter(|part| part.is_symlink()).map(Path::to_owned).collect()
}

/// Returns the path with links resolved, as events report it.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn directories_and_patterns_have_the_files_that_they_name() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("conf/deep")).unwrap();
        fs::write(top.join("a[1].toml"), "").unwrap();
        for (named, file, is_among) in [
            ("conf", "conf/x", true),
            ("conf", "conf/deep/x", true),
            ("conf", "other/x", false),
            ("conf/*.toml", "conf/x.toml", true),
            ("conf/*.toml", "conf/x.yaml", false),
            ("conf/*.toml", "conf/deep/x.toml", false),
            ("conf/**/*.toml", "conf/deep/x.toml", true),
        ] {
            let extra = Extra::of(&top.join(named)).unwrap();
            assert_eq!(extra.has(&top.join(file)), is_among, "{named}: {file}");
        }
        assert!(Extra::of(&top.join("a[1].toml")).is_none(), "a file with such a name");
        assert!(Extra::of(&top.join("missing")).is_none());
    }

    #[test]
    fn a_directory_behind_a_link_is_watched_itself() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("releases/1/conf")).unwrap();
        std::os::unix::fs::symlink("releases/1", top.join("current")).unwrap();
        let extra = Extra::of(&top.join("current/conf")).unwrap();
        assert_eq!(extra.directory, top.join("releases/1/conf"));
        assert_eq!(links_of(&top.join("current/conf")), [top.join("current")]);
    }
}
