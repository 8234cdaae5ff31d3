//! Lines on their way to the host: its three functions, or a file of our own.
//!
//! `warn` becomes an error that users see, so only faults of the current call go there; `panic` may end the process and gets
//! nothing a caller can recover from; everything else goes to `log`. Lines are delivered on the thread that says them, with
//! no lock held.

use std::cell::Cell;
use std::ffi::c_char;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::abi::log_file::LogFile;
use crate::abi::types::LogFunc;
use crate::abi::va_list::Slots;
use crate::abi::va_list::VaList;
use crate::config::Config;
use crate::logging::Level;
use crate::logging::Sink;

/// Bytes of a message with its newline and terminator: clients format into buffers of 1024.
const MESSAGE: usize = 1000;

/// What stands for the part that did not fit. The end of a line names the cause, so the middle goes.
const ELLIPSIS: &str = " ... ";

/// A host's message function that logs through us again, and so on, is cut off here.
const DEEPEST: u32 = 3;

/// How long the last Exit waits for other threads to come back out of the host's message functions.
const PATIENCE: Duration = Duration::from_secs(2);

thread_local! {
    /// Host message functions that this thread is inside of. A plain cell: `atexit` handlers come here.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// The host's three message functions, any of which may be missing.
#[derive(Clone, Copy)]
pub struct HostFunctions {
    /// For everything.
    pub log: LogFunc,
    /// For faults of the current call.
    pub warn: LogFunc,
    /// For the end.
    pub panic: LogFunc,
}

/// Lines go to the host's functions, or to a file when it gave none.
pub struct HostSink {
    log: Function,
    warn: Function,
    panic: Function,
    threshold: AtomicU8,
    file: LogFile,
    closed: AtomicBool,
    /// Threads inside a host function.
    delivering: AtomicUsize,
}

impl HostSink {
    /// A sink for these functions.
    pub fn new(functions: HostFunctions, config: &Config) -> Self {
        let sink = Self {
            log: Function::default(),
            warn: Function::default(),
            panic: Function::default(),
            threshold: AtomicU8::new(0),
            file: LogFile::new(config),
            closed: AtomicBool::new(false),
            delivering: AtomicUsize::new(0),
        };
        sink.update(functions, config);
        sink
    }

    /// Takes over the functions that are there, and the threshold.
    pub fn update(&self, functions: HostFunctions, config: &Config) {
        self.log.replace(functions.log);
        self.warn.replace(functions.warn);
        self.panic.replace(functions.panic);
        self.threshold.store(rank(least_important(config)), Ordering::Relaxed);
    }

    /// Says nothing more, and returns when no other thread is inside a host function.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let own = INSIDE.get() as usize;
        let begin = std::time::Instant::now();
        while self.delivering.load(Ordering::SeqCst) > own && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn function(&self, level: Level) -> Option<unsafe extern "C" fn(*const c_char, *mut VaList)> {
        match level {
            Level::Panic => self.panic.get().or_else(|| self.log.get()),
            Level::Error => self.warn.get().or_else(|| self.log.get()),
            _ => self.log.get(),
        }
    }
}

impl Sink for HostSink {
    fn line(&self, level: Level, text: &str) {
        let depth = INSIDE.get();
        if depth >= DEEPEST {
            return;
        }
        self.delivering.fetch_add(1, Ordering::SeqCst);
        if !self.closed.load(Ordering::SeqCst) {
            match self.function(level) {
                Some(function) => {
                    let message = Message::new(text);
                    let mut slots = Slots::new();
                    let mut list = VaList::empty(&mut slots);
                    INSIDE.set(depth + 1);
                    // SAFETY: the host promised a function of this type for as long as the library is initialised, the
                    // format is terminated and fetches no argument, and the record is one the callee may consume.
                    unsafe { function(message.as_ptr(), &raw mut list) };
                    INSIDE.set(depth);
                }
                None => self.file.line(level, text),
            }
        }
        self.delivering.fetch_sub(1, Ordering::SeqCst);
    }

    fn wants(&self, level: Level) -> bool {
        rank(level) <= self.threshold.load(Ordering::Relaxed)
    }
}

/// The configuration's levels are panic, error, warning, audit, info, verbose, trivia.
fn least_important(config: &Config) -> Level {
    match config.transport_log_level() {
        0 => Level::Panic,
        1 => Level::Error,
        2 => Level::Warning,
        3 | 4 => Level::Info,
        _ => Level::Debug,
    }
}

fn rank(level: Level) -> u8 {
    match level {
        Level::Panic => 0,
        Level::Error => 1,
        Level::Warning => 2,
        Level::Info => 3,
        Level::Debug => 4,
    }
}

/// A host function that can be exchanged while others call it.
#[derive(Default)]
struct Function(AtomicUsize);

impl Function {
    fn replace(&self, function: LogFunc) {
        if let Some(function) = function {
            self.0.store(function as usize, Ordering::Release);
        }
    }

    fn get(&self) -> Option<unsafe extern "C" fn(*const c_char, *mut VaList)> {
        let address = self.0.load(Ordering::Acquire);
        // SAFETY: zero is `None`; anything else was stored from a function of exactly this type.
        unsafe { std::mem::transmute::<usize, LogFunc>(address) }
    }
}

/// One line as a `printf` format without conversions: `%` doubled, control characters replaced, cut to size, terminated.
struct Message {
    bytes: [u8; MESSAGE],
}

impl Message {
    fn new(text: &str) -> Self {
        const ROOM: usize = MESSAGE - 2; // newline and terminator
        let mut message = Self { bytes: [0; MESSAGE] };
        let mut used = 0;
        if expanded(text) <= ROOM {
            used = message.put(used, ROOM, text.chars());
        } else {
            let half = (ROOM - ELLIPSIS.len()) / 2;
            used = message.put(used, half, text.chars());
            used = message.put(used, ROOM, ELLIPSIS.chars());
            used = message.put(used, ROOM, tail(text, half).chars());
        }
        if let Some(end) = message.bytes.get_mut(used) {
            *end = b'\n';
        }
        message
    }

    /// Appends what fits below `limit`; returns where the next byte goes.
    fn put(&mut self, mut used: usize, limit: usize, chars: impl Iterator<Item = char>) -> usize {
        for c in chars {
            let mut code = [0; 4];
            let bytes = match c {
                '%' => "%%",
                c if c.is_control() => " ",
                c => c.encode_utf8(&mut code),
            };
            let end = used + bytes.len();
            if end > limit {
                break;
            }
            if let Some(room) = self.bytes.get_mut(used..end) {
                room.copy_from_slice(bytes.as_bytes());
            }
            used = end;
        }
        used
    }

    fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }
}

fn expanded(text: &str) -> usize {
    text.len() + text.bytes().filter(|&b| b == b'%').count()
}

/// The longest end of `text` that takes at most `room` bytes as a format.
fn tail(text: &str, room: usize) -> &str {
    let mut start = text.len();
    let mut taken = 0;
    for (at, c) in text.char_indices().rev() {
        taken += if c == '%' { 2 } else { c.len_utf8() };
        if taken > room {
            break;
        }
        start = at;
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn formatted(text: &str) -> String {
        let message = Message::new(text);
        CStr::from_bytes_until_nul(&message.bytes).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn percent_signs_are_doubled_and_control_characters_replaced() {
        assert_eq!(formatted("100 % of %n\r\nforged"), "100 %% of %%n  forged\n");
    }

    #[test]
    fn a_long_line_keeps_its_beginning_and_its_end() {
        for filler in ["%", "ü", "x", "\u{1F600}"] {
            let line = formatted(&format!("VixDiskLib: {}: no space left", filler.repeat(4000)));
            assert!(line.len() < MESSAGE && line.len() > MESSAGE - 20, "{}", line.len());
            assert!(line.starts_with("VixDiskLib: ") && line.ends_with(": no space left\n"));
            assert!(line.contains(ELLIPSIS));
            assert_eq!(line.matches('%').count() % 2, 0);
        }
    }

    #[test]
    fn a_line_that_just_fits_is_whole() {
        let text = "y".repeat(MESSAGE - 2);
        assert_eq!(formatted(&text), format!("{text}\n"));
    }
}
