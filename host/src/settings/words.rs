//! Splits `JIMU_CMD_ARGS` into words by the shell's quoting rules (POSIX 2.2), without expansion.

/// Returns the words of `text`; `None` if a quote is not closed or a backslash is last.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match c {
            '\'' => loop {
                match chars.next()? {
                    '\'' => break,
                    quoted => word.push(quoted),
                }
            },
            '"' => loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => match chars.next()? {
                        escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                        other => word.extend(['\\', other]),
                    },
                    quoted => word.push(quoted),
                }
            },
            '\\' => word.push(chars.next()?),
            plain => word.push(plain),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_split_as_in_a_shell() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("", Some(&[])),
            ("  -w 4\t-b '[::1]:0' ", Some(&["-w", "4", "-b", "[::1]:0"])),
            (r#"a"b c"'d e'f"#, Some(&["ab cd ef"])),
            (r#""" '' "#, Some(&["", ""])),
            (r#""a\"b\c" \"x\ y"#, Some(&[r#"a"b\c"#, "\"x y"])),
            ("'a", None),
            ("\"a", None),
            ("a\\", None),
        ];
        for (text, words) in cases {
            let words = words.map(|words| words.iter().map(ToString::to_string).collect());
            assert_eq!(split(text), words, "{text:?}");
        }
    }
}
