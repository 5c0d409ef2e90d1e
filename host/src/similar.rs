//! Similarity of two words, for "did you mean".

/// Returns how many letters must be inserted, removed or replaced to turn `a` into `b` (Levenshtein). Only the
/// first letters of `a` count, which may come from anywhere and have any length.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(LETTERS_MAX).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Longer than any name: further letters cannot make a word more similar.
const LETTERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn inserted_removed_and_replaced_letters_are_counted() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("gtread", "gthread", 1),
            ("sink", "sync", 2),
            ("ä", "a", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_word_of_any_length_takes_bounded_work() {
        assert_eq!(distance(&"x".repeat(1 << 20), "sync"), super::LETTERS_MAX);
    }
}
