//! What the NBD client keeps to, whatever its server is like: how many connections it makes, how long its requests are,
//! what it flags, whose buffer it receives into, and what a flush that succeeds stands for.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use common::model::Rng;
use common::nbd_peer;
use common::nbd_peer::After;
use common::nbd_peer::EVERYTHING;
use common::nbd_peer::ONE_CONNECTION;
use common::nbd_peer::Offer;
use common::nbd_peer::Peer;
use common::nbd_peer::Request;
use common::nbd_peer::STYLES;
use common::nbd_peer::Style;
use common::nbd_peer::Talk;
use common::nbd_peer::verb;
use common::proxy::Fate;
use common::proxy::Proxy;
use common::servers;
use common::servers::Door;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::net::nbd::Export;
use vixDiskLib::net::nbd::client::Client;
use vixDiskLib::net::nbd::client::Dial;
use vixDiskLib::net::nbd::client::Dialler;
use vixDiskLib::net::nbd::client::Options;
use vixDiskLib::net::socket::Address;
use vixDiskLib::net::stream::Patience;
use vixDiskLib::net::stream::Ready;
use vixDiskLib::net::stream::Stream;
use vixDiskLib::threads::Threads;
use vixDiskLib::transfer::Finish;
use vixDiskLib::transfer::Transfer;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const PATIENT: Duration = Duration::from_secs(30);

fn options(connections: u32) -> Options {
    Options { connect: PATIENT, request: PATIENT, reconnect: PATIENT, connections, window: 0, write: true }
}

fn dial(address: Address) -> Dial {
    Dial { address, export: String::new(), tls: None }
}

fn connect(dial: impl Dialler + 'static, options: &Options) -> Arc<Client> {
    Client::connect(dial, options, Log::none(), Arc::new(Threads::new(|body| body()))).unwrap()
}

fn content(len: usize) -> Arc<Mutex<Vec<u8>>> {
    Arc::new(Mutex::new(Rng::new(len as u64).bytes(len)))
}

/// Started transfers and what came of them.
struct Started {
    tell: mpsc::Sender<(usize, Transfer, Result<()>)>,
    told: mpsc::Receiver<(usize, Transfer, Result<()>)>,
    count: usize,
}

impl Started {
    fn new() -> Self {
        let (tell, told) = mpsc::channel();
        Self { tell, told, count: 0 }
    }

    fn start(&mut self, client: &Client, transfer: Transfer, at: usize) {
        let tell = self.tell.clone();
        let finish: Finish =
            Box::new(move |transfer, result| tell.send((at, transfer, result)).expect("the test waits"));
        assert!(client.start(transfer, at as u64, finish).is_none(), "it fits the server's blocks");
        self.count += 1;
    }

    /// Waits for all of them; each must have succeeded.
    fn wait(self) -> Vec<(usize, Transfer)> {
        let succeeded = |(at, transfer, result): (_, _, Result<()>)| {
            result.unwrap();
            (at, transfer)
        };
        self.ends().into_iter().map(succeeded).collect()
    }

    fn ends(self) -> Vec<(usize, Transfer, Result<()>)> {
        (0..self.count).map(|_| self.told.recv_timeout(2 * PATIENT).expect("an end in time")).collect()
    }
}

/// Far more, all at once, than a connection is given before another one is thought of, for each of four.
fn load(client: &Client) {
    let mut started = Started::new();
    for n in 0..256 {
        started.start(client, Transfer::ReadOwned(vec![0; 64 * KIB]), n % 16 * 64 * KIB);
    }
    started.wait();
}

/// Loads until so many connections were made, and then for a while.
fn load_until(client: &Client, count: usize, seen: impl Fn() -> usize) {
    let start = Instant::now();
    while seen() < count {
        assert!(start.elapsed() < PATIENT, "{} connections instead of {count}", seen());
        load(client);
    }
    (0..4).for_each(|_| load(client));
}

#[test]
fn several_connections_are_made_only_where_the_server_allows_it() {
    for style in STYLES {
        for (flags, connections, made) in
            [(EVERYTHING, 4, 4), (EVERYTHING, 2, 2), (EVERYTHING, 1, 1), (ONE_CONNECTION, 4, 1)]
        {
            let content = content(MIB);
            let offer = Offer { flags, ..Offer::new(MIB as u64, style) };
            let peer = Peer::new(offer, move |_, talk| nbd_peer::serve(talk, &content));
            let client = connect(dial(peer.address()), &options(connections));
            load_until(&client, made, || peer.seen());
            assert_eq!(peer.seen(), made, "{style:?}, {flags:#x}, {connections} wanted");
        }
    }
}

/// Threads that wait for what they read share a disk as well as started reads do.
#[test]
fn threads_that_wait_get_several_connections_too() {
    for (flags, made) in [(EVERYTHING, 3), (ONE_CONNECTION, 1)] {
        let content = content(8 * MIB);
        let (offer, served) =
            (Offer { flags, ..Offer::new(8 * MIB as u64, Style::Structured) }, content.clone());
        let peer = Peer::new(offer, move |_, talk| nbd_peer::serve(talk, &served));
        let client = connect(dial(peer.address()), &options(3));
        let start = Instant::now();
        let enough = || peer.seen() >= made && (made > 1 || start.elapsed() > Duration::from_secs(1));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut buf = vec![0; 8 * MIB];
                    while !enough() {
                        assert!(start.elapsed() < PATIENT, "{} connections instead of {made}", peer.seen());
                        client.read(&mut buf, 0).unwrap();
                        assert!(buf == *content.lock().unwrap());
                    }
                });
            }
        });
        assert_eq!(peer.seen(), made, "{flags:#x}");
    }
}

#[test]
fn several_connections_to_nbdkit_are_made_only_where_it_allows_that() {
    requires!("nbdkit");
    for (mode, made) in [("disable", 1), ("plugin", 3)] {
        let mode = format!("multi-conn-mode={mode}");
        let server = servers::nbdkit(Door::TCP, &["--filter=multi-conn"], &["memory", "1M", &mode]);
        let proxy = Proxy::new(server.address(), |_| Fate::default());
        let client = connect(dial(proxy.address()), &options(3));
        load_until(&client, made, || proxy.seen());
        assert_eq!(proxy.seen(), made, "{mode}");
    }
}

/// The lengths of reads and writes, by a peer that checks that they are whole blocks and not too long.
fn lengths_with_blocks(
    style: Style,
    blocks: (u32, u32, u32),
    work: impl FnOnce(&Client, &Mutex<Vec<u8>>),
) -> Vec<u64> {
    const LEN: usize = 4 * MIB;
    let (content, lengths) = (content(LEN), Arc::new(Mutex::new(Vec::new())));
    let (served, seen) = (content.clone(), lengths.clone());
    let offer = Offer { blocks: Some(blocks), ..Offer::new(LEN as u64, style) };
    let peer = Peer::new(offer, move |_, talk| {
        loop {
            let request = talk.request()?;
            if matches!(request.verb, verb::READ | verb::WRITE) {
                seen.lock().unwrap().push(request.length);
            }
            nbd_peer::answer(talk, &request, &served)?;
        }
    });
    // What the peer does not take ends the connection, and with it the test.
    let client = connect(dial(peer.address()), &Options { reconnect: Duration::ZERO, ..options(1) });
    work(&client, &content);
    client.close();
    drop(peer);
    Arc::into_inner(lengths).unwrap().into_inner().unwrap()
}

/// Ranges that begin and end in many ways, each longer than the server's longest request.
const LONG: [Range<usize>; 4] = [0..MIB, MIB + 4096..2 * MIB, 3 * MIB..4 * MIB, 65_536..131_072 + 4096];

#[test]
fn long_calls_are_cut_to_what_the_server_takes() {
    let leaked: &'static [u8] = Rng::new(1).bytes(MIB).leak();
    for style in STYLES {
        let lengths = lengths_with_blocks(style, (4096, 4096, 65_536), |client, content| {
            for range in LONG {
                let new = Rng::new(range.len() as u64).bytes(range.len());
                client.write(&new, range.start as u64).unwrap();
                let mut back = vec![0; new.len()];
                client.read(&mut back, range.start as u64).unwrap();
                assert!(back == new && content.lock().unwrap()[range.clone()] == new, "{style:?}: {range:?}");
                let mut started = Started::new();
                started.start(client, Transfer::Write(&leaked[..range.len()]), range.start);
                started.wait();
                started = Started::new();
                started.start(client, Transfer::ReadOwned(vec![0; range.len()]), range.start);
                let Some((_, Transfer::ReadOwned(back))) = started.wait().pop() else { panic!("no buffer") };
                assert!(back == leaked[..range.len()], "{style:?}: {range:?}");
            }
            // Neither of these begins or ends with a block.
            client.write(&leaked[..300_001], 777).unwrap();
            let mut back = vec![0; 300_001];
            client.read(&mut back, 777).unwrap();
            assert!(back == leaked[..300_001], "{style:?}");
            // No payload, so no such bound.
            assert!(client.zero(0..4 << 20).unwrap());
        });
        let (longest, count) = (lengths.iter().max().copied(), lengths.len());
        assert_eq!(longest, Some(65_536), "{style:?}: requests are as long as they may be");
        // Each range goes four ways; the odd one is read, written and read again in five requests each.
        let needed: usize = LONG.iter().map(|range| 4 * range.len().div_ceil(65_536)).sum();
        assert_eq!(count, needed + 15, "{style:?}");
    }
}

/// A longest request that is no whole number of smallest ones, and one that is a smallest one.
#[test]
fn odd_bounds_of_a_server_are_kept_to() {
    for (blocks, expected) in [((512, 512, 5000), 4608), ((4096, 4096, 4096), 4096), ((1, 512, 1000), 1000)] {
        for style in STYLES {
            let lengths = lengths_with_blocks(style, blocks, |client, content| {
                let new = Rng::new(9).bytes(100_000);
                client.write(&new, 12_345).unwrap();
                let mut back = vec![0; 100_002];
                client.read(&mut back, 12_344).unwrap();
                assert!(back == content.lock().unwrap()[12_344..112_346] && back[1..100_001] == new);
            });
            assert_eq!(lengths.iter().max().copied(), Some(expected), "{style:?}: {blocks:?}");
        }
    }
}

/// Without the flag of the export a server must refuse the flag of the command.
#[test]
fn zeroing_is_asked_to_be_fast_only_of_servers_that_know_what_that_is() {
    const FAST_ZERO: u16 = 1 << 11;
    const FAST: u16 = 1 << 4;
    for style in STYLES {
        for (flags, fast) in [(ONE_CONNECTION, true), (ONE_CONNECTION & !FAST_ZERO, false)] {
            let (content, asked) = (content(MIB), Arc::new(Mutex::new(Vec::new())));
            let seen = asked.clone();
            let offer = Offer { flags, ..Offer::new(MIB as u64, style) };
            let peer = Peer::new(offer, move |_, talk| {
                loop {
                    let request = talk.request()?;
                    seen.lock().unwrap().push((request.verb, request.flags & FAST != 0));
                    nbd_peer::answer(talk, &request, &content)?;
                }
            });
            let client = connect(dial(peer.address()), &options(1));
            assert!(client.zero(0..MIB as u64).unwrap());
            client.trim(0..MIB as u64).unwrap();
            client.write(&[1; 512], 0).unwrap();
            client.flush().unwrap();
            let expected =
                [(verb::ZERO, fast), (verb::TRIM, false), (verb::WRITE, false), (verb::FLUSH, false)];
            assert_eq!(*asked.lock().unwrap(), expected, "{style:?}, {flags:#x}");
        }
    }
}

/// Where received bytes went: addresses and how many.
type Places = Arc<Mutex<Vec<(usize, usize)>>>;

/// A stream that notes where what is received goes.
#[derive(Debug)]
struct Watched {
    inner: Box<dyn Stream>,
    places: Places,
}

impl Stream for Watched {
    fn send(&self, parts: &[IoSlice<'_>], patience: Patience) -> Result<Option<usize>> {
        self.inner.send(parts, patience)
    }

    fn push(&self, patience: Patience) -> Result<bool> {
        self.inner.push(patience)
    }

    fn recv(&self, parts: &mut [IoSliceMut<'_>], patience: Patience) -> Result<Option<usize>> {
        let came = self.inner.recv(parts, patience)?;
        let mut left = came.unwrap_or_default();
        let mut places = self.places.lock().unwrap();
        for part in parts.iter() {
            let here = left.min(part.len());
            places.push((part.as_ptr().addr(), here));
            left -= here;
        }
        Ok(came)
    }

    fn wait(&self, wanted: Ready, until: Instant) -> Result<Ready> {
        self.inner.wait(wanted, until)
    }

    fn shutdown(&self) {
        self.inner.shutdown();
    }

    fn label(&self) -> String {
        self.inner.label()
    }
}

#[derive(Debug)]
struct Watching {
    dial: Dial,
    places: Places,
}

impl Dialler for Watching {
    fn dial(&self, until: Instant) -> Result<(Box<dyn Stream>, Export)> {
        let (inner, export) = self.dial.dial(until)?;
        Ok((Box::new(Watched { inner, places: self.places.clone() }), export))
    }

    fn label(&self) -> String {
        "a watched server".to_owned()
    }
}

/// How many bytes of data came into a buffer and how many came elsewhere, heads included.
fn inside(places: &Places, buffer: Range<usize>) -> (usize, usize) {
    let mut counts = (0, 0);
    for (at, count) in std::mem::take(&mut *places.lock().unwrap()) {
        if buffer.contains(&at) {
            assert!(at + count <= buffer.end, "past the end of the buffer");
            counts.0 += count;
        } else {
            counts.1 += count;
        }
    }
    counts
}

#[test]
fn data_are_received_straight_into_the_buffer_of_the_caller() {
    for style in STYLES {
        let content = content(MIB);
        let served = content.clone();
        let peer = Peer::new(Offer::new(MIB as u64, style), move |_, talk| nbd_peer::serve(talk, &served));
        let places = Places::default();
        let client = connect(Watching { dial: dial(peer.address()), places: places.clone() }, &options(1));
        let check = |what: &str, buffer: &[u8]| {
            assert!(*buffer == content.lock().unwrap()[..], "{what} ({style:?})");
            let (here, elsewhere) =
                inside(&places, buffer.as_ptr_range().start.addr()..buffer.as_ptr_range().end.addr());
            // What comes together with a head may take the way through a buffer of the client's own.
            assert!(here + 4 * KIB >= MIB, "{what} ({style:?}): {here} bytes here, {elsewhere} elsewhere");
        };
        for _ in 0..3 {
            let mut buffer = vec![0; MIB];
            places.lock().unwrap().clear();
            client.read(&mut buffer, 0).unwrap();
            check("a call", &buffer);
            let lent: &'static mut [u8] = vec![0; MIB].leak();
            for transfer in [Transfer::Read(lent), Transfer::ReadOwned(vec![0; MIB])] {
                places.lock().unwrap().clear();
                let mut started = Started::new();
                started.start(&client, transfer, 0);
                let (_, mut transfer) = started.wait().pop().unwrap();
                check("a started read", transfer.to_fill().unwrap());
            }
        }
    }
}

/// An export in a server's memory and on its disk. Whatever breaks a connection breaks the server, which comes back with
/// what was on the disk.
#[derive(Debug)]
struct Volatile {
    cache: Vec<u8>,
    stable: Vec<u8>,
    /// How often it broke, and how often it had when each connection was accepted.
    broken: usize,
    accepted: Vec<usize>,
}

const PLACE: usize = 64 * KIB;
const PLACES: usize = 64;

fn closed() -> std::io::Error {
    std::io::ErrorKind::BrokenPipe.into()
}

impl Volatile {
    fn new() -> Arc<Mutex<Volatile>> {
        let empty = vec![0; PLACE * PLACES];
        Arc::new(Mutex::new(Volatile {
            cache: empty.clone(),
            stable: empty,
            broken: 0,
            accepted: Vec::new(),
        }))
    }

    /// Carries out a request of connection `n`, which must not have survived the server.
    fn work(&mut self, n: usize, request: &Request) -> std::io::Result<Option<Vec<u8>>> {
        if self.accepted.get(n) != Some(&self.broken) {
            return Err(closed());
        }
        let range = request.offset as usize..(request.offset + request.length) as usize;
        match request.verb {
            verb::READ => return Ok(Some(self.cache[range].to_vec())),
            verb::WRITE => self.cache[range].copy_from_slice(&request.data),
            verb::FLUSH => self.stable.clone_from(&self.cache),
            _ => return Err(closed()),
        }
        Ok(None)
    }

    fn serve(volatile: &Mutex<Volatile>, n: usize, talk: &mut Talk) -> std::io::Result<()> {
        loop {
            let request = talk.request()?;
            let done = volatile.lock().unwrap().work(n, &request)?;
            match done {
                Some(data) if talk.offer().style == Style::Simple => talk.simple(request.cookie, 0, &data)?,
                Some(data) => talk.data(&request, nbd_peer::DONE, request.offset, &data)?,
                None => talk.done(&request)?,
            }
        }
    }

    /// The server breaks, if the connection that ended belonged to the one that runs.
    fn break_down(volatile: &Mutex<Volatile>, n: usize, talk: &Talk) {
        let mut this = volatile.lock().unwrap();
        if this.accepted.get(n) == Some(&this.broken) {
            this.broken += 1;
            this.cache = this.stable.clone();
            talk.cut_all();
        }
    }
}

/// A peer that breaks again and again, after so many bytes of a connection at least and at most.
fn fragile(volatile: &Arc<Mutex<Volatile>>, style: Style, life: Range<u64>, seed: u64) -> Peer {
    let rng = Mutex::new(Rng::new(seed));
    let (accepting, serving) = (volatile.clone(), volatile.clone());
    let offer = Offer { flags: EVERYTHING, ..Offer::new((PLACE * PLACES) as u64, style) };
    let gate = move |_| {
        let mut this = accepting.lock().unwrap();
        let broken = this.broken;
        this.accepted.push(broken);
        let life = rng.lock().unwrap().between(life.start, life.end);
        (offer, Some((life, After::Close)))
    };
    Peer::behind(gate, move |n, talk| {
        let ended = Volatile::serve(&serving, n, talk);
        Volatile::break_down(&serving, n, talk);
        ended
    })
}

/// A program that trusts a flush: what it wrote since the last one that succeeded it writes again after one that did not.
struct Writer {
    client: Arc<Client>,
    source: &'static [u8],
    rng: Rng,
    /// What was written, and where since the last flush that succeeded.
    expected: Vec<u8>,
    since: Vec<usize>,
    losses: usize,
}

impl Writer {
    fn data(&mut self) -> &'static [u8] {
        let at = self.rng.below((self.source.len() - PLACE) as u64) as usize;
        &self.source[at..at + PLACE]
    }

    fn expect(&mut self, place: usize, data: &[u8]) {
        self.expected[place * PLACE..][..PLACE].copy_from_slice(data);
        self.since.push(place);
    }

    /// Many at once, each to a place of its own, and a few one after the other.
    fn write(&mut self, at_once: usize, one_by_one: usize) {
        let first = self.rng.below(PLACES as u64) as usize;
        let mut started = Started::new();
        for n in 0..at_once {
            let (place, data) = ((first + n) % PLACES, self.data());
            started.start(&self.client, Transfer::Write(data), place * PLACE);
            self.expect(place, data);
        }
        for (_, _, result) in started.ends() {
            result.unwrap();
        }
        for _ in 0..one_by_one {
            let (place, data) = (self.rng.below(PLACES as u64) as usize, self.data());
            self.client.write(data, (place * PLACE) as u64).unwrap();
            self.expect(place, data);
        }
    }

    /// Flushes until that succeeds. Nothing else may fail for the loss of a connection.
    fn flush(&mut self) {
        while let Err(error) = self.client.flush() {
            assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
            self.losses += 1;
            for place in &self.since {
                let data = &self.expected[place * PLACE..][..PLACE];
                self.client.write(data, (place * PLACE) as u64).unwrap();
            }
        }
        self.since.clear();
    }
}

/// Nothing that a flush which succeeded stands for is missing on the server's disk, however often the server breaks.
fn flushes_are_honest(style: Style, connections: u32, at_once: usize, life: Range<u64>) {
    let volatile = Volatile::new();
    let peer = fragile(&volatile, style, life, 4711 + u64::from(connections));
    let mut writer = Writer {
        client: connect_to_fragile(&peer, connections),
        source: Rng::new(3).bytes(4 * MIB).leak(),
        rng: Rng::new(5),
        expected: vec![0; PLACE * PLACES],
        since: Vec::new(),
        losses: 0,
    };
    let rounds = 100 + 150 * connections as usize;
    for round in 0..rounds {
        let few = writer.rng.below(4) as usize;
        writer.write(at_once, few);
        if round % 3 == 0 {
            let mut back = [0; 512]; // the answer has to fit into the life of a connection
            let at = writer.rng.below(PLACES as u64) as usize * PLACE;
            writer.client.read(&mut back, at as u64).unwrap();
            // What was lost with the server and not told of yet is old.
            let known = back == writer.expected[at..at + 512] || writer.since.contains(&(at / PLACE));
            assert!(known, "round {round}: something else was read");
        }
        writer.flush();
        assert!(volatile.lock().unwrap().stable == writer.expected, "round {round}: something is not stable");
    }
    let (broken, losses) = (volatile.lock().unwrap().broken, writer.losses);
    assert!(broken >= 10 && losses >= 5, "it broke {broken} times, {losses} flushes failed");
    assert!(losses < rounds / 2, "{losses} flushes failed: hardly any was right at once");
    if connections > 1 {
        // The last ones are not broken.
        let accepted = volatile.lock().unwrap().accepted.len();
        assert!(accepted > broken + 5, "{accepted} connections, {broken} times broken");
    }
}

/// The first connection may break before it is of use.
fn connect_to_fragile(peer: &Peer, connections: u32) -> Arc<Client> {
    let attempt = || {
        let threads = Arc::new(Threads::new(|body| body()));
        Client::connect(dial(peer.address()), &options(connections), Log::none(), threads)
    };
    let tried: std::result::Result<_, Error> =
        (0..100).map(|_| attempt()).find(Result::is_ok).expect("one of many");
    tried.unwrap()
}

#[test]
fn what_a_flush_stands_for_outlives_a_server_that_breaks() {
    for style in STYLES {
        flushes_are_honest(style, 1, 3, 200..2500);
    }
}

#[test]
fn what_a_flush_stands_for_outlives_a_server_that_breaks_under_two_connections() {
    for style in [Style::Structured, Style::Extended] {
        flushes_are_honest(style, 2, 56, 2000..20_000);
    }
}
