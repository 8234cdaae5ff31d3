//! Passwords and private keys: wiped when dropped, never printed.
#![forbid(unsafe_code)]

use zeroize::Zeroizing;

/// Bytes that are wiped when dropped. There is no `Debug` and no `Display`, so that no derived one can print them; copies
/// are made only by those who call [`Secret::expose`].
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the vector must not have grown while it was filled, or freed copies lie about.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The text, if it is one.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// True when there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let secret = Secret::from("geheim".to_owned());
        assert_eq!(secret.expose(), b"geheim");
        assert_eq!(secret.clone().expose_text(), Some("geheim"));
        assert_eq!(Secret::new(vec![0xff]).expose_text(), None);
        assert!(!secret.is_empty() && Secret::default().is_empty());
    }
}
