//! The client against scripted servers in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use super::peer::*;
use super::*;
use crate::net::nbd::Allocation;

mod patience;
mod promises;

type Store = Arc<Mutex<Vec<u8>>>;

fn options() -> Options {
    Options {
        connect: Duration::from_secs(5),
        request: Duration::from_secs(20),
        reconnect: Duration::ZERO,
        connections: 1,
        window: 0,
        write: true,
    }
}

struct Setting {
    replies: Replies,
    options: Options,
    room: usize,
    threads: Arc<Threads>,
    block: u32,
    flags: u16,
}

impl Setting {
    fn new(replies: Replies) -> Setting {
        let threads = Arc::new(Threads::new(|body| body()));
        Setting {
            replies,
            options: options(),
            room: 1 << 20,
            threads,
            block: 1,
            flags: export(replies).flags,
        }
    }

    fn servers(&self, scripts: Vec<(Script, Option<usize>)>) -> Arc<Servers> {
        let mut export = export(self.replies);
        export.blocks.minimum = self.block;
        export.flags = self.flags;
        Arc::new(Servers {
            scripts: Mutex::new(scripts.into_iter().collect::<VecDeque<_>>()),
            export: Mutex::new(export),
            room: self.room,
        })
    }

    fn client(&self, scripts: Vec<(Script, Option<usize>)>) -> Arc<Client> {
        Client::connect(self.servers(scripts), &self.options, Log::none(), Arc::clone(&self.threads)).unwrap()
    }
}

fn script(body: impl FnOnce(&Peer) -> Result<(), Gone> + Send + 'static) -> (Script, Option<usize>) {
    (Box::new(body), None)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn store() -> Store {
    Arc::new(Mutex::new(pattern(1 << 20)))
}

/// A server that does what it is asked, in order.
fn honest(store: &Store) -> Script {
    let store = Arc::clone(store);
    Box::new(move |peer| {
        loop {
            let asked = peer.asked()?;
            answer(peer, &store, &asked)?;
        }
    })
}

fn answer(peer: &Peer, store: &Store, asked: &Asked) -> Result<(), Gone> {
    let part = asked.offset as usize..(asked.offset + asked.len) as usize;
    match asked.verb {
        0 if peer.replies == Replies::Simple => {
            let data = store.lock()[part].to_vec();
            return peer.simple(asked.cookie, 0, &data);
        }
        0 => {
            let data = store.lock()[part].to_vec();
            return peer.data(1, asked.cookie, asked.offset, &data);
        }
        1 => store.lock()[part].copy_from_slice(&asked.data),
        6 => store.lock()[part].fill(0),
        2 => return Err(Gone),
        _ => {}
    }
    if peer.replies == Replies::Extended {
        peer.chunk(1, 0, asked.cookie, &[])
    } else {
        peer.simple(asked.cookie, 0, &[])
    }
}

const EVERY: [Replies; 3] = [Replies::Simple, Replies::Structured, Replies::Extended];

#[test]
fn whatever_replies_look_like_the_bytes_are_the_same() {
    for replies in EVERY {
        let store = store();
        let client = Setting::new(replies).client(vec![(honest(&store), None)]);
        for (offset, len) in [(0, 1), (5, 4096), (1000, 65536), (77, 65537), (0, 1 << 20), (1 << 20, 0)] {
            let mut buf = vec![0; len];
            client.read(&mut buf, offset).unwrap();
            assert!(buf == store.lock()[offset as usize..][..len], "{replies:?} {offset} {len}");
        }
        client.write(&[9; 300_000], 12345).unwrap();
        assert!(store.lock()[12345..312_345].iter().all(|b| *b == 9));
        assert!(client.zero(12345..20000).unwrap());
        assert!(client.trim(0..1 << 20).unwrap());
        client.flush().unwrap();
        assert!(store.lock()[12345..20000].iter().all(|b| *b == 0));
        let e = client.read(&mut [0; 2], (1 << 20) - 1).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::EndOfFile);
    }
}

#[test]
fn short_reads_are_asked_for_in_one_piece_where_the_server_takes_that() {
    const DF: u16 = 1 << 2;
    for replies in EVERY {
        for has_df in [true, false] {
            let store = store();
            let flags = Arc::new(Mutex::new(Vec::new()));
            let (served, seen) = (Arc::clone(&store), Arc::clone(&flags));
            let mut setting = Setting::new(replies);
            setting.flags &= if has_df { u16::MAX } else { !(1 << 7) };
            let client = setting.client(vec![script(move |peer| {
                loop {
                    let asked = peer.asked()?;
                    seen.lock().push((asked.verb, asked.len, asked.flags & DF != 0));
                    match (asked.verb, asked.flags & DF) {
                        // One piece may be a hole, if all of it is one.
                        (0, DF) if asked.offset == 8192 => peer.hole(1, asked.cookie, 8192, 512)?,
                        _ => answer(peer, &served, &asked)?,
                    }
                }
            })]);
            let whole = has_df && replies != Replies::Simple;
            for len in [512, 4096, 4096 + 512, 1 << 20] {
                let mut buf = vec![0; len];
                client.read(&mut buf, 0).unwrap();
                assert!(buf == store.lock()[..len]);
            }
            client.write(&[1; 512], 0).unwrap();
            let mut buf = [9; 512];
            client.read(&mut buf, 8192).unwrap();
            assert!(if whole { buf == [0; 512] } else { buf[..] == store.lock()[8192..8704] });
            for (verb, len, in_one) in flags.lock().drain(..) {
                assert_eq!(in_one, whole && verb == 0 && len <= 4096, "{replies:?} {verb} {len}");
            }
        }
    }
}

#[test]
fn lone_reads_that_are_looked_for_get_their_bytes_and_meet_the_end() {
    for replies in EVERY {
        let store = store();
        let source = Arc::clone(&store);
        let fickle = script(move |peer| {
            for count in 0..150 {
                let asked = peer.asked()?;
                if count % 7 == 3 {
                    std::thread::sleep(Duration::from_micros(200)); // longer than anybody looks
                }
                answer(peer, &source, &asked)?;
            }
            peer.asked().map(|_| ())
        });
        let client = Setting::new(replies).client(vec![fickle]);
        for count in 0..150 {
            let mut buf = [0; 4096];
            client.read(&mut buf, count * 4001).unwrap();
            assert!(buf == store.lock()[count as usize * 4001..][..4096], "{replies:?} {count}");
        }
        let e = client.read(&mut [0; 512], 0).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ConnectionLost);
    }
}

#[test]
fn a_server_that_shuts_down_is_left_for_the_one_that_follows() {
    for replies in EVERY {
        let store = store();
        let mut setting = Setting::new(replies);
        setting.options.reconnect = Duration::from_secs(20);
        let ending = script(move |peer| {
            loop {
                let asked = peer.asked()?;
                match replies {
                    Replies::Simple => peer.simple(asked.cookie, 108, &[])?,
                    _ => peer.chunk(1, 0x8001, asked.cookie, &[0, 0, 0, 108, 0, 0])?,
                }
            }
        });
        let client = setting.client(vec![ending, (honest(&store), None)]);
        let mut buf = vec![0; 70_000];
        client.read(&mut buf, 500).unwrap();
        assert!(buf == store.lock()[500..70_500], "{replies:?}");
    }
}

#[test]
fn no_thread_is_born_for_synchronous_calls() {
    let client = Setting::new(Replies::Simple).client(vec![(honest(&store()), None)]);
    client.read(&mut [0; 100_000], 0).unwrap();
    client.write(&[1; 700_000], 0).unwrap();
    assert_eq!(client.first().state.lock().helpers.alive, 0);
}

/// The pieces of one read are answered from the last to the first, each in chunks of any order, with holes.
#[test]
fn chunks_may_come_in_any_order() {
    let mut setting = Setting::new(Replies::Structured);
    setting.options.window = 1 << 20; // both pieces are in flight
    let client = setting.client(vec![script(|peer| {
        let mut asked = vec![peer.asked()?, peer.asked()?];
        let data = pattern(1 << 20);
        while let Some(a) = asked.pop() {
            let at = |from: u64, to: u64| &data[(a.offset + from) as usize..(a.offset + to) as usize];
            peer.data(0, a.cookie, a.offset + 5000, at(5000, a.len))?;
            peer.hole(0, a.cookie, a.offset + 100, 1900)?;
            peer.data(0, a.cookie, a.offset, at(0, 100))?;
            peer.data(0, a.cookie, a.offset + 2000, at(2000, 5000))?;
            peer.chunk(1, 0, a.cookie, &[])?;
        }
        peer.silence();
        Ok(())
    })]);
    let mut expected = pattern(1 << 20);
    for piece in expected.chunks_mut(STEP as usize) {
        piece[100..2000].fill(0);
    }
    let mut buf = vec![1; 1 << 20];
    client.read(&mut buf, 0).unwrap();
    assert!(buf == expected);
}

#[test]
fn an_error_says_what_the_server_said_and_the_next_call_works() {
    for replies in [Replies::Structured, Replies::Extended] {
        let client = Setting::new(replies).client(vec![script(move |peer| {
            let asked = peer.asked()?;
            peer.data(0, asked.cookie, asked.offset, &[1; 10])?;
            let mut payload = 5_u32.to_be_bytes().to_vec();
            payload.extend_from_slice(&[0, 8]);
            payload.extend_from_slice(b"bad spot");
            peer.chunk(1, 0x8001, asked.cookie, &payload)?;
            let asked = peer.asked()?;
            answer(peer, &store(), &asked)?;
            peer.silence();
            Ok(())
        })]);
        let e = client.read(&mut [0; 100], 50).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(e.to_string().contains("bad spot") && e.to_string().contains("at 0x32"), "{e}");
        let mut buf = [0; 100];
        client.read(&mut buf, 50).unwrap();
        assert_eq!(buf[..], pattern(150)[50..]);
    }
}

/// Each of these is said instead of the answer to a read of 1000 bytes at 500.
#[test]
fn a_server_that_breaks_the_protocol_is_left() {
    type Lie = fn(&Peer, &Asked) -> Result<(), Gone>;
    let structured: [(&str, Lie); 14] = [
        ("unknown cookie", |p, a| p.data(1, a.cookie + 1, 500, &[0; 1000])),
        ("wrong magic", |p, _| p.say(&[7; 32])),
        ("bare reply", |p, a| p.simple(a.cookie, 0, &[0; 1000])),
        ("before the range", |p, a| p.data(1, a.cookie, 499, &[0; 1000])),
        ("behind the range", |p, a| p.data(1, a.cookie, 501, &[0; 1000])),
        ("offset near the end of the world", |p, a| p.data(1, a.cookie, u64::MAX, &[0; 1000])),
        ("twice", |p, a| {
            p.data(0, a.cookie, 500, &[0; 600]).and_then(|()| p.data(1, a.cookie, 1099, &[0; 401]))
        }),
        ("too little", |p, a| p.data(1, a.cookie, 500, &[0; 999])),
        ("nothing", |p, a| p.chunk(1, 0, a.cookie, &[])),
        ("nothing, and more to come", |p, a| p.chunk(0, 0, a.cookie, &[])),
        ("empty hole", |p, a| p.hole(1, a.cookie, 500, 0)),
        ("long hole", |p, a| p.hole(1, a.cookie, 500, u32::MAX)),
        ("extents", |p, a| p.chunk(1, 5, a.cookie, &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0])),
        ("error without an error", |p, a| p.chunk(1, 0x8001, a.cookie, &[0; 6])),
    ];
    for (name, lie) in structured {
        let client = Setting::new(Replies::Structured).client(vec![script(move |peer| {
            let asked = peer.asked()?;
            lie(peer, &asked)?;
            peer.silence();
            Ok(())
        })]);
        let e = client.read(&mut [0; 1000], 500).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Protocol, "{name}: {e}");
        let e = client.read(&mut [0; 1000], 500).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Protocol, "the next call after {name}: {e}");
    }
}

#[test]
fn lengths_that_a_server_makes_up_are_not_believed() {
    for (replies, magic) in [(Replies::Structured, 0x668e_33ef_u32), (Replies::Extended, 0x6e8a_278c)] {
        for kind in [0_u16, 1, 2, 5, 6, 0x8001, 0x8002, 0x80ff] {
            let client = Setting::new(replies).client(vec![script(move |peer| {
                let asked = peer.asked()?;
                let mut bytes = magic.to_be_bytes().to_vec();
                bytes.extend_from_slice(&1_u16.to_be_bytes());
                bytes.extend_from_slice(&kind.to_be_bytes());
                bytes.extend_from_slice(&asked.cookie.to_be_bytes());
                bytes.extend_from_slice(&[0xff; 16]);
                peer.say(&bytes)?;
                loop {
                    peer.say(&[0xff; 4096])?;
                }
            })]);
            let e = client.read(&mut [0; 1000], 500).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Protocol, "{replies:?} {kind}: {e}");
        }
    }
}

/// Reads and writes over connections that are cut after every number of bytes: the bytes at the end are the right ones.
#[test]
fn a_connection_cut_anywhere_is_made_up_for() {
    for replies in EVERY {
        let mut setting = Setting::new(replies);
        setting.options.reconnect = Duration::from_secs(20);
        for cut in (1..140).chain([400, 4000, 4060, 100_000, 300_123]) {
            let store = store();
            let scripts = vec![
                (honest(&store), Some(cut)),
                (honest(&store), Some(cut / 2 + 1)),
                (honest(&store), None),
            ];
            let client = setting.client(scripts);
            let mut buf = vec![0; 4000];
            client.read(&mut buf, 40).unwrap();
            assert!(buf == pattern(4040)[40..]);
            client.write(&[3; 5000], 1000).unwrap();
            let mut buf = vec![0; 600_000];
            client.read(&mut buf, 0).unwrap();
            assert!(buf == store.lock()[..600_000] && buf[1000..6000].iter().all(|b| *b == 3));
        }
    }
}

#[test]
fn an_export_that_changed_is_refused() {
    let mut setting = Setting::new(Replies::Simple);
    setting.options.reconnect = Duration::from_secs(20);
    let store = store();
    let servers = setting.servers(vec![(honest(&store), Some(20)), (honest(&store), None)]);
    let client =
        Client::connect(Arc::clone(&servers), &setting.options, Log::none(), Arc::clone(&setting.threads))
            .unwrap();
    servers.export.lock().size = 2 << 20;
    let e = client.read(&mut [0; 512], 0).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Protocol);
    assert!(e.to_string().contains("changed"), "{e}");
}

#[test]
fn giving_up_is_bounded_and_tells_why() {
    let mut setting = Setting::new(Replies::Simple);
    setting.options.reconnect = Duration::from_millis(100);
    let client = setting.client(vec![script(|peer| peer.asked().map(|_| ()))]);
    let began = Instant::now();
    let e = client.read(&mut [0; 512], 0).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ConnectionRefused, "{e}");
    assert!(
        e.to_string().contains("nobody listens") && e.to_string().contains("ended the connection"),
        "{e}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(client.read(&mut [0; 512], 0).is_err());
}

/// The server answers a piece only after it has taken the next request, and takes nothing while it answers; the pipe is
/// far smaller than either.
#[test]
fn a_full_pipe_in_both_directions_is_no_deadlock() {
    for replies in EVERY {
        let mut setting = Setting::new(replies);
        setting.room = 1000;
        let store = store();
        let client = setting.client(vec![(honest(&store), None)]);
        let (told, finished) = mpsc::channel();
        for i in 0..8 {
            let told = told.clone();
            let finish: Finish = Box::new(move |transfer, result| told.send((transfer, result)).unwrap());
            assert!(client.start(Transfer::ReadOwned(vec![0; 50_000]), i * 50_000, finish).is_none());
        }
        std::thread::scope(|scope| {
            for i in 0..3_u64 {
                let (client, store) = (&client, &store);
                scope.spawn(move || {
                    let at = 500_000 + i * 100_000;
                    for fill in 1..4_u8 {
                        client.write(&vec![fill; 90_000], at).unwrap();
                        let mut buf = vec![0; 90_000];
                        client.read(&mut buf, at).unwrap();
                        assert!(buf == store.lock()[at as usize..][..90_000]);
                    }
                });
            }
        });
        for _ in 0..8 {
            let (transfer, result) = finished.recv_timeout(Duration::from_secs(20)).unwrap();
            result.unwrap();
            assert_eq!(transfer.len(), 50_000);
        }
    }
}

#[test]
fn started_writes_that_the_stream_does_not_take_at_once_go_on() {
    let mut setting = Setting::new(Replies::Structured);
    setting.room = 3000;
    let store = store();
    let client = setting.client(vec![(honest(&store), None)]);
    let (told, finished) = mpsc::channel();
    for i in 0..6_u8 {
        let told = told.clone();
        let data: &'static [u8] = Box::leak(vec![i + 100; 100_000].into_boxed_slice());
        let finish: Finish = Box::new(move |_, result| told.send(result).unwrap());
        assert!(client.start(Transfer::Write(data), u64::from(i) * 100_000, finish).is_none());
    }
    for _ in 0..6 {
        finished.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    }
    assert!(store.lock()[..600_000].iter().enumerate().all(|(i, b)| usize::from(*b) == 100 + i / 100_000));
}

/// The reply to a write overtakes the end of its sending.
#[test]
fn an_answer_that_comes_before_all_was_sent_is_kept() {
    for synchronous in [false, true] {
        let mut setting = Setting::new(Replies::Simple);
        setting.room = 1000;
        let client = setting.client(vec![script(|peer| {
            let head = peer.take(28)?;
            peer.simple(u64::from_be_bytes(head[8..16].try_into().unwrap()), 0, &[])?;
            assert_eq!(peer.take(100_000)?, [5; 100_000]);
            let asked = peer.asked()?;
            peer.simple(asked.cookie, 0, &[6; 512])?;
            peer.silence();
            Ok(())
        })]);
        if synchronous {
            client.write(&[5; 100_000], 0).unwrap();
        } else {
            let (told, finished) = mpsc::channel();
            let finish: Finish = Box::new(move |_, result| told.send(result).unwrap());
            assert!(client.start(Transfer::Write(&[5; 100_000]), 0, finish).is_none());
            finished.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        }
        let mut buf = [0; 512];
        client.read(&mut buf, 0).unwrap();
        assert_eq!(buf, [6; 512]);
    }
}

#[test]
fn a_finish_may_start_and_read() {
    let setting = Setting::new(Replies::Structured);
    let client = setting.client(vec![(honest(&store()), None)]);
    let (told, finished) = mpsc::channel();
    let inner = Arc::clone(&client);
    let finish: Finish = Box::new(move |transfer, result| {
        result.unwrap();
        let mut buf = [0; 100];
        inner.read(&mut buf, 7).unwrap();
        let finish: Finish = Box::new(move |transfer, result| told.send((transfer, result)).unwrap());
        assert!(inner.start(transfer, 7, finish).is_none());
    });
    assert!(client.start(Transfer::ReadOwned(vec![0; 100]), 0, finish).is_none());
    let (transfer, result) = finished.recv_timeout(Duration::from_secs(20)).unwrap();
    result.unwrap();
    let Transfer::ReadOwned(data) = transfer else { panic!("{transfer:?}") };
    assert!(data == pattern(107)[7..]);
}

#[test]
fn a_finish_that_panics_harms_nobody() {
    let client = Setting::new(Replies::Structured).client(vec![(honest(&store()), None)]);
    let (told, finished) = mpsc::channel();
    assert!(
        client.start(Transfer::ReadOwned(vec![0; 10]), 0, Box::new(|_, _| panic!("on purpose"))).is_none()
    );
    let finish: Finish = Box::new(move |_, result| told.send(result).unwrap());
    assert!(client.start(Transfer::ReadOwned(vec![0; 10]), 0, finish).is_none());
    finished.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
}

#[test]
fn closing_ends_everything_once_even_against_a_silent_server() {
    let setting = Setting::new(Replies::Structured);
    let client = setting.client(vec![script(|peer| {
        peer.silence();
        Ok(())
    })]);
    let (told, finished) = mpsc::channel();
    for i in 0..20 {
        let told = told.clone();
        let finish: Finish = Box::new(move |transfer, result| told.send((i, transfer, result)).unwrap());
        assert!(client.start(Transfer::ReadOwned(vec![0; 400_000]), 0, finish).is_none());
    }
    drop(told);
    let reader = {
        let client = Arc::clone(&client);
        std::thread::spawn(move || client.read(&mut [0; 1000], 0).unwrap_err().kind())
    };
    let began = Instant::now();
    client.close();
    assert!(began.elapsed() < Duration::from_secs(2));
    let mut all: Vec<_> = finished
        .iter()
        .map(|(i, transfer, result)| {
            assert_eq!(transfer.len(), 400_000);
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
            i
        })
        .collect();
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<_>>());
    assert_eq!(reader.join().unwrap(), ErrorKind::Cancelled);
    assert_eq!(client.read(&mut [0; 10], 0).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(client.first().state.lock().helpers.alive, 0);
}

#[test]
fn parts_of_blocks_are_read_changed_and_written() {
    let mut setting = Setting::new(Replies::Structured);
    setting.block = 4096;
    let served = store();
    let store = Arc::clone(&served);
    let client = setting.client(vec![script(move |peer| {
        loop {
            let asked = peer.asked()?;
            assert_eq!((asked.offset % 4096, asked.len % 4096), (0, 0));
            answer(peer, &store, &asked)?;
        }
    })]);
    let mut expected = served.lock().clone();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let client = &client;
            scope.spawn(move || client.write(&[i + 1; 512], u64::from(i) * 512).unwrap());
            expected[usize::from(i) * 512..][..512].fill(i + 1);
        }
    });
    assert!(client.zero(5000..9000).unwrap());
    expected[5000..9000].fill(0);
    assert!(!client.trim(0..100).unwrap(), "no whole block");
    assert!(*served.lock() == expected);
    let mut buf = vec![0; 1000];
    client.read(&mut buf, 4600).unwrap();
    assert!(buf == expected[4600..5600]);
    assert!(client.start(Transfer::ReadOwned(vec![0; 512]), 0, Box::new(|_, _| ())).is_some());
}

#[test]
fn zeroing_that_would_be_slow_is_left_to_the_caller() {
    let client = Setting::new(Replies::Simple).client(vec![script(|peer| {
        let asked = peer.asked()?;
        assert_eq!((asked.verb, asked.flags), (6, 1 << 4));
        peer.simple(asked.cookie, 95, &[])?;
        let asked = peer.asked()?;
        peer.simple(asked.cookie, 28, &[])?;
        peer.silence();
        Ok(())
    })]);
    assert!(!client.zero(0..512).unwrap());
    assert_eq!(client.zero(0..512).unwrap_err().kind(), ErrorKind::DiskFull);
}

fn status(context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
    let mut payload = context.to_be_bytes().to_vec();
    for (len, flags) in extents {
        payload.extend_from_slice(&len.to_be_bytes());
        payload.extend_from_slice(&flags.to_be_bytes());
    }
    payload
}

#[test]
fn a_map_is_asked_for_until_it_is_whole() {
    let client = Setting::new(Replies::Structured).client(vec![script(|peer| {
        let answers: [&[(u32, u32)]; 3] =
            [&[(1000, 0), (2000, 3)], &[(500, 3), (10_000, 0)], &[(9_000_000, 1)]];
        let mut at = 0;
        for extents in answers {
            let asked = peer.asked()?;
            assert_eq!((asked.verb, asked.offset, asked.offset + asked.len), (7, at, 1 << 20));
            at += extents.iter().map(|(len, _)| u64::from(*len)).sum::<u64>();
            peer.chunk(1, 5, asked.cookie, &status(1, extents))?;
        }
        peer.silence();
        Ok(())
    })]);
    let mut map = Vec::new();
    assert!(client.allocation(0..1 << 20, &mut |part| map.push(part)).unwrap());
    let part = |range, hole, zero| Allocation { range, hole, zero };
    assert_eq!(
        map,
        [
            part(0..1000, false, false),
            part(1000..3500, true, true),
            part(3500..13500, false, false),
            part(13500..1 << 20, true, false)
        ]
    );
}

#[test]
fn maps_that_make_no_sense_break_the_protocol() {
    type Say = fn(&Peer, u64) -> Result<(), Gone>;
    let lies: [(&str, Say); 6] = [
        ("another context", |p, c| p.chunk(1, 5, c, &status(2, &[(512, 0)]))),
        ("no bytes", |p, c| p.chunk(1, 5, c, &status(1, &[(0, 0)]))),
        ("an extent too many", |p, c| p.chunk(1, 5, c, &status(1, &[(1 << 20, 0), (1, 0)]))),
        ("twice", |p, c| {
            p.chunk(0, 5, c, &status(1, &[(512, 0)])).and_then(|()| p.chunk(1, 5, c, &status(1, &[(512, 0)])))
        }),
        ("no answer", |p, c| p.chunk(1, 0, c, &[])),
        ("a bare answer", |p, c| p.simple(c, 0, &[])),
    ];
    for (name, lie) in lies {
        let client = Setting::new(Replies::Structured).client(vec![script(move |peer| {
            let asked = peer.asked()?;
            lie(peer, asked.cookie)?;
            peer.silence();
            Ok(())
        })]);
        let e = client.allocation(0..1 << 20, &mut |_| ()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Protocol, "{name}: {e}");
    }
    let client = Setting::new(Replies::Simple).client(vec![(honest(&store()), None)]);
    assert!(!client.allocation(0..1 << 20, &mut |_| ()).unwrap());
}

#[test]
fn more_connections_are_made_when_one_is_not_enough() {
    let mut setting = Setting::new(Replies::Structured);
    setting.options.connections = 3;
    let store = store();
    let servers = setting.servers((0..5).map(|_| (honest(&store), None)).collect());
    servers.export.lock().flags |= HAS_MULTI;
    let threads = Arc::clone(&setting.threads);
    let client = Client::connect(Arc::clone(&servers), &setting.options, Log::none(), threads).unwrap();
    client.read(&mut [0; 512], 0).unwrap();
    assert_eq!(servers.scripts.lock().len(), 4);
    let (told, finished) = mpsc::channel();
    let began = Instant::now();
    while servers.scripts.lock().len() > 2 && began.elapsed() < Duration::from_secs(20) {
        for i in 0..20 {
            let told = told.clone();
            let finish: Finish = Box::new(move |transfer, result| told.send((i, transfer, result)).unwrap());
            assert!(client.start(Transfer::ReadOwned(vec![0; 600_000]), i * 1000, finish).is_none());
        }
        for _ in 0..20 {
            let (i, transfer, result) = finished.recv_timeout(Duration::from_secs(20)).unwrap();
            result.unwrap();
            let Transfer::ReadOwned(data) = transfer else { panic!("{transfer:?}") };
            assert!(data == store.lock()[i as usize * 1000..][..600_000]);
        }
    }
    assert_eq!(servers.scripts.lock().len(), 2, "three connections");
    client.close();
    assert!(client.connections.iter().all(|connection| connection.state.lock().helpers.alive == 0));
}

/// Reads that nobody waits for may be under way when a client goes, those read ahead.
#[test]
fn a_client_goes_when_what_is_in_flight_was_answered() {
    for (replies, answers) in
        [(Replies::Simple, true), (Replies::Structured, true), (Replies::Extended, false)]
    {
        let store = store();
        let (seen, asked_for) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let (served, verbs, count) = (Arc::clone(&store), Arc::clone(&seen), Arc::clone(&asked_for));
        let mut setting = Setting::new(replies);
        setting.options.window = 1 << 20; // two of the four pieces of a whole read
        let client = setting.client(vec![script(move |peer| {
            let mut held = vec![peer.asked()?, peer.asked()?];
            count.store(2, Ordering::Release);
            std::thread::sleep(Duration::from_millis(100)); // the client is closing by then
            if !answers {
                peer.silence();
                return Err(Gone);
            }
            for asked in held.drain(..) {
                verbs.lock().push(asked.verb);
                answer(peer, &served, &asked)?;
            }
            loop {
                let asked = peer.asked()?;
                verbs.lock().push(asked.verb);
                answer(peer, &served, &asked)?;
            }
        })]);
        let (told, ends) = mpsc::channel();
        for _ in 0..2 {
            let told = told.clone();
            let finish: Finish = Box::new(move |_, result| told.send(result.is_ok()).unwrap());
            assert!(client.start(Transfer::ReadOwned(vec![0; 1 << 20]), 0, finish).is_none());
        }
        while asked_for.load(Ordering::Acquire) < 2 {
            std::thread::yield_now();
        }
        let begin = Instant::now();
        client.close();
        assert!(begin.elapsed() < Duration::from_millis(1900), "{replies:?}: {:?}", begin.elapsed());
        let ends: Vec<bool> = (0..2).map(|_| ends.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
        let succeeded = ends.iter().filter(|end| **end).count();
        assert_eq!(succeeded, usize::from(answers), "{replies:?}: nothing is sent any more");
        if answers {
            // A farewell, and no read after the two that were under way.
            let mut tries = 0;
            while seen.lock().len() < 3 && tries < 2000 {
                std::thread::sleep(Duration::from_millis(5));
                tries += 1;
            }
            assert_eq!(*seen.lock(), [0, 0, 2], "{replies:?}");
        }
    }
}

#[test]
fn who_opened_for_reading_does_not_write() {
    let mut setting = Setting::new(Replies::Simple);
    setting.options.write = false;
    let client = setting.client(vec![(honest(&store()), None)]);
    assert_eq!(client.write(&[0; 1], 0).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(client.zero(0..1).unwrap_err().kind(), ErrorKind::ReadOnly);
    let (told, finished) = mpsc::channel();
    let finish: Finish = Box::new(move |_, result| told.send(result).unwrap());
    assert!(client.start(Transfer::Write(&[0; 512]), 0, finish).is_none());
    assert_eq!(finished.recv().unwrap().unwrap_err().kind(), ErrorKind::ReadOnly);
}
