//! Masking (RFC 6455 5.3).

/// Applies the mask to `bytes`, eight at a time, and returns the mask for the bytes that follow.
#[inline]
pub(super) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let next = bytes.len() % 4;
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= key;
    }
    let mut mask = mask;
    mask.rotate_left(next);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_gives_the_same_bytes() {
        let mask = [0x11, 0x22, 0x33, 0x44];
        let plain: Vec<u8> = (0..100).collect();
        let expected: Vec<u8> = plain.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
        for split in 0..=plain.len() {
            let mut bytes = plain.clone();
            let (before, after) = bytes.split_at_mut(split);
            let next = apply_mask(before, mask);
            apply_mask(after, next);
            assert_eq!(bytes, expected, "{split}");
        }
    }
}
