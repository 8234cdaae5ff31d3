//! Percent-encoding.

/// Decodes a text once. `None` for what is not UTF-8 afterwards; a percent sign that begins no code stands for itself.
pub fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = (*byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let digits = code.filter(|code| code.iter().all(u8::is_ascii_hexdigit));
        let code = digits.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_decoded_and_the_rest_is_kept() {
        assert_eq!(decode("a%20b%C3%a9%2").as_deref(), Some("a b\u{e9}%2"));
        assert_eq!(decode("%zz%"), Some("%zz%".to_owned()));
        assert_eq!(decode("%ff"), None);
    }
}
