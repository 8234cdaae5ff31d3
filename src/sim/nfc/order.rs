//! The order in which fragments are sent.

use crate::sim::nfc::knobs::Order;

/// A fragment of one of several reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which of the reads.
    pub read: usize,
    /// Its place in the read.
    pub at: u32,
    /// Bytes.
    pub length: u32,
}

/// A generator of numbers that look random; the same seed gives the same ones.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `sides`, which is not zero.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// The fragments of reads of so many bytes, none longer than `buffer`, in order.
pub fn plan(totals: &[u32], buffer: u32, order: Order, dice: &mut Dice) -> Vec<Piece> {
    let mut pieces: Vec<Piece> =
        totals.iter().enumerate().flat_map(|(read, total)| fragments(read, *total, buffer)).collect();
    match order {
        Order::Ascending => {}
        Order::Reversed => pieces.sort_by_key(|piece| (piece.read, std::cmp::Reverse(piece.at))),
        Order::Interleaved => pieces.sort_by_key(|piece| (piece.at / buffer.max(1), piece.read)),
        Order::Random => {
            for last in (1..pieces.len()).rev() {
                pieces.swap(last, dice.below(last as u64 + 1) as usize); // at most `last`
            }
        }
    }
    pieces
}

fn fragments(read: usize, total: u32, buffer: u32) -> impl Iterator<Item = Piece> {
    let buffer = buffer.max(1);
    (0..total.div_ceil(buffer)).map(move |i| {
        let at = i * buffer;
        Piece { read, at, length: buffer.min(total - at) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(order: Order) -> Vec<(usize, u32, u32)> {
        let pieces = plan(&[1024, 2560, 512], 1024, order, &mut Dice::new(7));
        pieces.into_iter().map(|p| (p.read, p.at, p.length)).collect()
    }

    #[test]
    fn every_order_has_every_fragment_once() {
        let ascending = [(0, 0, 1024), (1, 0, 1024), (1, 1024, 1024), (1, 2048, 512), (2, 0, 512)];
        assert_eq!(places(Order::Ascending), ascending);
        let reversed = [(0, 0, 1024), (1, 2048, 512), (1, 1024, 1024), (1, 0, 1024), (2, 0, 512)];
        assert_eq!(places(Order::Reversed), reversed);
        let interleaved = [(0, 0, 1024), (1, 0, 1024), (2, 0, 512), (1, 1024, 1024), (1, 2048, 512)];
        assert_eq!(places(Order::Interleaved), interleaved);
        let mut random = places(Order::Random);
        assert_ne!(random, ascending);
        random.sort_unstable();
        assert_eq!(random, ascending);
    }

    #[test]
    fn the_longest_read_of_all_has_an_end() {
        let pieces = plan(&[u32::MAX], 1 << 31, Order::Ascending, &mut Dice::new(0));
        assert_eq!(pieces.iter().map(|p| u64::from(p.length)).sum::<u64>(), u64::from(u32::MAX));
    }
}
