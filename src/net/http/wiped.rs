//! Bytes among which there may be a secret.

use zeroize::Zeroizing;

/// Bytes that are wiped when dropped, and wherever they lay before there was no more room.
#[derive(Default)]
pub struct Wiped(Zeroizing<Vec<u8>>);

impl Wiped {
    /// Without bytes, and with room for so many.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Adds so many zeros and gives them out to be written over.
    pub fn extend(&mut self, count: usize) -> &mut [u8] {
        self.reserve(count);
        let begin = self.0.len();
        self.0.resize(begin.saturating_add(count), 0);
        self.0.get_mut(begin..).unwrap_or_default()
    }

    /// Forgets what is behind so many bytes.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.0.len().saturating_add(more);
        if needed > self.0.capacity() {
            let mut roomier = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.0.capacity())));
            roomier.extend_from_slice(&self.0);
            self.0 = roomier;
        }
    }
}

/// How many there are.
impl std::fmt::Debug for Wiped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_in_order_while_room_is_made() {
        let mut wiped = Wiped::with_capacity(3);
        wiped.push(b"ab");
        wiped.push(b"cdefg");
        wiped.extend(2).copy_from_slice(b"hi");
        assert_eq!(wiped.bytes(), b"abcdefghi");
        wiped.truncate(1);
        assert_eq!((wiped.bytes(), format!("{wiped:?}").as_str()), (&b"a"[..], "1 bytes"));
    }
}
