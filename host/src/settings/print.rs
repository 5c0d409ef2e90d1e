//! `--print-config`: the effective settings as a file that can be read back, with the origin of each.

use super::{
    declare::Setting,
    error::Origin,
    table::{Settings, TABLE},
};

impl Settings {
    /// Returns the settings as TOML; unset ones are comments.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let items = TABLE.iter().zip(&self.values).zip(&self.origins);
        for ((setting, value), origin) in items {
            let line = match setting.kind.write_toml(value) {
                Some(value) => format!("{} = {value}", setting.name),
                None => format!("# {} is unset", setting.name),
            };
            text.push_str(&with_origin(&line, setting, origin));
        }
        let tables = [
            ("class", &self.sections.class),
            ("application", &self.sections.application),
            ("hooks", &self.sections.hooks),
        ];
        for (name, table) in tables {
            if !table.is_empty() {
                let mut document = toml::Table::new();
                document.insert(name.to_owned(), toml::Value::Table(table.clone()));
                text.push('\n');
                text.push_str(&document.to_string());
            }
        }
        text
    }
}

fn with_origin(line: &str, setting: &Setting, origin: &Origin) -> String {
    match origin {
        Origin::Default if setting.default.is_none() => format!("{line}\n"),
        _ => format!("{line}  # {}\n", origin.to_string().replace(char::is_control, "?")),
    }
}
