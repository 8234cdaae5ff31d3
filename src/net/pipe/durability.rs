//! What the server acknowledged and did not promise to keep: the business of flush, over all connections to an export.

use parking_lot::Mutex;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;

/// Writes that were acknowledged, counted.
#[derive(Debug, Default)]
pub struct Durability {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    acknowledged: u64,
    stable: u64,
    /// Why acknowledged writes may be gone; nobody was told.
    lost: Option<String>,
}

/// The writes that a flush is for.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

impl Durability {
    /// A write was acknowledged without a promise.
    pub fn acknowledged(&self) {
        self.counts.lock().acknowledged += 1;
    }

    /// A connection was lost, and with it, for all one knows, the server and its cache.
    pub fn connection_lost(&self, story: &str) {
        let mut counts = self.counts.lock();
        if counts.acknowledged > counts.stable {
            counts.stable = counts.acknowledged;
            counts.lost.get_or_insert_with(|| story.to_owned());
        }
    }

    /// True when the next flush has a loss to report.
    pub fn is_lost(&self) -> bool {
        self.counts.lock().lost.is_some()
    }

    /// A flush begins.
    pub fn mark(&self) -> Mark {
        Mark(self.counts.lock().acknowledged)
    }

    /// It succeeded for what was acknowledged when it began. A loss is reported once.
    pub fn flushed(&self, mark: Mark) -> Result<()> {
        let mut counts = self.counts.lock();
        counts.stable = counts.stable.max(mark.0);
        counts.lost.take().map_or(Ok(()), |story| Err(lost(&story)))
    }

    /// It failed; a loss is reported with it.
    pub fn failed(&self, error: Error) -> Error {
        match self.counts.lock().lost.take() {
            Some(story) => lost(&story),
            None => error,
        }
    }
}

fn lost(story: &str) -> Error {
    let message = "writes that were acknowledged before the connection was lost may not be on the disk";
    Error::new(ErrorKind::ConnectionLost, story).context(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_after_a_write_is_reported_once() {
        let durability = Durability::default();
        durability.acknowledged();
        durability.connection_lost("cut");
        durability.connection_lost("cut again");
        assert!(durability.flushed(durability.mark()).unwrap_err().to_string().contains("cut"));
        assert!(durability.flushed(durability.mark()).is_ok());
    }

    #[test]
    fn a_loss_after_a_flush_is_none() {
        let durability = Durability::default();
        durability.acknowledged();
        durability.flushed(durability.mark()).unwrap();
        durability.connection_lost("cut");
        assert!(durability.flushed(durability.mark()).is_ok());
    }

    #[test]
    fn a_flush_is_for_what_was_acknowledged_before_it() {
        let durability = Durability::default();
        let mark = durability.mark();
        durability.acknowledged();
        durability.flushed(mark).unwrap();
        durability.connection_lost("cut");
        assert!(durability.is_lost());
    }
}
