//! Writes and copies files, with errors that name them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// Creates an empty directory in place of what is there.
pub(crate) fn fresh(directory: &Path) -> Result<(), String> {
    if directory.exists() {
        remove_directory(directory)?;
    }
    create(directory)
}

/// Creates a directory, and those above it.
pub(crate) fn create(directory: &Path) -> Result<(), String> {
    fs::create_dir_all(directory).map_err(|error| at(directory, &error))
}

/// Copies a file to a path whose directories need not exist.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), String> {
    to.parent().map_or(Ok(()), create)?;
    fs::copy(from, to).map(drop).map_err(|error| at(from, &error))
}

/// Copies all files of a directory.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<(), String> {
    for entry in fs::read_dir(from).map_err(|error| at(from, &error))?.flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_tree(&from, &to)?;
        } else {
            copy(&from, &to)?;
        }
    }
    Ok(())
}

/// Writes a file with the permissions `mode`.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    path.parent().map_or(Ok(()), create)?;
    fs::write(path, text).map_err(|error| at(path, &error))?;
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, permissions).map_err(|error| at(path, &error))
}

/// Removes a file.
pub(crate) fn remove(path: &Path) -> Result<(), String> {
    fs::remove_file(path).map_err(|error| at(path, &error))
}

/// Removes a directory with all that is in it.
pub(crate) fn remove_directory(path: &Path) -> Result<(), String> {
    fs::remove_dir_all(path).map_err(|error| at(path, &error))
}

/// Renames a file.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), String> {
    fs::rename(from, to).map_err(|error| at(from, &error))
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
