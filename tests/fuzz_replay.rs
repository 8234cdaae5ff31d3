//! Every fuzz target over its whole corpus, and over a fixed row of mutations of it, as an ordinary test: no panic, no
//! wrong bytes, bounded time and bounded memory for each input.
//!
//! `FUZZ_REPLAY_SECONDS` bounds the time for mutations of each target (5 by default). With `FUZZ_WRITE_SEEDS=1` the seeds
//! that the image builders make are written into the corpus.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz_bodies;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use fuzz_bodies::TARGETS;
use fuzz_bodies::limits::Counting;
use fuzz_bodies::limits::measured;
use fuzz_bodies::limits::said;

/// No input may take more work than this.
const SLOWEST: Duration = Duration::from_secs(10);

/// An input that takes longer than this hangs: the process ends.
const HANGS: u64 = 180;

/// Mutations of a target, time allowing.
const MUTATIONS: u64 = 20_000;

/// The corpus stays small enough for a source tree.
const MOST_FILES: usize = 400;
const MOST_BYTES: u64 = 1 << 20;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What an input of a target may hold at once, the bodies' own buffers and oracles included. A grain has up to 32 MiB,
/// and several are held while one is inflated or filled.
fn most_memory(target: &str) -> i64 {
    match target {
        "stream" | "chain" => 256 << 20,
        "sparse" => 192 << 20,
        _ => 48 << 20,
    }
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Name and content of the corpus of a target, sorted by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(corpus(target))
        .unwrap_or_else(|e| panic!("the corpus of {target}: {e}"))
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Ends the process when one input takes for ever; a test cannot end a thread.
struct Watchdog {
    /// Seconds since the start when the current input began, 0 when none runs.
    begun: Arc<AtomicU64>,
    start: Instant,
}

impl Watchdog {
    fn new(target: &'static str) -> Self {
        let (begun, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let seen = Arc::downgrade(&begun);
        std::thread::spawn(move || {
            while let Some(begun) = seen.upgrade() {
                let begun = begun.load(Ordering::Relaxed);
                if begun != 0 && start.elapsed().as_secs() + 1 > begun + HANGS {
                    eprintln!("{target}: an input hangs; it is in {}", scratch(target).display());
                    std::process::abort();
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { begun, start }
    }

    fn begin(&self) {
        self.begun.store(self.start.elapsed().as_secs() + 1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.begun.store(0, Ordering::Relaxed);
    }
}

/// Where the input at hand is kept, for the case that it ends the process.
fn scratch(target: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz_replay");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(target)
}

/// Runs one input within its limits; the message when it breaks one.
fn run(target: &'static str, body: fn(&[u8]), data: &[u8], watchdog: &Watchdog) -> Result<(), String> {
    watchdog.begin();
    let (result, cost) = measured(|| std::panic::catch_unwind(AssertUnwindSafe(|| body(data))));
    watchdog.end();
    match result {
        Err(cause) => Err(format!("panics: {}", said(&*cause))),
        Ok(()) if cost.time > SLOWEST => Err(format!("takes {:?}", cost.time)),
        Ok(()) if cost.memory > most_memory(target) => {
            Err(format!("holds {} MiB at once", cost.memory >> 20))
        }
        Ok(()) => Ok(()),
    }
}

fn replay(target: &'static str) {
    let (_, body) = *TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    seeds_are_in_the_corpus(target);
    let corpus = inputs(target);
    let watchdog = Watchdog::new(target);
    let mut broken = Vec::new();
    for (name, data) in &corpus {
        std::fs::write(scratch(target), data).unwrap();
        if let Err(what) = run(target, body, data, &watchdog) {
            broken.push(format!("fuzz/corpus/{target}/{name} {what}"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let (done, start) = (mutations(target, body, &corpus, &watchdog), watchdog.start);
    println!("{target}: {} inputs, {done} mutations, {:?}", corpus.len(), start.elapsed());
}

fn seeds_are_in_the_corpus(target: &str) {
    for (name, data) in fuzz_bodies::seeds::of(target) {
        let path = corpus(target).join(name);
        if std::env::var_os("FUZZ_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(corpus(target)).unwrap();
            std::fs::write(&path, &data).unwrap();
        }
        let found = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            found == data,
            "{} is not what the builder makes: run with FUZZ_WRITE_SEEDS=1",
            path.display()
        );
    }
}

/// Runs the fixed row of mutations, as far as time allows.
fn mutations(
    target: &'static str,
    body: fn(&[u8]),
    corpus: &[(String, Vec<u8>)],
    watchdog: &Watchdog,
) -> u64 {
    let seconds = std::env::var("FUZZ_REPLAY_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    let (mut dice, start) = (Dice(0x9e37_79b9_7f4a_7c15), Instant::now());
    for number in 0..MUTATIONS {
        if start.elapsed() > Duration::from_secs(seconds) {
            return number;
        }
        let mut data = corpus[dice.below(corpus.len())].1.clone();
        let other = &corpus[dice.below(corpus.len())].1;
        for _ in 0..=dice.below(3) {
            mutate(&mut data, other, &mut dice);
        }
        std::fs::write(scratch(target), &data).unwrap();
        if let Err(what) = run(target, body, &data, watchdog) {
            let kept = scratch(&format!("{target}-{number}"));
            std::fs::write(&kept, &data).unwrap();
            panic!("mutation {number} of {target} {what}; the input is in {}", kept.display());
        }
    }
    MUTATIONS
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() >> 11) as usize % end.max(1)
    }
}

/// One change: a bit, a number, a cut, a repetition, a piece of another input.
fn mutate(data: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    const NASTY: [u64; 9] = [0, 1, 8, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, u64::MAX];
    // Headers and tables stand in front: half of the changes go there.
    let reach = if dice.below(2) == 0 { data.len().min(200) } else { data.len() };
    let at = dice.below(reach);
    let room = data.len() - at.min(data.len());
    match dice.below(8) {
        0 if room > 0 => data[at] ^= 1 << dice.below(8),
        1 if room > 0 => data[at] = dice.roll() as u8,
        2 | 3 if room >= 8 => {
            let width = [2, 4, 8][dice.below(3)];
            let value = if dice.below(3) == 0 { dice.roll() >> dice.below(64) } else { NASTY[dice.below(9)] };
            data[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        4 if room >= 4 => {
            let step = dice.below(5) as u32;
            let old = u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
            data[at..at + 4].copy_from_slice(&old.wrapping_add(step).wrapping_sub(2).to_le_bytes());
        }
        5 => data.truncate(at),
        6 => {
            let piece = data[at..at + dice.below(room.min(600))].to_vec();
            data.splice(at..at, piece);
        }
        _ => {
            let from = dice.below(other.len());
            let len = dice.below((other.len() - from).min(600));
            let end = (at + len).min(data.len());
            data.splice(at..end, other[from..from + len].iter().copied());
        }
    }
    data.truncate(1 << 20);
}

/// One input of one target, named by `FUZZ_INPUT=target:path`, for looking at a crash.
#[test]
fn the_named_input_holds() {
    let Some(named) = std::env::var("FUZZ_INPUT").ok() else { return };
    let (target, path) = named.split_once(':').expect("FUZZ_INPUT=target:path");
    let (target, body) = *TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let result = run(target, body, &std::fs::read(path).unwrap(), &Watchdog::new(target));
    assert_eq!(result, Ok(()), "{named}");
}

#[test]
fn descriptor_holds_over_its_corpus() {
    replay("descriptor");
}

#[test]
fn sparse_holds_over_its_corpus() {
    replay("sparse");
}

#[test]
fn stream_holds_over_its_corpus() {
    replay("stream");
}

#[test]
fn cowd_holds_over_its_corpus() {
    replay("cowd");
}

#[test]
fn sesparse_holds_over_its_corpus() {
    replay("sesparse");
}

#[test]
fn chain_holds_over_its_corpus() {
    replay("chain");
}

#[test]
fn nfc_authd_holds_over_its_corpus() {
    replay("nfc_authd");
}

#[test]
fn nfc_frames_holds_over_its_corpus() {
    replay("nfc_frames");
}

#[test]
fn nfc_packed_holds_over_its_corpus() {
    replay("nfc_packed");
}

#[test]
fn abi_calls_holds_over_its_corpus() {
    replay("abi_calls");
}

#[test]
fn nbd_client_holds_over_its_corpus() {
    replay("nbd_client");
}

#[test]
fn nfc_client_holds_over_its_corpus() {
    replay("nfc_client");
}

#[test]
fn soap_holds_over_its_corpus() {
    replay("soap");
}

#[test]
fn http_range_holds_over_its_corpus() {
    replay("http_range");
}

#[test]
fn the_corpus_is_small_and_complete() {
    let folder = corpus("");
    let mut names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    targets.sort_unstable();
    assert_eq!(names, targets, "each target has a corpus and each corpus a target");
    let all: Vec<_> = targets.iter().flat_map(|target| inputs(target)).collect();
    assert!(all.len() <= MOST_FILES, "{} files", all.len());
    let bytes: u64 = all.iter().map(|(_, data)| data.len() as u64).sum();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
}

#[test]
fn the_limits_notice() {
    fn fails(_: &[u8]) {
        panic!("as it should");
    }
    fn hoards(_: &[u8]) {
        std::hint::black_box(vec![1_u8; 49 << 20]);
    }
    fn behaves(_: &[u8]) {
        std::hint::black_box(vec![1_u8; 1 << 20]);
    }
    let watchdog = Watchdog::new("none");
    assert_eq!(run("none", fails, &[], &watchdog), Err("panics: as it should".to_owned()));
    assert_eq!(run("none", hoards, &[], &watchdog), Err("holds 49 MiB at once".to_owned()));
    assert_eq!(run("none", behaves, &[], &watchdog), Ok(()));
}
