//! From bytes to a [`Descriptor`], in one pass per question, in time linear in the text.
//!
//! Refused: no version, a version above 3, an encrypted disk, a header line whose value cannot be what it claims, the same
//! header key twice, any extent line that is not understood whole (dropping one would shift everything behind it).
//! Kept without a word: comments, unknown keys, lines that are nothing at all.

use std::ops::Range;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::descriptor::DdbEntry;
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentAccess;
use crate::format::descriptor::ExtentLine;
use crate::format::descriptor::MAX_LEN;
use crate::format::descriptor::Placed;
use crate::format::descriptor::extent::decimal;
use crate::format::descriptor::extent::show;
use crate::format::descriptor::extent::word;
use crate::format::encoding::Codec;

/// More extents than a disk of 62 TB in pieces of 1 GB has.
const MAX_EXTENTS: usize = 65536;
/// More lines than any database has.
const MAX_DDB_LINES: usize = 4096;

pub(super) fn descriptor(bytes: &[u8]) -> Result<Descriptor> {
    let text = text_of(bytes)?;
    let (version, codec) = version_and_codec(text)?;
    let mut reader = Reader::new(text, codec, version);
    for line in lines(text) {
        reader.line(&line).context(|| format!("line {} of the descriptor", line.number))?;
    }
    reader.finish()
}

pub(super) fn looks_like(head: &[u8]) -> bool {
    for line in lines(until_nul(head)) {
        match classify(&line) {
            Content::Blank | Content::Comment => {}
            Content::Pair { key, .. } if key.eq_ignore_ascii_case(b"version") => return true,
            Content::Pair { key, .. } if key.iter().all(u8::is_ascii_graphic) => {}
            _ => return false,
        }
    }
    false
}

/// Where the lines that give the link its extents and its parent stand in a text: for each extent the line without blanks
/// around it, and the value of the hint without quotes.
pub(super) struct LinkPlaces {
    pub extents: Vec<Range<usize>>,
    pub hint: Option<Range<usize>>,
}

pub(super) fn link_places(text: &[u8]) -> LinkPlaces {
    let mut places = LinkPlaces { extents: Vec::new(), hint: None };
    for line in lines(text) {
        match classify(&line) {
            Content::Extent { .. } => places.extents.push(line.start..line.start + line.content.len()),
            Content::Pair { key, value } if key.eq_ignore_ascii_case(b"parentFileNameHint") => {
                places.hint = Some(value.inner());
            }
            _ => {}
        }
    }
    places
}

/// A line of the text, cut off before its end.
struct Line<'a> {
    /// Counted from 1.
    number: usize,
    /// Where the line with its end lies in the text.
    whole: Range<usize>,
    /// Where `content` begins in the text.
    start: usize,
    /// The line without blanks around it.
    content: &'a [u8],
}

/// What a line is.
enum Content<'a> {
    Blank,
    Comment,
    Pair { key: &'a [u8], value: Value<'a> },
    Extent { access: ExtentAccess, rest: &'a [u8] },
    Other,
}

/// The value of a `key=value` line.
struct Value<'a> {
    /// Without quotes.
    text: &'a [u8],
    /// Where `text` begins in the descriptor.
    start: usize,
    /// From the first to the last byte of the value, quotes included.
    place: Range<usize>,
    /// False when a quote is not closed, or text follows it.
    well_formed: bool,
}

impl Value<'_> {
    /// Where the text without quotes stands.
    fn inner(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }
}

/// What is collected while the lines go by.
struct Reader<'a> {
    codec: Codec,
    /// Header keys that were there, to refuse a second one.
    seen: Vec<&'static str>,
    /// The line before was the title of the database, or the first blank line behind it.
    after_title: bool,
    /// The database has a line.
    in_ddb: bool,
    found: Descriptor,
    text: &'a [u8],
}

/// Header keys with a meaning. Each may stand in a descriptor once.
const KEYS: [&str; 8] = [
    "version",
    "encoding",
    "CID",
    "parentCID",
    "createType",
    "parentFileNameHint",
    "changeTrackPath",
    "encryptionKeys",
];

impl<'a> Reader<'a> {
    fn new(text: &'a [u8], codec: Codec, version: Placed<u32>) -> Self {
        let found = Descriptor {
            text: Vec::new(),
            codec,
            version,
            cid: None,
            parent_cid: None,
            create_type: None,
            parent_hint: None,
            change_track: None,
            extents: Vec::new(),
            ddb: Vec::new(),
            ddb_end: None,
        };
        Self { codec, seen: Vec::new(), after_title: false, in_ddb: false, found, text }
    }

    fn line(&mut self, line: &Line<'_>) -> Result<()> {
        let was_title = std::mem::take(&mut self.after_title);
        match classify(line) {
            Content::Blank if was_title && !self.in_ddb => self.found.ddb_end = Some(line.whole.end),
            Content::Comment if !self.in_ddb && line.content.eq_ignore_ascii_case(b"#DDB") => {
                self.after_title = true;
                self.found.ddb_end = Some(line.whole.end);
            }
            Content::Blank | Content::Comment => {}
            Content::Extent { access, rest } => {
                let extent = ExtentLine::parse(access, rest, self.codec)?;
                self.found.extents.push(extent);
                limit(self.found.extents.len(), MAX_EXTENTS, "extents")?;
            }
            Content::Pair { key, value } => match strip_ddb(key) {
                Some(key) => self.ddb_line(key, &value, line.whole.end)?,
                None => self.header_line(key, &value, line)?,
            },
            Content::Other => refuse_unknown_extent(line.content)?,
        }
        Ok(())
    }

    fn ddb_line(&mut self, key: &[u8], value: &Value<'_>, line_end: usize) -> Result<()> {
        self.in_ddb = true;
        self.found.ddb_end = Some(line_end);
        let (key, text) = (self.codec.decode_lossy(key), self.codec.decode_lossy(value.text));
        self.found.ddb.push(DdbEntry { key, value: text, place: value.place.clone() });
        limit(self.found.ddb.len(), MAX_DDB_LINES, "database lines")
    }

    fn header_line(&mut self, key: &[u8], value: &Value<'_>, line: &Line<'_>) -> Result<()> {
        let Some(key) = KEYS.into_iter().find(|known| key.eq_ignore_ascii_case(known.as_bytes())) else {
            return Ok(());
        };
        if self.seen.contains(&key) {
            return Err(bad(format!("{key} is given twice")));
        }
        self.seen.push(key);
        if key == "encryptionKeys" {
            return Err(Error::new(ErrorKind::Encrypted, "the disk is encrypted"));
        }
        if !value.well_formed {
            return Err(bad(format!(
                "the value of {key} is not closed by one quote: {:?}",
                show(value.text)
            )));
        }
        match key {
            "CID" => {
                let number = content_id(key, value.text)?;
                self.found.cid = Some(Placed { value: number, place: value.inner() });
            }
            "parentCID" => {
                let number = content_id(key, value.text)?;
                self.found.parent_cid = (number != NO_PARENT).then_some(number);
            }
            "createType" => self.found.create_type = Some(self.codec.decode_lossy(value.text)),
            "parentFileNameHint" => {
                self.found.parent_hint = Some(self.codec.decode(value.text)?.into_owned());
            }
            "changeTrackPath" => {
                let value = self.codec.decode_lossy(value.text);
                self.found.change_track = Some(Placed { value, place: line.whole.clone() });
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Descriptor> {
        if self.found.extents.is_empty() {
            return Err(bad("the descriptor has no extent line".into()));
        }
        self.found.text = self.text.to_vec();
        Ok(self.found)
    }
}

fn limit(count: usize, most: usize, what: &str) -> Result<()> {
    if count <= most { Ok(()) } else { Err(bad(format!("more than {most} {what}"))) }
}

/// The parent's content id in a link that has no parent.
const NO_PARENT: u32 = 0xffff_ffff;

/// Everything before the first NUL.
fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default()
}

fn text_of(bytes: &[u8]) -> Result<&[u8]> {
    let window = bytes.get(..MAX_LEN + 1).unwrap_or(bytes);
    let text = until_nul(window);
    if text.len() > MAX_LEN {
        return Err(bad(format!("a descriptor has at most {MAX_LEN} bytes, this text has more")));
    }
    Ok(text)
}

/// What decides how all the rest is read: the version and the encoding, wherever they stand.
fn version_and_codec(text: &[u8]) -> Result<(Placed<u32>, Codec)> {
    let (mut version, mut header, mut ddb) = (None, None, None);
    for line in lines(text) {
        let Content::Pair { key, value } = classify(&line) else { continue };
        let slot = match key.to_ascii_lowercase().as_slice() {
            b"version" => &mut version,
            b"encoding" => &mut header,
            b"ddb.encoding" => &mut ddb,
            _ => continue,
        };
        slot.get_or_insert((line.number, value));
    }
    let Some((number, value)) = version else {
        return Err(bad("not a descriptor: there is no version line".into()));
    };
    let place = value.inner();
    let version = match decimal(value.text) {
        Some(n @ 1..=3) => u32::try_from(n).unwrap_or_default(),
        Some(0) | None => {
            return Err(bad(format!("line {number}: expected version 1 to 3, found {:?}", show(value.text))));
        }
        Some(n) => {
            let message = format!("line {number}: descriptor version {n}, at most 3 is known");
            return Err(Error::new(ErrorKind::UnsupportedVersion, message));
        }
    };
    let codec = match header.or(ddb) {
        Some((_, name)) => Codec::named(&String::from_utf8_lossy(name.text)),
        None => Codec::guess(text),
    };
    Ok((Placed { value: version, place }, codec))
}

fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut at = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    text.get(at..).unwrap_or_default().split_inclusive(|&b| b == b'\n').zip(1..).map(move |(line, number)| {
        let whole = at..at + line.len();
        let start = at + (line.len() - line.trim_ascii_start().len());
        at = whole.end;
        Line { number, whole, start, content: line.trim_ascii() }
    })
}

/// Some editors put it in front of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn classify<'a>(line: &Line<'a>) -> Content<'a> {
    let content = line.content;
    match content.first() {
        None => return Content::Blank,
        Some(b'#') => return Content::Comment,
        _ => {}
    }
    let (first, rest) = word(content);
    if let Some(access) = ExtentAccess::from_word(first)
        && !rest.trim_ascii_start().starts_with(b"=")
    {
        return Content::Extent { access, rest };
    }
    let Some(equals) = content.iter().position(|&b| b == b'=') else { return Content::Other };
    let (key, value) = content.split_at(equals);
    let key = key.trim_ascii_end();
    if key.is_empty() || key.contains(&b'"') {
        return Content::Other;
    }
    Content::Pair { key, value: value_of(value.get(1..).unwrap_or_default(), line.start + equals + 1) }
}

/// `text` is what follows the `=`, `start` its place in the descriptor.
fn value_of(text: &[u8], start: usize) -> Value<'_> {
    let trimmed = text.trim_ascii_start();
    let start = start + (text.len() - trimmed.len());
    let place = start..start + trimmed.len();
    let Some(inner) = trimmed.strip_prefix(b"\"") else {
        let well_formed = !trimmed.contains(&b'"');
        return Value { text: trimmed, start, place, well_formed };
    };
    let start = start + 1;
    match inner.strip_suffix(b"\"") {
        Some(text) => Value { text, start, place, well_formed: !text.contains(&b'"') },
        None => Value { text: inner, start, place, well_formed: false },
    }
}

/// The key without `ddb.`, if it is one of the database.
fn strip_ddb(key: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = key.split_at_checked(4)?;
    (prefix.eq_ignore_ascii_case(b"ddb.") && !rest.is_empty()).then_some(rest)
}

fn content_id(key: &str, text: &[u8]) -> Result<u32> {
    let digits = std::str::from_utf8(text).ok().filter(|t| (1..=8).contains(&t.len()));
    let digits = digits.filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()));
    digits
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(|| bad(format!("expected 8 hexadecimal digits for {key}, found {:?}", show(text))))
}

/// `XX 100 FLAT ..` is an extent whose access word is unknown: leaving it out would shift the extents behind it.
fn refuse_unknown_extent(content: &[u8]) -> Result<()> {
    let (access, rest) = word(content);
    let (sectors, rest) = word(rest);
    if decimal(sectors).is_some() && word(rest).0.first().is_some_and(u8::is_ascii_alphabetic) {
        let message = format!("expected RW, RDONLY or NOACCESS before an extent, found {:?}", show(access));
        return Err(Error::new(ErrorKind::UnsupportedFeature, message));
    }
    Ok(())
}

fn bad(message: String) -> Error {
    Error::new(ErrorKind::NotADisk, message)
}
