//! The effective settings as data, for a process that a mold executes: it has no access to the sources as they were read.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{COMMAND_VARIABLES, Origin, Problem, Sections, Settings, TABLE, Value};

/// [`Settings`] as data, without the command line and the files to watch.
#[derive(Debug, Serialize, Deserialize)]
pub struct SettingsRecord {
    values: Vec<Value>,
    origins: Vec<OriginRecord>,
    /// `[class]`, `[application]` and `[hooks]`, in TOML, which has types that JSON lacks.
    sections: [String; 3],
    /// Empty for none.
    #[serde(with = "crate::bytes")]
    file: PathBuf,
    #[serde(with = "crate::bytes")]
    start_directory: PathBuf,
    #[serde(with = "crate::bytes")]
    program: OsString,
    has_application: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum OriginRecord {
    Default,
    Variable(String),
    File(#[serde(with = "crate::bytes")] PathBuf, usize),
    CommandVariable(String),
    CommandLine,
    Request,
}

impl SettingsRecord {
    /// Records the settings.
    pub fn new(settings: &Settings) -> Self {
        let Sections { class, application, hooks } = &settings.sections;
        Self {
            values: settings.values.clone(),
            origins: settings.origins.iter().map(OriginRecord::new).collect(),
            sections: [class, application, hooks].map(ToString::to_string),
            file: settings.file.clone().unwrap_or_default(),
            start_directory: settings.start_directory.clone(),
            program: settings.program.clone(),
            has_application: settings.has_application,
        }
    }

    /// Restores the settings. Fails if the record is of another build.
    pub fn restore(self) -> Result<Settings, Problem> {
        let invalid = |error: &dyn std::fmt::Display| {
            Problem::at(&Origin::Default, format!("invalid record of the settings: {error}"))
        };
        if (self.values.len(), self.origins.len()) != (TABLE.len(), TABLE.len()) {
            return Err(invalid(&"the number of settings differs"));
        }
        let table = |text: &str| text.parse::<toml::Table>().map_err(|error| invalid(&error));
        let [class, application, hooks] = &self.sections;
        let sections = Sections {
            class: table(class)?,
            application: table(application)?,
            hooks: table(hooks)?,
        };
        let origins = self.origins.into_iter().map(OriginRecord::restore).collect();
        let mut settings = Settings::assemble(self.values, origins, sections, Vec::new())?;
        settings.file = Some(self.file).filter(|file| !file.as_os_str().is_empty());
        settings.start_directory = self.start_directory;
        settings.program = self.program;
        settings.has_application = self.has_application;
        Ok(settings)
    }
}

impl OriginRecord {
    fn new(origin: &Origin) -> Self {
        match origin {
            Origin::Default => Self::Default,
            Origin::Variable(name) => Self::Variable((*name).to_owned()),
            Origin::File(path, line) => Self::File(path.to_path_buf(), *line),
            Origin::CommandVariable(name) => Self::CommandVariable((*name).to_owned()),
            Origin::CommandLine => Self::CommandLine,
            Origin::Request => Self::Request,
        }
    }

    fn restore(self) -> Origin {
        match self {
            Self::Default => Origin::Default,
            Self::Variable(name) => {
                let mut variables = TABLE.iter().filter_map(|setting| setting.variable.as_ref());
                let known = variables.find(|variable| variable.name == name);
                known.map_or(Origin::Default, |variable| Origin::Variable(variable.name))
            }
            Self::File(file, line) => Origin::File(Arc::new(file), line),
            Self::CommandVariable(name) => {
                let known = COMMAND_VARIABLES.iter().find(|known| **known == name);
                known.map_or(Origin::Default, |name| Origin::CommandVariable(name))
            }
            Self::CommandLine => Origin::CommandLine,
            Self::Request => Origin::Request,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;
    use crate::settings::Sources;

    #[test]
    fn restored_settings_are_equal() {
        let directory = tempfile::tempdir().unwrap();
        let file = "workers = 3\ntimeout = 1.7\nwsgi_app = \"a:b\"\n[class.sync]\nat = 1979-05-27\n\
                    [application]\nx = [1, inf]\n[hooks]\nwhen_ready = [\"true\"]\n";
        std::fs::write(directory.path().join("host.toml"), file).unwrap();
        let args = ["--bind", "unix:/a", "--env", "A=ä", "--user", "4711"];
        let sources = Sources {
            program: OsString::from_vec(b"./h\xff".to_vec()),
            args: args.iter().map(Into::into).collect(),
            environment: BTreeMap::from([
                ("WEB_CONCURRENCY".to_owned(), "2".to_owned()),
                ("GUNICORN_CMD_ARGS".to_owned(), "--backlog 7".to_owned()),
            ]),
            directory: directory.path().to_owned(),
            requests: vec![("threads".to_owned(), "5".to_owned())],
            detected_class: None,
        };
        let (settings, _) = sources.load().unwrap();
        let record = serde_json::to_vec(&SettingsRecord::new(&settings)).unwrap();
        let record: SettingsRecord = serde_json::from_slice(&record).unwrap();
        let expected = Settings { arguments: Vec::new(), ..(*settings).clone() };
        assert_eq!(record.restore().unwrap(), expected);
    }

    #[test]
    fn a_record_of_another_table_is_refused() {
        let sources = Sources { directory: "/".into(), ..Sources::default() };
        let (settings, _) = sources.load().unwrap();
        let mut record = SettingsRecord::new(&settings);
        record.values.pop();
        assert!(record.restore().is_err());
    }
}
