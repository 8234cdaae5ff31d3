//! One extent line: `access sectors type "name" offset`.

use crate::error::{Error, ErrorKind, Result};
use crate::format::encoding::Codec;
use crate::units::Sectors;

/// What may be done with an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentAccess {
    /// `RW`.
    ReadWrite,
    /// `RDONLY`: reads are normal, writes fail.
    ReadOnly,
    /// `NOACCESS`: reads fail too.
    NoAccess,
}

/// What an extent's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// A piece of a file or device.
    Flat,
    /// A hosted sparse file.
    Sparse,
    /// Zeros without a file.
    Zero,
    /// A file of ESXi, flat.
    Vmfs,
    /// A sparse file of ESXi (COWD).
    VmfsSparse,
    /// A sparse file of ESXi (SESparse).
    SeSparse,
    /// A pointer to a LUN.
    VmfsRdm,
    /// A device of an ESXi host.
    VmfsRaw,
}

/// An extent as its line describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentLine {
    /// What may be done with it.
    pub access: ExtentAccess,
    /// Its part of the disk, never zero.
    pub sectors: Sectors,
    /// What its data is.
    pub kind: ExtentKind,
    /// Its file, relative to the descriptor's folder. Only zero and inaccessible extents may go without.
    pub name: Option<String>,
    /// Where it starts in that file. `offset + sectors` in bytes fits in 63 bits.
    pub offset: Sectors,
}

impl ExtentLine {
    /// The line without its end, as VMware writes it: FLAT has an offset, nothing else has.
    pub fn to_line(&self) -> String {
        let mut line = format!("{} {} {}", self.access.word(), self.sectors.0, self.kind.word());
        if let Some(name) = &self.name {
            line += &format!(" \"{name}\"");
        }
        if self.kind == ExtentKind::Flat || self.offset.0 != 0 {
            line += &format!(" {}", self.offset.0);
        }
        line
    }

    /// Reads the line behind its access word.
    pub(super) fn parse(access: ExtentAccess, rest: &[u8], codec: Codec) -> Result<ExtentLine> {
        let (sectors, rest) = word(rest);
        let sectors = decimal(sectors)
            .filter(|&n| n > 0)
            .ok_or_else(|| bad(format!("expected a number of sectors, found {:?}", show(sectors))))?;
        let (kind, rest) = word(rest);
        let kind = ExtentKind::from_word(kind)?;
        let (name, rest) = quoted(rest)?;
        let name = name.map(|name| codec.decode(name)).transpose()?.map(|name| name.into_owned());
        let (offset, _ids) = word(rest); // a partition's and a device's id may follow
        let offset = match offset {
            [] => 0,
            text => decimal(text)
                .ok_or_else(|| bad(format!("expected an offset in sectors, found {:?}", show(text))))?,
        };
        let line = ExtentLine { access, sectors: Sectors(sectors), kind, name, offset: Sectors(offset) };
        line.check()?;
        Ok(line)
    }

    fn check(&self) -> Result<()> {
        use ExtentKind::{SeSparse, Sparse, VmfsSparse};
        let needs_name = self.kind != ExtentKind::Zero && self.access != ExtentAccess::NoAccess;
        match self.name.as_deref() {
            None if needs_name => return Err(bad("expected the extent's file name in quotes".into())),
            Some("") => return Err(bad("the extent's file name is empty".into())),
            Some(name) if HOST_ONLY.iter().any(|prefix| starts_with_ignoring_case(name, prefix)) => {
                let message = format!("{name:?} is an object that only its ESXi host can read");
                return Err(Error::new(ErrorKind::UnsupportedFeature, message));
            }
            _ => {}
        }
        if matches!(self.kind, Sparse | VmfsSparse | SeSparse) && self.offset.0 != 0 {
            return Err(bad(format!("a {} extent cannot have an offset", self.kind.word())));
        }
        let end = self.sectors.0.checked_add(self.offset.0);
        match end.and_then(|end| Sectors(end).bytes().ok()) {
            Some(..=MAX_FILE) => Ok(()),
            _ => {
                let (sectors, offset) = (self.sectors.0, self.offset.0);
                Err(bad(format!("{sectors} sectors at {offset} lie beyond what a file can hold")))
            }
        }
    }
}

/// The largest file that operating systems know.
const MAX_FILE: u64 = i64::MAX as u64;

/// Beginnings of names that are not names of files.
const HOST_ONLY: [&str; 3] = ["vsan://", "vvol://", "rfc4122."];

impl ExtentAccess {
    /// The word in the line.
    pub fn word(self) -> &'static str {
        match self {
            ExtentAccess::ReadWrite => "RW",
            ExtentAccess::ReadOnly => "RDONLY",
            ExtentAccess::NoAccess => "NOACCESS",
        }
    }

    pub(super) fn from_word(word: &[u8]) -> Option<ExtentAccess> {
        [ExtentAccess::ReadWrite, ExtentAccess::ReadOnly, ExtentAccess::NoAccess]
            .into_iter()
            .find(|access| word.eq_ignore_ascii_case(access.word().as_bytes()))
    }
}

impl ExtentKind {
    const ALL: [ExtentKind; 8] = [
        ExtentKind::Flat,
        ExtentKind::Sparse,
        ExtentKind::Zero,
        ExtentKind::Vmfs,
        ExtentKind::VmfsSparse,
        ExtentKind::SeSparse,
        ExtentKind::VmfsRdm,
        ExtentKind::VmfsRaw,
    ];

    /// The word in the line.
    pub fn word(self) -> &'static str {
        match self {
            ExtentKind::Flat => "FLAT",
            ExtentKind::Sparse => "SPARSE",
            ExtentKind::Zero => "ZERO",
            ExtentKind::Vmfs => "VMFS",
            ExtentKind::VmfsSparse => "VMFSSPARSE",
            ExtentKind::SeSparse => "SESPARSE",
            ExtentKind::VmfsRdm => "VMFSRDM",
            ExtentKind::VmfsRaw => "VMFSRAW",
        }
    }

    fn from_word(word: &[u8]) -> Result<ExtentKind> {
        if word.is_empty() {
            return Err(bad("expected the extent's type".into()));
        }
        let known =
            ExtentKind::ALL.into_iter().find(|kind| word.eq_ignore_ascii_case(kind.word().as_bytes()));
        known.ok_or_else(|| {
            let message = format!("extents of type {} are not supported", show(word));
            Error::new(ErrorKind::UnsupportedFeature, message)
        })
    }
}

/// The first word of `text` and what follows it.
pub(super) fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    text.split_at(end)
}

/// The text between quotes that `text` begins with, if any, and what follows it.
fn quoted(text: &[u8]) -> Result<(Option<&[u8]>, &[u8])> {
    let Some(inner) = text.trim_ascii_start().strip_prefix(b"\"") else { return Ok((None, text)) };
    let end = inner.iter().position(|&b| b == b'"');
    let end = end.ok_or_else(|| bad(format!("the name {:?} has no closing quote", show(inner))))?;
    let (name, rest) = inner.split_at(end);
    let rest = rest.get(1..).unwrap_or_default();
    match rest.first() {
        Some(b) if !b.is_ascii_whitespace() => {
            Err(bad(format!("the name {:?} is followed by {:?}", show(name), show(rest))))
        }
        _ => Ok((Some(name), rest)),
    }
}

/// A number of decimal digits only.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn starts_with_ignoring_case(name: &str, prefix: &str) -> bool {
    name.as_bytes().get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Foreign bytes for a message: at most 80 of them.
pub(super) fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..80).unwrap_or(bytes)).into_owned()
}

fn bad(message: String) -> Error {
    Error::new(ErrorKind::NotADisk, message)
}
