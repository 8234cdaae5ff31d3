//! Which parts of a disk hold data: one pass over the tables of every link.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::link::Link;
use crate::error::{Context, Result};
use crate::format::Presence;

/// Chains are listed window by window, so that memory stays bounded.
const WINDOW: u64 = 1 << 30;

/// A part of the disk and what it is.
type Part = (Range<u64>, Presence);

impl Link {
    /// Reports every part of `range`; see [`crate::format::Image::scan`].
    pub(super) fn scan(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>, Presence)) -> Result<()> {
        let first = self.pieces().partition_point(|piece| piece.end() <= range.start);
        for piece in self.pieces().iter().skip(first).take_while(|piece| piece.start() < range.end) {
            let base = piece.start();
            let inner = range.start.max(base) - base..range.end.min(piece.end()) - base;
            piece
                .image()
                .scan(inner, &mut |part, presence| sink(part.start + base..part.end + base, presence))
                .context(|| format!("tables of {}", self.label()))?;
        }
        Ok(())
    }
}

impl Disk {
    /// Calls `sink` with the ascending, disjoint parts of `range` (inside the disk) that hold data in some link; everything
    /// else reads as zeros.
    pub fn allocated(&self, range: Range<u64>, sink: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        if self.links.len() == 1 {
            return self.leaf().scan(range, &mut |part, presence| {
                if presence == Presence::Data {
                    sink(part);
                }
            });
        }
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start - start % WINDOW + WINDOW);
            let parts = presence_of(&self.links, start..end)?;
            parts
                .into_iter()
                .filter(|(_, presence)| *presence == Presence::Data)
                .for_each(|(part, _)| sink(part));
            start = end;
        }
        Ok(())
    }
}

/// The parts of `range` as `links` (uppermost first) show them, neighbours merged.
fn presence_of(links: &[Arc<Link>], range: Range<u64>) -> Result<Vec<Part>> {
    let Some((upper, below)) = links.split_first() else { return Ok(vec![(range, Presence::Unallocated)]) };
    let mut own: Vec<Part> = Vec::new();
    upper.scan(range, &mut |part, presence| append(&mut own, part, presence))?;
    let open = |part: &&Part| part.1 == Presence::Unallocated;
    let Some(first) = own.iter().find(open).map(|part| part.0.start) else { return Ok(own) };
    let last = own.iter().rev().find(open).map_or(first, |part| part.0.end);
    Ok(overlay(&own, &presence_of(below, first..last)?))
}

/// `upper` with its unallocated parts filled from `lower`, which covers all of those.
fn overlay(upper: &[Part], lower: &[Part]) -> Vec<Part> {
    let mut result = Vec::new();
    let mut lower = lower.iter().peekable();
    for (part, presence) in upper {
        if *presence != Presence::Unallocated {
            append(&mut result, part.clone(), *presence);
            continue;
        }
        let mut at = part.start;
        while at < part.end {
            match lower.peek() {
                Some((below, _)) if below.end <= at => {
                    lower.next();
                }
                Some((below, presence)) => {
                    let end = below.end.min(part.end);
                    append(&mut result, at..end, *presence);
                    at = end;
                }
                None => {
                    append(&mut result, at..part.end, Presence::Unallocated);
                    at = part.end;
                }
            }
        }
    }
    result
}

/// Adds a part, merged with the one before if they are alike.
fn append(parts: &mut Vec<Part>, part: Range<u64>, presence: Presence) {
    match parts.last_mut() {
        Some((last, same)) if *same == presence && last.end == part.start => last.end = part.end,
        _ => parts.push((part, presence)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Presence::{Data, Unallocated, Zero};

    #[test]
    fn zeros_of_a_child_hide_the_data_of_its_parent() {
        let child = [(0..10, Unallocated), (10..20, Zero), (20..30, Data), (30..50, Unallocated)];
        let parent = [(0..15, Data), (15..35, Unallocated), (35..40, Data), (40..50, Zero)];
        let all = overlay(&child, &parent);
        let want = [
            (0..10, Data),
            (10..20, Zero),
            (20..30, Data),
            (30..35, Unallocated),
            (35..40, Data),
            (40..50, Zero),
        ];
        assert_eq!(all, want);
    }
}
