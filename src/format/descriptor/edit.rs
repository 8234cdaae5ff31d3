//! Changes of a descriptor: replace the bytes in question, parse the result, keep it only if nothing else changed.

use std::ops::Range;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentLine;
use crate::format::descriptor::parse;

impl Descriptor {
    /// The text, byte for byte as it was parsed, but for what was set since. Without padding and without NUL.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.text.clone())
    }

    /// Adds or replaces a value of the database. An existing key keeps its place and spelling, another one comes at the
    /// end. Refused: a value with a quote, line end or NUL, for which descriptors have no escape, and text that the
    /// descriptor's encoding lacks. After a refusal nothing has changed.
    pub fn set_ddb(&mut self, key: &str, value: &str) -> Result<()> {
        check_key(key)?;
        check_value(key, value)?;
        let quoted = [b"\"", &*self.codec.encode(value)?, b"\""].concat();
        let edit = match self.entry(key) {
            Some(entry) => (entry.place.clone(), quoted),
            None => self.ddb_line(key, &quoted),
        };
        let changed = self.with(vec![edit]).context(|| format!("setting ddb.{key}"))?;
        if changed.ddb(key) != Some(value) {
            let message =
                format!("ddb.{key} cannot be set to {value:?}: it would read as {:?}", changed.ddb(key));
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        *self = changed;
        Ok(())
    }

    /// Sets the content id, and with it the end of the long content id if there is one.
    pub fn set_cid(&mut self, cid: u32) -> Result<()> {
        let digits = digits(cid);
        let edits = self.cid_places()?.into_iter().map(|place| (place, digits.to_vec())).collect();
        *self = self.with(edits).context(|| "setting the CID")?;
        Ok(())
    }

    /// Where in `bytes`, a descriptor as it is stored, the digits of the content ids stand, with what makes them `new_cid`:
    /// each patch can be written in place. A CID of fewer than 8 digits has no room: `UnsupportedFeature`, rewrite with
    /// [`Descriptor::set_cid`] then.
    pub fn cid_patches(bytes: &[u8], new_cid: u32) -> Result<Vec<(usize, [u8; 8])>> {
        let places = Descriptor::parse(bytes)?.cid_places()?;
        let patch = |place: Range<usize>| {
            if place.len() == 8 {
                return Ok((place.start, digits(new_cid)));
            }
            let message = format!("the CID at byte {} has {} digits instead of 8", place.start, place.len());
            Err(Error::new(ErrorKind::UnsupportedFeature, message))
        };
        places.into_iter().map(patch).collect()
    }

    /// Changes what the link is made of: the extents, to which further ones may be added at the end, and the place of the
    /// parent, which a base disk has not. Lines that stay what they are keep their bytes.
    pub fn set_links(&mut self, extents: &[ExtentLine], hint: Option<&str>) -> Result<()> {
        let places = parse::link_places(&self.text);
        let mut edits = Vec::new();
        for ((place, before), after) in places.extents.iter().zip(&self.extents).zip(extents) {
            if before != after {
                edits.push((place.clone(), self.codec.encode(&after.to_line())?.into_owned()));
            }
        }
        let mut further = Vec::new();
        for extent in extents.iter().skip(self.extents.len()) {
            further.extend_from_slice(self.line_end());
            further.extend_from_slice(&self.codec.encode(&extent.to_line())?);
        }
        if let Some(last) = places.extents.last().filter(|_| !further.is_empty()) {
            edits.push((last.end..last.end, further));
        }
        if let (Some(place), Some(hint)) = (places.hint, hint) {
            edits.push((place, self.codec.encode(hint)?.into_owned()));
        }
        let changed = Descriptor::parse(&self.edited(edits))?;
        if changed.extents != extents || changed.parent_hint.as_deref() != hint {
            let message = "the changed descriptor would not say what it shall say";
            return Err(Error::new(ErrorKind::NameInvalid, message));
        }
        *self = changed;
        Ok(())
    }

    /// Gives the file that tracks changed blocks another name, if there is one.
    pub fn set_change_track_path(&mut self, path: &str) -> Result<()> {
        let Some(tracking) = &self.change_track else { return Ok(()) };
        let value = self.codec.encode(path)?;
        let line = [b"changeTrackPath=\"", &*value, b"\"", self.line_end()].concat();
        let changed = self.with(vec![(tracking.place.clone(), line)])?;
        if changed.change_track_path() != Some(path) {
            let message = format!("{path:?} cannot stand in a descriptor");
            return Err(Error::new(ErrorKind::NameInvalid, message));
        }
        *self = changed;
        Ok(())
    }

    /// Takes the tracking of changed blocks off: the line that names the tracking file goes, version 3 becomes 1. Changing a
    /// disk without this would make the next incremental backup miss the change. True when there was something to do.
    pub fn stop_change_tracking(&mut self) -> Result<bool> {
        let Some(tracking) = &self.change_track else { return Ok(false) };
        let mut edits = vec![(tracking.place.clone(), Vec::new())];
        if self.version.value == 3 {
            edits.push((self.version.place.clone(), b"1".to_vec()));
        }
        *self = self.with(edits).context(|| "removing the change tracking")?;
        Ok(true)
    }

    /// The digits of the CID and the last digits of the long content id.
    fn cid_places(&self) -> Result<Vec<Range<usize>>> {
        let Some(cid) = &self.cid else {
            return Err(Error::new(ErrorKind::NotADisk, "the descriptor has no CID line"));
        };
        let mut places = vec![cid.place.clone()];
        if let Some(long) = self.entry("longContentID")
            && long.value.len() == 32
            && long.value.bytes().all(|b| b.is_ascii_hexdigit())
        {
            // The value may stand without quotes.
            let quote = usize::from(self.text.get(long.place.end.saturating_sub(1)) == Some(&b'"'));
            let end = long.place.end - quote;
            places.push(end - 8..end);
        }
        Ok(places)
    }

    /// A new line of the database and where it belongs.
    fn ddb_line(&self, key: &str, quoted: &[u8]) -> (Range<usize>, Vec<u8>) {
        let line_end = self.line_end();
        let at = self.ddb_end.unwrap_or(self.text.len());
        let mut bytes = Vec::new();
        if at > 0 && self.text.get(at - 1) != Some(&b'\n') {
            bytes.extend_from_slice(line_end);
        }
        if self.ddb_end.is_none() {
            for title in ["", "# The Disk Data Base ", "#DDB", ""] {
                bytes.extend_from_slice(title.as_bytes());
                bytes.extend_from_slice(line_end);
            }
        }
        bytes.extend_from_slice(b"ddb.");
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(b" = ");
        bytes.extend_from_slice(quoted);
        bytes.extend_from_slice(line_end);
        (at..at, bytes)
    }

    /// How lines of this text end: as its first one does.
    fn line_end(&self) -> &'static [u8] {
        let first = self.text.iter().position(|&b| b == b'\n');
        match first.and_then(|at| at.checked_sub(1)).and_then(|at| self.text.get(at)) {
            Some(b'\r') => b"\r\n",
            _ => b"\n",
        }
    }

    /// The descriptor with pieces of its text replaced. Refused when that changes what the link is made of, as it happens
    /// when a new `ddb.encoding` gives names another meaning.
    fn with(&self, edits: Vec<(Range<usize>, Vec<u8>)>) -> Result<Descriptor> {
        let changed = Descriptor::parse(&self.edited(edits))?;
        if changed.extents != self.extents || changed.parent_hint != self.parent_hint {
            let message = "the change would give the names in the descriptor another meaning";
            return Err(Error::new(ErrorKind::Encoding, message));
        }
        Ok(changed)
    }

    /// The text with pieces of it replaced.
    fn edited(&self, mut edits: Vec<(Range<usize>, Vec<u8>)>) -> Vec<u8> {
        edits.sort_by_key(|(place, _)| place.start);
        let mut text = Vec::with_capacity(self.text.len() + 128);
        let mut at = 0;
        for (place, bytes) in edits {
            text.extend_from_slice(self.text.get(at..place.start).unwrap_or_default());
            text.extend_from_slice(&bytes);
            at = place.end;
        }
        text.extend_from_slice(self.text.get(at..).unwrap_or_default());
        text
    }
}

fn digits(cid: u32) -> [u8; 8] {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    std::array::from_fn(|i| HEX[(cid >> (28 - 4 * i) & 15) as usize])
}

fn check_key(key: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_graphic() && b != b'=' && b != b'"';
    if !key.is_empty() && key.bytes().all(good) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, format!("{key:?} cannot be a key of the disk database")))
}

fn check_value(key: &str, value: &str) -> Result<()> {
    match value.chars().find(|c| matches!(c, '"' | '\n' | '\r' | '\0')) {
        None => Ok(()),
        Some(c) => {
            let message = format!("the value of ddb.{key} contains {c:?}, which a descriptor cannot hold");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}
