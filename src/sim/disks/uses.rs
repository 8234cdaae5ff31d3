//! Which files NFC connections have open: a host refuses to change what somebody reads.

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

/// The files in use.
#[derive(Debug, Default)]
pub struct Uses(Mutex<HashMap<PathBuf, Count>>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    readers: usize,
    writers: usize,
}

/// A use that lasts until this is dropped.
#[derive(Debug)]
pub struct Use {
    uses: Arc<Uses>,
    chain: Vec<PathBuf>,
    writes: bool,
}

impl Uses {
    /// Begins to use the files of a chain, leaf first, of which only the leaf is written to. `None`: somebody writes to the
    /// leaf already, and so would this one.
    pub fn begin(self: &Arc<Self>, chain: Vec<PathBuf>, writes: bool) -> Option<Use> {
        let mut counts = self.0.lock();
        if writes && chain.first().and_then(|leaf| counts.get(leaf)).is_some_and(|count| count.writers > 0) {
            return None;
        }
        for (i, file) in chain.iter().enumerate() {
            let count = counts.entry(file.clone()).or_default();
            match writes && i == 0 {
                true => count.writers += 1,
                false => count.readers += 1,
            }
        }
        Some(Use { uses: self.clone(), chain, writes })
    }

    /// True while somebody has the file open.
    pub fn is_used(&self, file: &Path) -> bool {
        self.0.lock().contains_key(file)
    }

    /// True while somebody has the file open for writing.
    pub fn is_written(&self, file: &Path) -> bool {
        self.0.lock().get(file).is_some_and(|count| count.writers > 0)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut counts = self.uses.0.lock();
        for (i, file) in self.chain.iter().enumerate() {
            let Some(count) = counts.get_mut(file) else { continue };
            match self.writes && i == 0 {
                true => count.writers = count.writers.saturating_sub(1),
                false => count.readers = count.readers.saturating_sub(1),
            }
            if count.readers + count.writers == 0 {
                counts.remove(file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_end_with_their_last_user() {
        let uses = Arc::new(Uses::default());
        let chain = || vec![PathBuf::from("/leaf"), PathBuf::from("/base")];
        let writer = uses.begin(chain(), true).unwrap();
        let reader = uses.begin(chain(), false).unwrap();
        assert!(uses.begin(chain(), true).is_none());
        assert!(uses.is_written(Path::new("/leaf")) && !uses.is_written(Path::new("/base")));
        drop(writer);
        assert!(uses.is_used(Path::new("/leaf")) && !uses.is_written(Path::new("/leaf")));
        drop(reader);
        assert!(!uses.is_used(Path::new("/leaf")) && !uses.is_used(Path::new("/base")));
    }
}
