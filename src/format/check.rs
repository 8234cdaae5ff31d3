//! What the checks of all formats have in common: how they are asked, how they tell what they find, what they come to.

use crate::logging::Log;

/// How to check the file of an extent.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Mend what can be mended; the storage must be writable.
    pub repair: bool,
    /// The disk has a parent, whose content shows where this file has none.
    pub has_parent: bool,
    /// The size that the descriptor gives this extent, in sectors, if that is known.
    pub sectors: Option<u64>,
    /// Where the report goes.
    pub log: Log,
    /// What to call the file in the report.
    pub name: String,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Faults that were found.
    pub found: u64,
    /// Those of them that are mended.
    pub mended: u64,
}

impl Verdict {
    /// Faults that are still there.
    pub fn left(&self) -> u64 {
        self.found - self.mended
    }

    /// Both together.
    pub fn and(self, other: Verdict) -> Verdict {
        Verdict { found: self.found + other.found, mended: self.mended + other.mended }
    }
}

/// Tells what is found, and counts.
#[derive(Debug)]
pub(in crate::format) struct Report<'a> {
    log: &'a Log,
    name: &'a str,
    /// Faults that repair mends.
    pub curable: u64,
    /// Faults that stay.
    pub incurable: u64,
    lines: u32,
}

/// Lines of one report; what is beyond is only counted.
const LINES: u32 = 2000;
impl<'a> Report<'a> {
    pub fn new(log: &'a Log, name: &'a str) -> Self {
        Self { log, name, curable: 0, incurable: 0, lines: 0 }
    }

    /// A fault, and whether repair mends it.
    pub fn fault(&mut self, curable: bool, text: impl AsRef<str>) {
        if curable {
            self.curable += 1;
        } else {
            self.incurable += 1;
        }
        self.line(text);
    }

    /// The size in the extent's own header, `has`, against the descriptor's: the header may round up to whole grains.
    pub fn size(&mut self, said: Option<u64>, has: u64, grain: u64) {
        if let Some(said) = said
            && has.checked_sub(said).is_none_or(|more| more >= grain)
        {
            self.fault(false, format!("the descriptor says {said} sectors, the header {has}"));
        }
    }

    /// What it all came to, after a repair that mended everything or after none.
    pub fn verdict(&self, mended: bool) -> Verdict {
        let found = self.curable + self.incurable;
        let mended = if mended { found } else { 0 };
        self.note(format!("{found} faults found, {mended} mended"));
        Verdict { found, mended }
    }

    /// Tells why a file that only its host may change is left as it is, if there is something to mend in it.
    pub fn leave(&self, repair: bool, why: &str) -> Verdict {
        if repair && self.curable + self.incurable > 0 {
            self.log.warning(|| format!("{}: nothing is mended: {why}", self.name));
        }
        self.verdict(false)
    }

    fn line(&mut self, text: impl AsRef<str>) {
        self.lines += 1;
        match self.lines {
            0..LINES => self.log.warning(|| format!("{}: {}", self.name, text.as_ref())),
            LINES => self.log.warning(|| format!("{}: more faults are counted, not listed", self.name)),
            _ => {}
        }
    }

    /// Something worth knowing that is no fault.
    pub fn note(&self, text: impl AsRef<str>) {
        self.log.info(|| format!("{}: {}", self.name, text.as_ref()));
    }
}
