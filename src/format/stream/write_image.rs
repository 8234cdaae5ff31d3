//! A new stream file as an image that takes data from its beginning to its end.
//!
//! ```text
//!   prepare, write ──▶ intake ──▶ batch being filled ──▶ crew: packed in order ──▶ file
//! ```
//!
//! Grains may come whole or in parts and may be left out, but never go back: only the grain written last can still change.
//! What goes back is refused with `NotSupported`, and nothing is lost by that. Writes of zeros where nothing was written are
//! always right, they leave things as they are. What was written can be read, also before the file is finished.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::Image;
use crate::format::Mapping;
use crate::format::Pending;
use crate::format::bytes::u32_at;
use crate::format::bytes::u64_at;
use crate::format::stream::Stream;
use crate::format::stream::read::MARKER_BYTES;
use crate::format::stream::work::Inflater;
use crate::format::stream::write::GRAIN;
use crate::format::stream::write::GRAIN_BYTES;
use crate::format::stream::write::StreamWriter;
use crate::format::stream::write_crew::Crew;
use crate::format::stream::write_pack::Batch;
use crate::format::stream::write_pack::PackOptions;
use crate::storage::Storage;
use crate::units::Sectors;

/// A stream file that is open for writing.
#[derive(Debug)]
pub struct StreamSink {
    intake: Intake,
    capacity: u64,
}

/// The door for data: offsets are those of the disk.
#[derive(Debug)]
struct Intake {
    name: String,
    /// Held while grains are handed over and written out: a stream has one end, so its writers wait for each other anyway.
    work: Mutex<Work>,
}

#[derive(Debug)]
struct Work {
    writer: StreamWriter,
    crew: Crew,
    batch: Batch,
    /// The grain written last, which stands in `batch` and can still change.
    last: Option<u64>,
    /// A batch to use again.
    spare: Option<Batch>,
    begun: bool,
    /// Why nothing more can be written.
    failed: Option<String>,
}

const GRAIN_SIZE: u64 = GRAIN_BYTES as u64;

impl StreamSink {
    /// Opens a file that was just made for writing; one that holds data is refused. Changes nothing yet.
    pub fn open(
        storage: Arc<dyn Storage>,
        stream: &Stream,
        options: PackOptions,
        name: &str,
    ) -> Result<Self> {
        let writer = StreamWriter::open(storage, stream.header()).context(|| name.to_owned())?;
        Self::of(writer, options, name)
    }

    /// A sink for a file whose beginning is of no interest.
    pub fn new(
        storage: Arc<dyn Storage>,
        capacity: Sectors,
        options: PackOptions,
        name: &str,
    ) -> Result<Self> {
        Self::of(StreamWriter::new(storage, capacity)?, options, name)
    }

    fn of(writer: StreamWriter, options: PackOptions, name: &str) -> Result<Self> {
        let capacity = writer.capacity().bytes()?;
        let crew = Crew::new(options)?;
        let (batch, spare) = (Batch::default(), None);
        let work = Work { writer, crew, batch, last: None, spare, begun: false, failed: None };
        Ok(Self { intake: Intake { name: name.to_owned(), work: Mutex::new(work) }, capacity })
    }
}

impl Image for StreamSink {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn map(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)> {
        let mut work = self.intake.work.lock();
        let grain = offset / GRAIN_SIZE;
        let rest = self.capacity.checked_sub(offset).filter(|rest| *rest > 0).ok_or_else(|| {
            let message = format!("{offset:#x} lies outside the disk of {} bytes", self.capacity);
            Error::new(ErrorKind::OutOfRange, message)
        })?;
        if work.last.is_none_or(|last| grain > last) {
            return Ok((Mapping::Unallocated, max.min(rest)));
        }
        let mapping = match work.holds(grain).context(|| self.intake.name.clone())? {
            true => Mapping::Data { storage: &self.intake, offset },
            false => Mapping::Unallocated,
        };
        Ok((mapping, max.min(GRAIN_SIZE - offset % GRAIN_SIZE).min(rest)))
    }

    fn begin_writing(&self) -> Result<()> {
        let mut work = self.intake.work.lock();
        if !work.begun {
            work.writer.begin().context(|| self.intake.name.clone())?;
            work.begun = true;
        }
        Ok(())
    }

    fn prepare(&self, offset: u64, len: u64) -> Result<Option<Pending<'_>>> {
        let work = self.intake.work.lock();
        let first = offset / GRAIN_SIZE;
        work.check()?;
        if let Some(last) = work.last
            && first < last
        {
            return Err(going_back(offset, last)).context(|| self.intake.name.clone());
        }
        let end = offset + len.min(self.capacity.saturating_sub(offset));
        let grains = first * GRAIN_SIZE..end.next_multiple_of(GRAIN_SIZE);
        let (storage, offset) = (&self.intake, grains.start);
        Ok(Some(Pending { grains, storage, offset, zeroed: true, ticket: 0 }))
    }

    fn commit(&self, _pending: Pending<'_>, _deferred: bool) -> Result<()> {
        Ok(()) // the intake has the data
    }

    fn flush(&self) -> Result<()> {
        self.intake.flush()
    }

    fn finish(&self) -> Result<()> {
        let mut work = self.intake.work.lock();
        if !work.begun {
            return Ok(());
        }
        let result = work.check().and_then(|()| {
            work.hand_over()?;
            work.drain()?;
            work.writer.finish()
        });
        work.crew.stop();
        work.note(result).context(|| format!("finishing {}", self.intake.name))
    }
}

impl Intake {
    /// Cuts a range at grain borders: grain, first byte in it, part of the range.
    fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let here = offset + at as u64;
            let start = (here % GRAIN_SIZE) as usize;
            let part = at..len.min(at + GRAIN_BYTES - start);
            at = part.end;
            (!part.is_empty()).then_some((here / GRAIN_SIZE, start, part))
        })
    }
}

impl Storage for Intake {
    fn size(&self) -> Result<u64> {
        self.work.lock().writer.capacity().bytes()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut work = self.work.lock();
        let mut inflated = Vec::new();
        for (grain, start, part) in Self::parts(offset, buf.len()) {
            let Some(to) = buf.get_mut(part) else { continue };
            work.read(grain, start, to, &mut inflated)
                .context(|| format!("grain {grain} of {}", self.name))?;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut work = self.work.lock();
        work.check()?;
        for (grain, start, part) in Self::parts(offset, buf.len()) {
            let data = buf.get(part).unwrap_or_default();
            if let Some(last) = work.last
                && grain < last
            {
                return Err(going_back(grain * GRAIN_SIZE, last)).context(|| self.name.clone());
            }
            let result = work.write(grain, start, data);
            work.note(result).context(|| self.name.clone())?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let mut work = self.work.lock();
        work.check()?;
        let result = work.drain().and_then(|()| work.writer.storage().flush());
        work.note(result).context(|| self.name.clone())
    }

    fn label(&self) -> String {
        self.name.clone()
    }
}

impl Work {
    fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(cause) => {
                let message =
                    format!("nothing more is written to this stream, it stays incomplete; before: {cause}");
                Err(Error::new(ErrorKind::Io, message))
            }
        }
    }

    /// True when a grain up to the last one has data.
    fn holds(&mut self, grain: u64) -> Result<bool> {
        if self.batch.holds(grain) {
            return Ok(true);
        }
        self.drain()?;
        Ok(self.writer.find(grain)?.is_some())
    }

    /// Takes a part of a grain that is the last one or comes behind it.
    fn write(&mut self, grain: u64, start: usize, data: &[u8]) -> Result<()> {
        if self.last != Some(grain) {
            if self.batch.is_full() {
                self.hand_over()?;
            }
            self.last = Some(grain);
            if data.len() == GRAIN_BYTES {
                self.batch.add_whole(grain, data);
                return Ok(());
            }
            self.batch.add(grain);
        }
        match self.batch.plain(grain).and_then(|plain| plain.get_mut(start..start + data.len())) {
            Some(room) => {
                room.copy_from_slice(data);
                Ok(())
            }
            None => Err(Error::new(ErrorKind::Internal, format!("no room for {} bytes", data.len()))),
        }
    }

    /// Gives the batch to the crew; what comes back goes to the file.
    fn hand_over(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        while self.crew.is_full() {
            self.take_back()?;
        }
        let next = self.spare.take().unwrap_or_default();
        let batch = std::mem::replace(&mut self.batch, next);
        self.crew.give(batch);
        Ok(())
    }

    /// Waits for everything that the crew has.
    fn drain(&mut self) -> Result<()> {
        while self.take_back()? {}
        Ok(())
    }

    /// Writes the oldest batch of the crew to the file. `false`: it has none.
    fn take_back(&mut self) -> Result<bool> {
        let Some(result) = self.crew.take() else { return Ok(false) };
        let mut batch = result?;
        self.writer.append(&batch)?;
        batch.clear();
        self.spare = Some(batch);
        Ok(true)
    }

    /// Reads a part of a grain. `inflated` is room that is used again.
    fn read(&mut self, grain: u64, start: usize, to: &mut [u8], inflated: &mut Vec<u8>) -> Result<()> {
        let end = start + to.len();
        if let Some(plain) = self.batch.plain(grain) {
            to.copy_from_slice(plain.get(start..end).unwrap_or_default());
            return Ok(());
        }
        self.drain()?;
        let Some(at) = self.writer.find(grain)? else {
            to.fill(0);
            return Ok(());
        };
        let storage = self.writer.storage();
        let mut marker = [0; MARKER_BYTES];
        storage.read_at(&mut marker, at)?;
        let (lba, size) = (u64_at(&marker, 0, "marker lba")?, u32_at(&marker, 8, "marker size")?);
        if lba != grain * GRAIN || u64::from(size) > 2 * GRAIN_SIZE {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the marker at {at:#x} is not what was written"),
            ));
        }
        let mut packed = vec![0; size as usize];
        storage.read_at(&mut packed, at + MARKER_BYTES as u64)?;
        inflated.resize(GRAIN_BYTES, 0);
        Inflater::new().inflate(&packed, inflated)?;
        to.copy_from_slice(inflated.get(start..end).unwrap_or_default());
        Ok(())
    }

    /// Remembers a failure: the file has lost its thread.
    fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(e) = &result
            && self.failed.is_none()
        {
            self.failed = Some(e.to_string());
        }
        result
    }
}

/// The refusal of a write that goes back.
fn going_back(offset: u64, last: u64) -> Error {
    let message = format!(
        "byte {offset:#x} comes before byte {:#x}, which was written: a stream-optimised disk takes data in ascending order",
        last * GRAIN_SIZE
    );
    Error::new(ErrorKind::NotSupported, message)
}
