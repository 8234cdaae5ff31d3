//! Frames of one session: a file that is opened, read, written and closed.
//!
//! The thread of this room reads requests. Writes it carries out at once, reads it hands to the [`sender`]; everything is
//! answered through the queue between the two, when it is due.

mod requests;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::Context;
use crate::error::Result;
use crate::net::nfc::aio;
use crate::net::nfc::aio::Header;
use crate::net::nfc::aio::Kind;
use crate::net::nfc::broken;
use crate::net::nfc::classic;
use crate::net::nfc::classic::Message;
use crate::net::nfc::open;
use crate::net::nfc::refusal::Refusal;
use crate::net::stream::Stream;
use crate::sim::fault::Action;
use crate::sim::fault::Hit;
use crate::sim::nfc::Grant;
use crate::sim::nfc::Volume;
use crate::sim::nfc::door::Entered;
use crate::sim::nfc::intake::Intake;
use crate::sim::nfc::knobs::RefusalForm;
use crate::sim::nfc::knobs::Settings;
use crate::sim::nfc::queue::Answer;
use crate::sim::nfc::queue::Job;
use crate::sim::nfc::queue::Queue;
use crate::sim::nfc::queue::Reserved;
use crate::sim::nfc::sender;
use crate::sim::nfc::server::Shared;
use crate::sim::nfc::writing::Writes;
use crate::threads::Threads;

/// Handles are opaque; these look like the ones that were seen.
const FIRST_HANDLE: u64 = 0x0000_5604_1234_5678;

/// One session.
struct Session<'a> {
    shared: &'a Shared,
    grant: Grant,
    intake: Intake,
    queue: Arc<Queue>,
    label: String,
    /// Largest data of one frame; none: the session has not begun.
    buffer: Option<u32>,
    file: Option<File>,
    /// Handle of the next file.
    next: u64,
    writes: Writes,
    /// Data on their way into a volume.
    data: Vec<u8>,
}

/// The file that is open.
struct File {
    handle: u64,
    volume: Arc<dyn Volume>,
    write: bool,
    /// What this handle allocated by writing: its own maps may not show it, see [`Settings::stale_allocation`].
    fresh: Mutex<Vec<std::ops::Range<u64>>>,
}

/// Serves frames until the client closes the session, leaves, or breaks the protocol.
pub fn run(shared: &Arc<Shared>, threads: &Arc<Threads>, entered: Entered, intake: Intake) -> Result<()> {
    let queue = Arc::new(Queue::default());
    let (theirs, stream, jobs) = (Arc::clone(shared), Arc::clone(&entered.stream), Arc::clone(&queue));
    let grant = entered.grant.clone();
    threads.spawn("vix-sim-send", move || {
        let closed = Closed(&jobs, &*stream);
        sender::run(&theirs, &grant, &*stream, &jobs);
        drop(closed);
    })?;
    let _closed = Closed(&queue, &*entered.stream);
    let mut session = Session {
        shared,
        grant: entered.grant,
        intake,
        label: entered.stream.label(),
        queue: Arc::clone(&queue),
        buffer: None,
        file: None,
        next: FIRST_HANDLE,
        writes: Writes::default(),
        data: Vec::new(),
    };
    session.serve()
}

/// Ends the other thread's waits when one of the two ends, also by a panic.
struct Closed<'a>(&'a Queue, &'a dyn Stream);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.1.shutdown();
    }
}

/// The bytes that refuse an operation whose own answer, with a status, is `answer`.
pub fn refused(op: u32, refusal: &Refusal, form: RefusalForm, answer: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if form != RefusalForm::StatusOnly {
        refusal.encode(op, &mut bytes);
    }
    if form != RefusalForm::Alone {
        bytes.extend_from_slice(answer);
    }
    bytes
}

impl Session<'_> {
    fn serve(&mut self) -> Result<()> {
        loop {
            let idle = Instant::now() + self.shared.knobs.now().idle;
            let Some(head) = self.intake.take(aio::HEADER, idle)? else { return Ok(()) };
            let header = Header::parse(head)?;
            let settings = self.shared.knobs.now(); // they may have changed meanwhile
            let payload = self.intake.expect(header.size as usize, self.soon())?.to_vec(); // at most a few KiB
            let over = self
                .request(header, &payload, &settings)
                .context(|| format!("operation {} ({:?})", header.op, header.kind))?;
            if over {
                return self.farewell();
            }
        }
    }

    /// When the rest of something that has begun has to be there.
    fn soon(&self) -> Instant {
        Instant::now() + self.shared.knobs.now().patience
    }

    /// Carries out a request. True: it closed the session.
    fn request(&mut self, header: Header, payload: &[u8], settings: &Settings) -> Result<bool> {
        let op = header.op;
        if self.buffer.is_none() && header.kind != Kind::OpenSession {
            return Err(broken("frames before OPEN_SESSION"));
        }
        match header.kind {
            Kind::OpenSession => self.open_session(op, payload, settings),
            Kind::SocketOptions => self.socket_options(op, payload, settings),
            Kind::ResourcePool => self.resource_pool(op, payload, settings),
            Kind::OpenFile => self.open_file(op, payload, settings),
            Kind::Io => self.io(op, payload, settings),
            Kind::DdbGet => self.value(op, payload, settings),
            Kind::Blocks => self.blocks(op, payload, settings),
            Kind::CloseFile => self.close_file(op, payload, settings),
            Kind::CloseSession => {
                let mut answer = Vec::new();
                open::answer(Kind::CloseSession, op, payload.len(), 0, &mut answer);
                self.reply("nfc.end", header, answer, settings);
                return Ok(true);
            }
            Kind::Refusal | Kind::Other(_) => {
                let refusal = Refusal { code: 6, text: "vixsim: what this asks for is not known".to_owned() };
                let mut answer = Vec::new();
                open::answer(header.kind, op, payload.len(), refusal.code, &mut answer);
                self.post(op, refused(op, &refusal, settings.refusals, &answer), Hit::default(), settings);
                Ok(())
            }
        }?;
        Ok(false)
    }

    /// After the end of the frames: one message, or none.
    fn farewell(&mut self) -> Result<()> {
        let soon = self.soon();
        let last = self.intake.take(classic::LENGTH, soon);
        self.queue.drain(soon); // a client need not wait for the answer before it says the last word
        let Some(bytes) = last? else { return Ok(()) };
        match Message::parse(bytes)? {
            Message::Complete => Ok(()),
            other => Err(broken(format!("{other:?} after the end of the session"))),
        }
    }

    /// Answers a request that went well, unless a rule says otherwise.
    fn reply(&self, point: &str, header: Header, good: Vec<u8>, settings: &Settings) {
        let hit = self.shared.knobs.faults.at(point, Some(u64::from(header.op)));
        match refusal_of(&hit) {
            Some(refusal) => self.refuse(header, &refusal, hit, settings),
            None => self.post(header.op, good, hit, settings),
        }
    }

    /// Refuses a request, in the form of the settings.
    fn refuse(&self, header: Header, refusal: &Refusal, hit: Hit, settings: &Settings) {
        self.shared.log.info(|| {
            format!(
                "vixsim: nfc: {}: {:?} refused, code {}: {}",
                self.label, header.kind, refusal.code, refusal.text
            )
        });
        let mut answer = Vec::new();
        open::answer(header.kind, header.op, header.size as usize, refusal.code, &mut answer);
        self.post(header.op, refused(header.op, refusal, settings.refusals, &answer), hit, settings);
    }

    fn post(&self, op: u32, bytes: Vec<u8>, hit: Hit, settings: &Settings) {
        self.post_answer(op, Answer::Bytes(bytes), hit, None, settings);
    }

    fn post_answer(&self, op: u32, answer: Answer, hit: Hit, memory: Option<Reserved>, settings: &Settings) {
        let due = Instant::now() + settings.delay + hit.delay;
        let action = hit.action.filter(|action| !matches!(action, Action::Error { .. } | Action::Refuse));
        self.queue.put(due, Job { op, answer, action, memory }); // a closed queue: the connection ends anyway
    }
}

/// The refusal that a rule wants.
fn refusal_of(hit: &Hit) -> Option<Refusal> {
    match hit.action.as_ref()? {
        Action::Error { code, text } => Some(Refusal { code: *code, text: text.clone().unwrap_or_default() }),
        Action::Refuse => Some(Refusal { code: 1, text: "vixsim: refused".to_owned() }),
        _ => None,
    }
}
