//! Width and precision of a value in a line, as Python's `%` formatting has them: `%(s)5s`, `%(D)-10d`, `%(a).20s`.

/// Width, precision and alignment of a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Layout {
    left: bool,
    zero: bool,
    /// Prefix of a number that is not negative.
    sign: Option<u8>,
    width: usize,
    precision: Option<usize>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Text,
    Whole,
    Float,
}

impl Layout {
    /// Parses what follows the name of an atom, up to its letter; returns `None` if it is not a format. The
    /// layout is `None` if the letter stands alone and the value is written unchanged.
    pub(super) fn parse(text: &str) -> Option<(Option<Self>, &str)> {
        let mut layout = Self::default();
        let rest = text.trim_start_matches(['#', '0', '-', ' ', '+']);
        for flag in text[..text.len() - rest.len()].bytes() {
            match flag {
                b'-' => layout.left = true,
                b'0' => layout.zero = true,
                b'+' => layout.sign = Some(b'+'),
                b' ' => layout.sign = layout.sign.or(Some(b' ')),
                _ => {}
            }
        }
        let (width, rest) = number(rest)?;
        layout.width = width;
        let rest = match rest.strip_prefix('.') {
            Some(rest) => {
                let (precision, rest) = number(rest)?;
                layout.precision = Some(precision);
                rest
            }
            None => rest,
        };
        let letter = rest.bytes().next()?;
        layout.kind = match letter {
            b's' | b'r' | b'a' => Kind::Text,
            b'd' | b'i' | b'u' => Kind::Whole,
            b'f' | b'F' => Kind::Float,
            _ => return None,
        };
        let plain = Self { kind: layout.kind, ..Self::default() };
        let as_it_is = layout == plain && layout.kind != Kind::Float;
        Some(((!as_it_is).then_some(layout), &rest[1..]))
    }

    /// Lays out the part of `line` from `start` on. A value that is not a number, such as `-`, is text
    /// whatever the letter.
    pub(super) fn apply(&self, line: &mut Vec<u8>, start: usize) {
        let value = String::from_utf8_lossy(&line[start..]).into_owned();
        let (sign, mut digits) = match value.strip_prefix('-') {
            Some(digits) => ("-", digits.to_owned()),
            None => ("", value.clone()),
        };
        let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let float = digits.parse::<f64>().ok().filter(|_| digits.starts_with(char::is_numeric));
        let is_number = match (self.kind, float) {
            (Kind::Whole, _) if whole => {
                let least = self.precision.unwrap_or(0);
                digits.insert_str(0, &"0".repeat(least.saturating_sub(digits.len())));
                true
            }
            (Kind::Float, Some(float)) => {
                digits = format!("{float:.*}", self.precision.unwrap_or(6));
                true
            }
            _ => false,
        };
        line.truncate(start);
        if !is_number {
            let shown = match self.precision.filter(|_| self.kind == Kind::Text) {
                Some(precision) => value.chars().take(precision).collect(),
                None => value,
            };
            return self.pad(line, "", &shown, false);
        }
        let positive = self.sign.map_or("", |sign| if sign == b'+' { "+" } else { " " });
        self.pad(line, if sign.is_empty() { positive } else { sign }, &digits, self.zero);
    }

    fn pad(&self, line: &mut Vec<u8>, sign: &str, value: &str, zero: bool) {
        let missing = self.width.saturating_sub(sign.len() + value.chars().count());
        let fill = |line: &mut Vec<u8>, byte| line.resize(line.len() + missing, byte);
        if !self.left && !zero {
            fill(line, b' ');
        }
        line.extend_from_slice(sign.as_bytes());
        if !self.left && zero {
            fill(line, b'0');
        }
        line.extend_from_slice(value.as_bytes());
        if self.left {
            fill(line, b' ');
        }
    }
}

/// Parses leading digits, 0 for none; returns `None` for an excessive number.
fn number(text: &str) -> Option<(usize, &str)> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - rest.len()];
    let number = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    (number <= WIDTH_MAX).then_some((number, rest))
}

/// A wider value is of no use, and each takes memory in each line.
const WIDTH_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The results of CPython 3.11 for `format % {"x": value}`.
    #[test]
    fn values_are_laid_out_as_by_python() {
        for (format, value, expected) in [
            ("5s", "200", "  200"),
            ("-5s|", "200", "200  |"),
            (".2s", "200", "20"),
            ("6.2s", "200", "    20"),
            ("05s", "abc", "  abc"),
            ("d", "123", "123"),
            ("6d", "123", "   123"),
            ("-6d|", "123", "123   |"),
            ("06d", "123", "000123"),
            ("+d", "123", "+123"),
            (" d", "123", " 123"),
            ("+06d", "123", "+00123"),
            ("-06d|", "123", "123   |"),
            (".5d", "123", "00123"),
            ("8.5d", "123", "   00123"),
            ("f", "1", "1.000000"),
            ("8.3f", "1.5", "   1.500"),
            ("08.3f", "1.5", "0001.500"),
            ("08.5d", "123", "00000123"),
            ("010.6d", "123", "0000000123"),
            ("+.1f", "0.25", "+0.2"),
            ("+ d", "7", "+7"),
            (".s", "abc", ""),
            ("5d", "-", "    -"),
            ("f", "-", "-"),
        ] {
            let (layout, rest) = Layout::parse(format).unwrap();
            let mut line = b"<".to_vec();
            line.extend_from_slice(value.as_bytes());
            if let Some(layout) = layout {
                layout.apply(&mut line, 1);
            }
            line.extend_from_slice(rest.as_bytes());
            assert_eq!(String::from_utf8(line).unwrap(), format!("<{expected}"), "{format}");
        }
        for format in ["", "5", "x", "-", "5.s5", "99999s", "*d"] {
            let parsed = Layout::parse(format).map(|(layout, _)| layout);
            assert!(format == "5.s5" || parsed.is_none(), "{format}: {parsed:?}");
        }
    }
}
