//! The handwritten part, in `notes.md`: why a target is missed, according to a profile, and what was tried. One
//! heading per scenario that needs it, `### Why: SCENARIO`.

const NOTES: &str = include_str!("../../notes.md");
const HEADING: &str = "### Why: ";

/// Returns the section of the page.
pub(super) fn section() -> String {
    format!("## What profiles show, and what was tried\n\n{}\n\n", NOTES.trim_end())
}

/// Returns the anchor of a scenario's explanation on the page.
pub(super) fn anchor(scenario: &str) -> Option<String> {
    explained().any(|name| name == scenario).then(|| format!("#why-{scenario}"))
}

fn explained() -> impl Iterator<Item = &'static str> {
    NOTES.lines().filter_map(|line| line.strip_prefix(HEADING))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SCENARIOS;

    #[test]
    fn each_heading_names_a_scenario() {
        let headings = NOTES.lines().filter(|line| line.starts_with('#')).count();
        assert_eq!(explained().count(), headings, "headings are {HEADING}SCENARIO");
        for name in explained() {
            assert!(SCENARIOS.iter().any(|scenario| scenario.name == name), "{name}");
        }
    }

    #[test]
    fn what_is_explained_has_a_place() {
        assert_eq!(anchor("memory").as_deref(), Some("#why-memory"));
        assert_eq!(anchor("no such scenario"), None);
    }
}
