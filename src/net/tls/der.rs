//! The little of DER (X.690) that is read and written here.

use zeroize::Zeroizing;

pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const OBJECT: u8 = 0x06;
pub const SEQUENCE: u8 = 0x30;
/// What is tagged `[0]`.
pub const TAGGED_0: u8 = 0xa0;

/// The contents of the element with this tag at the front, and what follows it.
pub fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, b| length << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

/// An element with the parts as its contents. It is wiped when dropped, for it may be a key.
pub fn wrap(tag: u8, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // Room for all of it, so that the vector does not move and leave copies behind.
    let mut out = Zeroizing::new(Vec::with_capacity(2 + size_of::<usize>() + length));
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let zeros = length.leading_zeros() as usize / 8;
        out.push(0x80 | (size_of::<usize>() - zeros) as u8);
        out.extend(length.to_be_bytes().iter().skip(zeros));
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_is_an_element() {
        for (length, head) in [
            (0, &[SEQUENCE, 0][..]),
            (0x7f, &[SEQUENCE, 0x7f]),
            (0x80, &[SEQUENCE, 0x81, 0x80]),
            (0x100, &[SEQUENCE, 0x82, 1, 0]),
            (0x1_0000, &[SEQUENCE, 0x83, 1, 0, 0]),
        ] {
            let contents = vec![7; length];
            let mut der = wrap(SEQUENCE, &[&contents[..length / 2], &contents[length / 2..]]);
            assert!(der.starts_with(head), "{length}");
            der.extend_from_slice(b"more");
            assert_eq!(element(&der, SEQUENCE), Some((&contents[..], &b"more"[..])));
            assert_eq!(element(&der, INTEGER), None);
            assert_eq!(element(&der[..head.len() + length - 1], SEQUENCE), None);
        }
    }
}
