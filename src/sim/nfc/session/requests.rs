//! The requests of a session, one function each.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::net::nfc::aio::Header;
use crate::net::nfc::aio::Kind;
use crate::net::nfc::blocks;
use crate::net::nfc::blocks::Query;
use crate::net::nfc::broken;
use crate::net::nfc::ddb;
use crate::net::nfc::io;
use crate::net::nfc::io::Direction;
use crate::net::nfc::io::Io;
use crate::net::nfc::open;
use crate::net::nfc::open::OpenFile;
use crate::net::nfc::open::OpenSession;
use crate::net::nfc::open::Opened;
use crate::net::nfc::open::SocketOptions;
use crate::net::nfc::refusal;
use crate::net::nfc::refusal::Refusal;
use crate::sim::fault::Hit;
use crate::sim::nfc::knobs::Settings;
use crate::sim::nfc::queue::Answer;
use crate::sim::nfc::queue::Reserved;
use crate::sim::nfc::session::File;
use crate::sim::nfc::session::Session;
use crate::sim::nfc::session::refusal_of;
use crate::sim::nfc::session::refused;
use crate::sim::nfc::writing::Row;
use crate::units::SECTOR;

/// Ranges that a handle allocated and that are remembered.
const MOST_FRESH: usize = 1 << 16;

/// The socket buffers that the answer tells; the values of the published example.
const OPTIONS: SocketOptions = SocketOptions { send: 256 << 10, receive: 256 << 10, flag: 1 };

fn header(kind: Kind, op: u32, payload: &[u8]) -> Header {
    Header { kind, op, size: payload.len() as u32 } // as it came in a header
}

/// The code for what nobody has seen refused: what the vendor's library shows as an unknown error (`nfc.md` 9). Others have
/// a meaning of their own to clients: 5 is want of memory, which they wait for the end of.
const UNKNOWN: u64 = 1;

/// A refusal of this simulator's own: no real host is known to say it.
fn own(code: u64, text: &str) -> Refusal {
    Refusal { code, text: format!("vixsim: {text}") }
}

impl Session<'_> {
    pub(super) fn open_session(&mut self, op: u32, payload: &[u8], settings: &Settings) -> Result<()> {
        let asked = OpenSession::parse(payload)?;
        let header = header(Kind::OpenSession, op, payload);
        if self.buffer.is_some() {
            return Err(broken("a second OPEN_SESSION"));
        }
        let buffer = if asked.buffer == 0 { open::USUAL_BUFFER } else { asked.buffer };
        if buffer > settings.most_buffer || buffer % SECTOR as u32 != 0 {
            let refusal = own(3, &format!("buffers of {buffer} bytes, at most {}", settings.most_buffer));
            self.refuse(header, &refusal, Hit::default(), settings);
            return Ok(());
        }
        let hit = self.shared.knobs.faults.at("nfc.session", Some(u64::from(op)));
        match refusal_of(&hit) {
            Some(refusal) => self.refuse(header, &refusal, hit, settings),
            None => {
                self.buffer = Some(buffer);
                let mut answer = Vec::new();
                open::answer(Kind::OpenSession, op, payload.len(), 0, &mut answer);
                self.post(op, answer, hit, settings);
            }
        }
        Ok(())
    }

    pub(super) fn socket_options(&mut self, op: u32, payload: &[u8], settings: &Settings) -> Result<()> {
        SocketOptions::parse(payload)?;
        let mut answer = Vec::new();
        OPTIONS.encode(op, &mut answer);
        self.reply("nfc.options", header(Kind::SocketOptions, op, payload), answer, settings);
        Ok(())
    }

    pub(super) fn resource_pool(&mut self, op: u32, payload: &[u8], settings: &Settings) -> Result<()> {
        let mut answer = Vec::new();
        open::resource_pool(0, op, &mut answer);
        self.reply("nfc.pool", header(Kind::ResourcePool, op, payload), answer, settings);
        Ok(())
    }

    pub(super) fn open_file(&mut self, op: u32, payload: &[u8], settings: &Settings) -> Result<()> {
        let request = OpenFile::parse(payload)?;
        let soon = self.soon();
        let path = self.intake.expect(request.path as usize, soon)?; // a few KiB: parse looked
        let path = std::str::from_utf8(path).map(str::to_owned);
        let header = header(Kind::OpenFile, op, payload);
        let hit = self.shared.knobs.faults.at("nfc.open", Some(u64::from(op)));
        let opened = match (refusal_of(&hit), path) {
            (Some(refusal), _) => Err(refusal),
            (None, Err(_)) => Err(own(refusal::NOT_PERMITTED, "the path is no text")),
            (None, Ok(path)) => self.open(&request, &path),
        };
        match opened {
            Err(refusal) => self.refuse(header, &refusal, hit, settings),
            Ok(file) => {
                let volume = &file.volume;
                let sector_size = if settings.no_sector_size { 0 } else { volume.sector_size() };
                let (handle, capacity, geometry) = (file.handle, volume.capacity(), volume.geometry());
                let (file_type, flags) = (request.file_type, request.flags);
                let opened = Opened { status: 0, handle, file_type, flags, capacity, sector_size, geometry };
                let mut answer = Vec::new();
                opened.encode(op, &mut answer);
                self.file = Some(file);
                self.post(op, answer, hit, settings);
            }
        }
        Ok(())
    }

    fn open(&mut self, request: &OpenFile, path: &str) -> Result<File, Refusal> {
        if self.file.is_some() {
            return Err(own(UNKNOWN, "a second file in a session is not known to work"));
        }
        if request.file_type != open::DISK || ![open::READ_ONLY, open::READ_WRITE].contains(&request.flags) {
            return Err(own(UNKNOWN, "this type of file, or these flags, are not known"));
        }
        let write = request.writes();
        if write && !self.grant.right.writes() {
            return Err(Refusal { code: refusal::NOT_PERMITTED, text: String::new() });
        }
        let volume = self.shared.house.open(&self.grant, path, write)?;
        self.shared.log.info(|| {
            format!("vixsim: nfc: {}: {path} of {} opened (write: {write})", self.label, self.grant.machine)
        });
        let handle = self.next;
        self.next += 0x10;
        Ok(File { handle, volume, write, fresh: parking_lot::Mutex::default() })
    }

    pub(super) fn io(&mut self, op: u32, payload: &[u8], settings: &Settings) -> Result<()> {
        let io = Io::parse(payload)?;
        match io.direction {
            Direction::Read => self.read(op, io, settings),
            Direction::Write => self.write(op, &io, settings),
        }
    }

    /// What is wrong with the operation that this is of, whichever way it goes.
    fn check(&self, io: &Io, settings: &Settings) -> Result<&File, Refusal> {
        let Some(file) = self.file.as_ref().filter(|file| file.handle == io.handle) else {
            return Err(own(3, "no such file is open"));
        };
        let end = io.offset.checked_add(u64::from(io.total));
        let sectors = io.offset.is_multiple_of(SECTOR) && u64::from(io.total).is_multiple_of(SECTOR);
        if io.total == 0 || !sectors || end.is_none_or(|end| end > file.volume.capacity()) {
            return Err(own(3, &format!("{} bytes at {} of the disk", io.total, io.offset)));
        }
        if io.total > settings.most_operation {
            return Err(no_memory(io.total));
        }
        if io.direction == Direction::Write && !file.write {
            return Err(Refusal { code: refusal::NOT_PERMITTED, text: String::new() });
        }
        Ok(file)
    }

    /// The check, the rules, and memory for the operation.
    fn begin(&self, point: &str, op: u32, io: &Io, settings: &Settings) -> (Hit, Result<Reserved, Refusal>) {
        let hit = self.shared.knobs.faults.at(point, Some(u64::from(op)));
        let reserved = self.check(io, settings).and_then(|_| match refusal_of(&hit) {
            Some(refusal) => Err(refusal),
            None => Reserved::take(&self.shared.memory, u64::from(io.total), settings.memory)
                .ok_or_else(|| no_memory(io.total)),
        });
        (hit, reserved)
    }

    fn read(&mut self, op: u32, io: Io, settings: &Settings) -> Result<()> {
        if io.at != 0 || io.length != io.total || io.wire != io.total {
            return Err(broken(format!("a request to read whose lengths do not agree: {io:?}")));
        }
        let (hit, reserved) = self.begin("nfc.read", op, &io, settings);
        match (reserved, &self.file, self.buffer) {
            (Ok(memory), Some(file), Some(buffer)) => {
                let answer = Answer::Read { io, volume: Arc::clone(&file.volume), buffer };
                self.post_answer(op, answer, hit, Some(memory), settings);
            }
            (reserved, ..) => self.answer_io(op, &io, reserved.err().as_ref(), hit, None, settings),
        }
        Ok(())
    }

    fn write(&mut self, op: u32, io: &Io, settings: &Settings) -> Result<()> {
        let buffer = self.buffer.unwrap_or(open::USUAL_BUFFER);
        if !self.writes.has(op) {
            let mut row = Row::new(*io, buffer);
            let (hit, reserved) = self.begin("nfc.write", op, io, settings);
            match reserved {
                Ok(memory) => row.memory = Some(memory),
                Err(refusal) => row.refusal = Some(refusal),
            }
            row.hit = hit;
            self.writes.begin(op, row)?;
        }
        self.writes.expect(op, io)?;
        if io.wire > buffer + io::MOST_GROWTH {
            return Err(broken(format!("a fragment of {} bytes in buffers of {buffer}", io.wire)));
        }
        let soon = self.soon();
        self.data.resize(io.wire as usize, 0);
        self.intake.fill(&mut self.data, soon)?;
        if settings.stale_allocation
            && let Some(file) = &self.file
        {
            note_fresh(file, io);
        }
        let volume = self.file.as_ref().map(|file| &*file.volume);
        if let Some(row) = self.writes.data(op, io, &self.data, volume)? {
            self.answer_io(op, &row.first, row.refusal.as_ref(), row.hit, row.memory, settings);
        }
        Ok(())
    }

    /// Says how a read that cannot begin, or a write, went.
    fn answer_io(
        &self,
        op: u32,
        io: &Io,
        refusal: Option<&Refusal>,
        hit: Hit,
        memory: Option<Reserved>,
        settings: &Settings,
    ) {
        let bytes = match refusal {
            None => io.answer(0).encode(op).to_vec(),
            Some(refusal) => {
                self.shared.log.info(|| {
                    format!(
                        "vixsim: nfc: {}: {io:?} refused, code {}: {}",
                        self.label, refusal.code, refusal.text
                    )
                });
                refused(op, refusal, settings.refusals, &io.answer(refusal.code).encode(op))
            }
        };
        self.post_answer(op, Answer::Bytes(bytes), hit, memory, settings);
    }

    pub(super) fn value(&mut self, op: u32, payload: &[u8], settings: &Settings) -> Result<()> {
        let request = ddb::Get::parse(payload)?;
        let soon = self.soon();
        let key = std::str::from_utf8(self.intake.expect(request.key as usize, soon)?).map(str::to_owned);
        let header = header(Kind::DdbGet, op, payload);
        let Some(file) = self.file.as_ref().filter(|file| file.handle == request.handle) else {
            self.refuse(header, &own(3, "no such file is open"), Hit::default(), settings);
            return Ok(());
        };
        let value = key.ok().and_then(|key| file.volume.key(&key)).unwrap_or_default();
        let mut answer = Vec::new();
        ddb::answer(&value, op, &mut answer);
        self.reply("nfc.ddb", header, answer, settings);
        Ok(())
    }

    pub(super) fn blocks(&mut self, op: u32, payload: &[u8], settings: &Settings) -> Result<()> {
        let query = Query::parse(payload)?;
        let header = header(Kind::Blocks, op, payload);
        match self.bitmap(&query) {
            Err(refusal) => self.refuse(header, &refusal, Hit::default(), settings),
            Ok(bitmap) => {
                let mut answer = Vec::new();
                query.answer(&bitmap, op, &mut answer);
                self.reply("nfc.query", header, answer, settings);
            }
        }
        Ok(())
    }

    fn bitmap(&self, query: &Query) -> Result<Vec<u8>, Refusal> {
        let Some(file) = self.file.as_ref().filter(|file| file.handle == query.handle) else {
            return Err(own(3, "no such file is open"));
        };
        let aligned = query.chunk >= SECTOR
            && query.chunk.is_multiple_of(SECTOR)
            && query.start.is_multiple_of(query.chunk);
        let end = query.chunks.checked_mul(query.chunk).and_then(|length| query.start.checked_add(length));
        let end = end.filter(|end| aligned && query.chunks > 0 && *end <= file.volume.capacity());
        let (Some(end), Ok(length)) = (end, blocks::bitmap_length(query.chunks)) else {
            return Err(own(
                3,
                &format!("a map of {} chunks of {} bytes from {} on", query.chunks, query.chunk, query.start),
            ));
        };
        let mut bitmap = vec![0; length];
        let fresh = file.fresh.lock();
        let told = file.volume.allocated(query.start..end, &mut |range| {
            for part in without(range, &fresh) {
                let first = part.start.saturating_sub(query.start) / query.chunk;
                let last = part.end.saturating_sub(query.start).div_ceil(query.chunk).min(query.chunks);
                blocks::mark(&mut bitmap, first..last);
            }
        });
        told.map(|()| bitmap).map_err(|e| own(1, &e.to_string()))
    }

    pub(super) fn close_file(&mut self, op: u32, payload: &[u8], settings: &Settings) -> Result<()> {
        let handle = open::file_to_close(payload)?;
        let header = header(Kind::CloseFile, op, payload);
        let Some(file) = self.file.take_if(|file| file.handle == handle) else {
            self.refuse(header, &own(3, "no such file is open"), Hit::default(), settings);
            return Ok(());
        };
        if file.write
            && let Err(e) = file.volume.flush()
        {
            self.refuse(header, &own(1, &e.to_string()), Hit::default(), settings);
            return Ok(());
        }
        let mut answer = Vec::new();
        open::answer(Kind::CloseFile, op, payload.len(), 0, &mut answer);
        self.reply("nfc.close", header, answer, settings);
        Ok(())
    }
}

/// What a server says that has no memory for an operation; it wants 24 bytes more than the data.
fn no_memory(total: u32) -> Refusal {
    let bytes = u64::from(total) + 24;
    Refusal { code: refusal::NO_MEMORY, text: format!("Failed to allocate the requested {bytes} bytes") }
}

/// Remembers what this fragment is about to allocate.
fn note_fresh(file: &File, io: &Io) {
    let start = io.offset.saturating_add(u64::from(io.at));
    let written = start..start.saturating_add(u64::from(io.length)).min(file.volume.capacity());
    let mut before = Vec::new();
    if written.is_empty() || file.volume.allocated(written.clone(), &mut |range| before.push(range)).is_err()
    {
        return;
    }
    let mut fresh = file.fresh.lock();
    for gap in without(written, &before) {
        let room = fresh.len() < MOST_FRESH;
        match fresh.last_mut() {
            Some(last) if last.end == gap.start => last.end = gap.end,
            _ if room => fresh.push(gap),
            _ => {}
        }
    }
}

/// What is left of a range without others, which may lie in any order.
fn without(range: Range<u64>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = vec![range];
    for other in others {
        left = left
            .into_iter()
            .flat_map(|part| [part.start..part.end.min(other.start), part.start.max(other.end)..part.end])
            .filter(|part| part.start < part.end)
            .collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_out_of_ranges() {
        let parts = |others: &[Range<u64>]| {
            without(10..20, others).iter().map(|part| (part.start, part.end)).collect::<Vec<_>>()
        };
        assert_eq!(parts(&[]), [(10, 20)]);
        assert_eq!(parts(&[15..16, 0..12]), [(12, 15), (16, 20)]);
        assert_eq!(parts(&[19..30, 12..12]), [(10, 12), (12, 19)]);
        assert_eq!(parts(&[0..15, 15..50]), []);
    }
}
