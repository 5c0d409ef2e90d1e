//! Detects settings that a reload would lose because a settings file is empty, truncated or missing.
//!
//! A missing key means its default, so a damaged file would replace the application by the welcome page and
//! change the port without an error. Settings that decide what is served, where and as which user can be changed
//! by a reload, but not by omission.

use std::path::Path;

use super::{
    declare::Setting,
    error::{Origin, Problem},
    table::{Settings, TABLE},
};

impl Settings {
    /// Checks that `next`, read for a reload or an upgrade of a server that runs with `self`, does not lack a
    /// setting that decides what is served.
    pub fn check_successor(&self, next: &Self) -> Result<(), Problem> {
        if let Some(file) = self.file.as_deref().filter(|_| self.reads_from_file()) {
            match &next.file {
                None => {
                    let message =
                        format!("file not found, although the running server uses it; {UNDO}");
                    return Err(Problem::file(file, message));
                }
                Some(path) if !next.reads_from_file() => {
                    let message = format!(
                        "the file contains no settings, but the running server uses some; {UNDO}"
                    );
                    return Err(Problem::file(path, message));
                }
                Some(_) => {}
            }
        }
        for (index, setting) in TABLE.iter().enumerate() {
            let origin = &self.origins[index];
            let is_lost = matches!(origin, Origin::File(..))
                && matches!(next.origins[index], Origin::Default | Origin::Variable(_))
                && self.values[index] != next.values[index];
            let is_essential = ESSENTIAL.contains(&setting.name)
                || self.wsgi_app == next.wsgi_app && OF_APPLICATION.contains(&setting.name);
            if is_lost && is_essential {
                return Err(self.lost(setting, index));
            }
        }
        let loses_table =
            !self.sections.application.is_empty() && next.sections.application.is_empty();
        if loses_table && self.wsgi_app == next.wsgi_app {
            let message = "[application] is missing or empty, but the running server has settings there; \
                 restore it, or restart the server to serve the application without them";
            return Err(Problem::file(next.file.as_deref().unwrap_or(&next.chdir), message));
        }
        if self.has_application && !next.has_application {
            let message = "no application is set, but the running server has one; set wsgi_app, or \
                 restart the server to serve the welcome page";
            return Err(Problem::file(next.file.as_deref().unwrap_or(&next.chdir), message));
        }
        Ok(())
    }

    fn lost(&self, setting: &Setting, index: usize) -> Problem {
        let value = setting.kind.write_toml(&self.values[index]).unwrap_or_default();
        let message = format!(
            "{name}: not set, but the running server has {name} = {value}; set it, or restart the \
             server to use the default",
            name = setting.name
        );
        match &self.origins[index] {
            Origin::File(path, _) => Problem::file(path, message),
            origin => Problem::at(origin, message),
        }
    }

    fn reads_from_file(&self) -> bool {
        let has_tables = [&self.sections.class, &self.sections.application, &self.sections.hooks]
            .into_iter()
            .any(|table| !table.is_empty());
        has_tables || self.origins.iter().any(|origin| matches!(origin, Origin::File(..)))
    }
}

/// Returns whether `directory` belongs to a Django project, which is an application without being named.
pub fn is_django_project(directory: &Path) -> bool {
    directory.join("manage.py").is_file()
}

/// Settings whose omission would change what is served, where, or with which privileges.
const ESSENTIAL: [&str; 10] = [
    "wsgi_app",
    "bind",
    "chdir",
    "certfile",
    "keyfile",
    "ca_certs",
    "cert_reqs",
    "user",
    "group",
    "proxy_protocol",
];

/// Settings whose omission would change how the same application is found, and what it reads.
const OF_APPLICATION: [&str; 3] = ["python", "pythonpath", "raw_env"];

const UNDO: &str = "restore it, or restart the server to use the defaults";
