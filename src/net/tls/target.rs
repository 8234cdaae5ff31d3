//! Where received bytes go.

use std::io::IoSliceMut;

/// Parts of memory that are filled one after the other.
pub struct Target<'a, 'b> {
    parts: &'a mut [IoSliceMut<'b>],
    part: usize,
    at: usize,
    /// Bytes that were put in.
    pub filled: usize,
}

impl<'a, 'b> Target<'a, 'b> {
    /// Nothing is filled.
    pub fn new(parts: &'a mut [IoSliceMut<'b>]) -> Self {
        Self { parts, part: 0, at: 0, filled: 0 }
    }

    /// Copies what there is room for.
    pub fn put(&mut self, mut bytes: &[u8]) -> usize {
        let begin = self.filled;
        while !bytes.is_empty() && self.has_room() {
            let Some(room) = self.parts.get_mut(self.part).and_then(|part| part.get_mut(self.at..)) else {
                break;
            };
            let (now, later) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.at += now.len();
            self.filled += now.len();
            bytes = later;
        }
        self.filled - begin
    }

    /// Goes to the first part with room.
    pub fn has_room(&mut self) -> bool {
        while let Some(part) = self.parts.get(self.part) {
            if self.at < part.len() {
                return true;
            }
            self.part += 1;
            self.at = 0;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_filled_in_order_and_empty_ones_passed_over() {
        let (mut a, mut b, mut c) = ([0; 2], [0; 0], [0; 3]);
        let mut parts = [IoSliceMut::new(&mut b), IoSliceMut::new(&mut a), IoSliceMut::new(&mut c)];
        let mut target = Target::new(&mut parts);
        assert_eq!(target.put(b"x"), 1);
        assert_eq!(target.put(b"yz"), 2);
        assert!(target.has_room());
        assert_eq!(target.put(b"12345"), 2);
        assert!(!target.has_room());
        assert_eq!((target.filled, target.put(b"6")), (5, 0));
        assert_eq!((&a, &c), (b"xy", b"z12"));
        assert!(!Target::new(&mut []).has_room());
    }
}
