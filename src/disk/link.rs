//! One link: its descriptor and its extents.

use std::ffi::OsString;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::Image;
use crate::format::Mapping;
use crate::format::descriptor::Descriptor;
use crate::format::sparse::embedded;
use crate::storage::Folder;
use crate::storage::Identity;
use crate::storage::Storage;

/// One link of a chain.
#[derive(Debug)]
pub struct Link {
    label: String,
    identity: Identity,
    /// Ascending, without gaps.
    pieces: Vec<Piece>,
    capacity: u64,
    /// What the descriptor says, and where its text stands. The lock is held while the text is rewritten: metadata calls
    /// wait for each other, reads and writes of data never take it.
    text: Mutex<Text>,
}

/// A descriptor and where it stands.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) descriptor: Descriptor,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) place: TextPlace,
}

/// Where a descriptor stands.
#[derive(Debug)]
pub(super) enum TextPlace {
    /// A text file of its own.
    File { folder: Arc<dyn Folder>, name: OsString },
    /// Inside a sparse extent.
    Embedded(Range<u64>),
    /// There is no text: what the descriptor says follows from the disk's size, or from what its server says.
    Nowhere {
        /// The disk was written to: its content id is not the one it had.
        changed: bool,
    },
}

/// One extent in its place.
#[derive(Debug)]
pub struct Piece {
    start: u64,
    end: u64,
    image: Box<dyn Image>,
    /// Set once the image was told that writing begins.
    begun: AtomicBool,
    beginning: Mutex<()>,
}

impl Piece {
    /// An extent at `start..end` of its link.
    pub fn new(start: u64, end: u64, image: Box<dyn Image>) -> Self {
        Self { start, end, image, begun: AtomicBool::new(false), beginning: Mutex::new(()) }
    }

    /// The extent's format.
    pub fn image(&self) -> &dyn Image {
        &*self.image
    }

    /// Where it starts in the link.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Where it ends in the link.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// True once it was written to.
    pub fn is_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Tells the image, before its first change, that writing begins.
    pub(super) fn begin(&self) -> Result<()> {
        if self.is_begun() {
            return Ok(());
        }
        let _beginning = self.beginning.lock();
        if !self.is_begun() {
            self.image.begin_writing()?;
            self.begun.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Link {
    /// A link of these extents, which follow each other without gaps.
    pub(super) fn new(label: String, identity: Identity, pieces: Vec<Piece>, text: Text) -> Result<Self> {
        let capacity = pieces.last().map_or(0, |piece| piece.end);
        if capacity == 0 {
            return Err(Error::new(ErrorKind::NotADisk, format!("{label} has no extents")));
        }
        Ok(Self { label, identity, pieces, capacity, text: Mutex::new(text) })
    }

    /// A link of one extent, which may be empty.
    pub(super) fn raw(label: String, identity: Identity, piece: Piece, text: Text) -> Self {
        Self { label, identity, capacity: piece.end, pieces: vec![piece], text: Mutex::new(text) }
    }

    /// The path it was opened by, for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The file it was opened by.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Its extents.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The extent that holds the byte at `offset`, which is below the capacity.
    #[inline]
    pub(super) fn piece(&self, offset: u64) -> &Piece {
        match &self.pieces[..] {
            [only] => only,
            many => {
                let i = many.partition_point(|piece| piece.end <= offset);
                &many[i.min(many.len() - 1)]
            }
        }
    }

    /// What lies at `offset`; see [`Image::map`].
    #[inline]
    pub(super) fn map(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)> {
        let piece = self.piece(offset);
        piece.image.map(offset - piece.start, max.min(piece.end - offset))
    }

    /// A copy of what the descriptor says.
    pub fn descriptor(&self) -> Descriptor {
        self.text.lock().descriptor.clone()
    }

    /// Looks something up in the descriptor.
    pub fn with_descriptor<T>(&self, look: impl FnOnce(&Descriptor) -> T) -> T {
        look(&self.text.lock().descriptor)
    }

    /// The id of the link's content, if it has one that is known.
    pub(super) fn content_id(&self) -> Option<u32> {
        let text = self.text.lock();
        match text.place {
            TextPlace::Nowhere { changed: true } => None,
            _ => text.descriptor.cid(),
        }
    }

    /// Changes the descriptor and makes the change durable. On failure nothing has changed in memory.
    pub fn change_descriptor(&self, change: impl FnOnce(&mut Descriptor) -> Result<()>) -> Result<()> {
        let mut text = self.text.lock();
        let mut changed = text.descriptor.clone();
        change(&mut changed)?;
        text.rewrite(&changed.to_bytes()?).context(|| format!("descriptor of {}", self.label))?;
        text.descriptor = changed;
        Ok(())
    }

    /// Gives the link a new content id, durably.
    pub(super) fn renew_cid(&self) -> Result<()> {
        self.text.lock().renew_cid().context(|| format!("new content id for {}", self.label))
    }
}

impl Text {
    /// Puts `bytes` in the place of the text, in one step.
    pub(super) fn rewrite(&mut self, bytes: &[u8]) -> Result<()> {
        match &self.place {
            TextPlace::File { folder, name } => {
                self.storage = folder.replace(name, bytes)?;
                Ok(())
            }
            TextPlace::Embedded(area) => embedded::replace(&*self.storage, area, bytes),
            TextPlace::Nowhere { .. } => Err(no_text(&*self.storage)),
        }
    }

    /// The bytes that hold the text, and where they start in the storage.
    pub(super) fn raw(&self) -> Result<(Vec<u8>, u64)> {
        let area = match &self.place {
            TextPlace::File { .. } => 0..self.storage.size()?.min(super::open::MAX_DESCRIPTOR),
            TextPlace::Embedded(area) => area.clone(),
            TextPlace::Nowhere { .. } => return Err(no_text(&*self.storage)),
        };
        let mut bytes = vec![0; usize::try_from(area.end - area.start).unwrap_or(0)];
        self.storage.read_at(&mut bytes, area.start)?;
        Ok((bytes, area.start))
    }
}

fn no_text(storage: &dyn Storage) -> Error {
    Error::new(
        ErrorKind::NotSupportedRemote,
        format!("{} is a raw disk: it has no descriptor that something could be written to", storage.label()),
    )
}
