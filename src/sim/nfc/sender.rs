//! The thread of a session that sends: takes jobs that are due and reads volumes into what it sends.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::net::nfc::Compression;
use crate::net::nfc::aio;
use crate::net::nfc::aio::Kind;
use crate::net::nfc::io::Io;
use crate::net::nfc::pack::Packer;
use crate::net::stream::Stream;
use crate::sim::fault::Action;
use crate::sim::nfc::Grant;
use crate::sim::nfc::Refusal;
use crate::sim::nfc::Volume;
use crate::sim::nfc::greeting::say;
use crate::sim::nfc::knobs::Settings;
use crate::sim::nfc::order;
use crate::sim::nfc::order::Dice;
use crate::sim::nfc::queue::Answer;
use crate::sim::nfc::queue::Job;
use crate::sim::nfc::queue::Queue;
use crate::sim::nfc::server::Shared;
use crate::sim::nfc::server::on_purpose;
use crate::sim::nfc::session::refused;

/// Bytes that are gathered before they are sent: many fragments, and still within a core's cache.
const GATHERED: usize = 256 << 10;

/// Sends what is due until the queue is closed or the client is gone.
pub fn run(shared: &Shared, grant: &Grant, stream: &dyn Stream, queue: &Queue) {
    let mut sender = Sender {
        shared,
        grant,
        stream,
        gathered: vec![0; GATHERED].into_boxed_slice(),
        filled: 0,
        aside: None,
        packer: Packer::new(Compression::None),
        scratch: Vec::new(),
        dice: Dice::new(0x9e37_79b9_7f4a_7c15),
        silent: false,
    };
    let mut jobs = Vec::new();
    while queue.take(&mut jobs) {
        if sender.silent {
            jobs.clear();
        } else if let Err(e) = sender.answer(&mut jobs) {
            shared.log.info(|| format!("vixsim: nfc: {}: sending: {e}", stream.label()));
            break;
        }
    }
    queue.close();
    stream.shutdown(); // what the reading thread waits for does not matter any more
}

struct Sender<'a> {
    shared: &'a Shared,
    /// What the client was let in for.
    grant: &'a Grant,
    stream: &'a dyn Stream,
    /// What is sent next, `filled` bytes of it.
    gathered: Box<[u8]>,
    filled: usize,
    /// Where bytes go instead of the client, for answers that are tampered with.
    aside: Option<Vec<u8>>,
    packer: Packer,
    scratch: Vec<u8>,
    dice: Dice,
    /// Nothing more is said.
    silent: bool,
}

/// A read that is being answered.
struct Read {
    op: u32,
    io: Io,
    volume: Arc<dyn Volume>,
    buffer: u32,
    /// Nothing more of it is sent.
    failed: bool,
}

impl Sender<'_> {
    fn answer(&mut self, jobs: &mut Vec<Job>) -> Result<()> {
        let settings = self.shared.knobs.now();
        let mut reads = Vec::new();
        let mut memory = Vec::new();
        for job in jobs.drain(..) {
            if self.silent {
                return Ok(());
            }
            memory.extend(job.memory);
            match (job.answer, job.action) {
                (Answer::Read { io, volume, buffer }, None) => {
                    reads.push(Read { op: job.op, io, volume, buffer, failed: false });
                }
                (answer, action) => {
                    self.reads(&mut reads, &settings)?;
                    self.one(job.op, answer, action.as_ref(), &settings)?;
                }
            }
        }
        self.reads(&mut reads, &settings)?;
        drop(memory); // who has the last byte may ask for more at once
        self.flush()
    }

    /// An answer of its own, tampered with or not.
    fn one(&mut self, op: u32, answer: Answer, action: Option<&Action>, settings: &Settings) -> Result<()> {
        match action {
            Some(Action::Cut) => {
                self.flush()?;
                return Err(on_purpose("cut"));
            }
            Some(Action::Shutdown) => {
                self.shared.maintain();
                return Err(on_purpose("shut down"));
            }
            Some(Action::Move(to)) => {
                self.flush()?; // what came before is not lost
                if self.shared.house.relocate(self.grant, *to) {
                    return Err(on_purpose("cut: the machine moves"));
                }
            }
            Some(Action::Silence) => {
                self.flush()?;
                self.silent = true;
                return Ok(());
            }
            _ => {}
        }
        self.flush()?;
        self.aside = Some(Vec::new());
        match answer {
            Answer::Bytes(bytes) => self.put(&bytes)?,
            Answer::Read { io, volume, buffer } => {
                self.reads(&mut vec![Read { op, io, volume, buffer, failed: false }], settings)?;
            }
        }
        self.flush()?;
        let bytes = self.aside.take().unwrap_or_default();
        self.tampered(bytes, action)
    }

    /// Sends an answer after something was done to it.
    fn tampered(&mut self, mut bytes: Vec<u8>, action: Option<&Action>) -> Result<()> {
        let mut stray = Vec::new();
        match action {
            Some(Action::Magic) => bytes.iter_mut().take(1).for_each(|byte| *byte ^= 0xff),
            Some(Action::Stray) => {
                // A kind of which no more is known than that there is one, for an operation that nobody began.
                aio::frame(&mut stray, Kind::Other(14), u32::MAX - 1, &[0; 16], &[]);
            }
            Some(Action::Short { .. }) => bytes.truncate(bytes.len() / 2),
            _ => {}
        }
        self.put(&stray)?;
        self.put(&bytes)?;
        self.flush()?;
        match action {
            Some(Action::Short { silence: true }) => self.silent = true,
            Some(Action::Short { silence: false }) => {
                return Err(on_purpose("cut in the middle of an answer"));
            }
            _ => {}
        }
        Ok(())
    }

    /// The fragments of all these reads.
    fn reads(&mut self, reads: &mut Vec<Read>, settings: &Settings) -> Result<()> {
        let totals: Vec<u32> = reads.iter().map(|read| read.io.total).collect();
        let buffer = reads.first().map_or(1, |read| read.buffer); // of one session, and so all the same
        for piece in order::plan(&totals, buffer, settings.order, &mut self.dice) {
            if let Some(read) = reads.get_mut(piece.read).filter(|read| !read.failed) {
                self.fragment(read, piece.at, piece.length, settings)?;
            }
        }
        reads.clear();
        Ok(())
    }

    fn fragment(&mut self, read: &mut Read, at: u32, length: u32, settings: &Settings) -> Result<()> {
        let wanted = read.io.compression;
        let raw = wanted == Compression::None || self.dice.below(100) < u64::from(settings.unpacked);
        let done = if raw { self.raw(read, at, length)? } else { self.packed(read, at, length)? };
        if let Err(e) = done {
            read.failed = true;
            let refusal = Refusal { code: 1, text: format!("vixsim: {e}") };
            let mut answer = Vec::new();
            answer.extend_from_slice(&read.io.answer(refusal.code).encode(read.op));
            self.put(&refused(read.op, &refusal, settings.refusals, &answer))?;
        }
        Ok(())
    }

    /// A fragment as it is. The inner error: the volume cannot be read, and nothing of the fragment was sent.
    fn raw(&mut self, read: &Read, at: u32, length: u32) -> Result<Result<()>> {
        let head = read.io.fragment(at, length).encode(read.op);
        if self.gathered.len() - self.filled < head.len() + (length as usize).min(GATHERED / 4) {
            self.flush()?;
        }
        let begin = self.filled;
        self.put(&head)?;
        let mut offset = read.io.offset + u64::from(at); // checked against the volume's end
        let mut left = length as usize;
        while left > 0 {
            if self.filled == self.gathered.len() {
                self.flush()?;
            }
            let room = self.gathered.get_mut(self.filled..).unwrap_or_default();
            let now = left.min(room.len());
            let room = room.get_mut(..now).unwrap_or_default();
            match read.volume.read(room, offset) {
                Err(e) if left == length as usize && begin + head.len() == self.filled => {
                    self.filled = begin;
                    return Ok(Err(e));
                }
                done => done?, // half of a fragment cannot be taken back
            }
            self.filled += now;
            offset += now as u64;
            left -= now;
        }
        Ok(Ok(()))
    }

    /// A fragment packed, or as it is where that is not smaller.
    fn packed(&mut self, read: &Read, at: u32, length: u32) -> Result<Result<()>> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(length as usize, 0);
        if let Err(e) = read.volume.read(&mut scratch, read.io.offset + u64::from(at)) {
            return Ok(Err(e));
        }
        let wanted = read.io.compression;
        if self.packer.compression() != wanted {
            self.packer = Packer::new(wanted);
        }
        let mut packer = std::mem::replace(&mut self.packer, Packer::new(Compression::None));
        let fragment = read.io.fragment(at, length);
        let sent = match packer.pack(&scratch) {
            Some(packed) => {
                let head = fragment.packed(wanted, packed.len() as u32); // shorter than the fragment
                self.put(&head.encode(read.op)).and_then(|()| self.put(packed))
            }
            None => self.put(&fragment.encode(read.op)).and_then(|()| self.put(&scratch)),
        };
        (self.packer, self.scratch) = (packer, scratch);
        sent.map(Ok)
    }

    /// Gathers bytes; what is gathered is sent when there is no more room.
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.filled == self.gathered.len() {
                self.flush()?;
            }
            let room = self.gathered.get_mut(self.filled..).unwrap_or_default();
            let (now, later) = rest.split_at(rest.len().min(room.len()));
            if let Some(room) = room.get_mut(..now.len()) {
                room.copy_from_slice(now);
            }
            self.filled += now.len();
            rest = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = self.gathered.get(..self.filled).unwrap_or_default();
        self.filled = 0;
        match &mut self.aside {
            Some(aside) => {
                aside.extend_from_slice(bytes);
                Ok(())
            }
            None => say(self.stream, bytes, Instant::now() + self.shared.knobs.now().patience),
        }
    }
}
