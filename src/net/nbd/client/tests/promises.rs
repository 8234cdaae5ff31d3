//! What is stable, what a flush says about it, what is lost with a connection.

use super::*;
use crate::logging::Level;
use crate::logging::Sink;

#[test]
fn a_loss_after_unflushed_writes_is_reported_by_the_next_flush_once() {
    let mut setting = Setting::new(Replies::Simple);
    setting.options.reconnect = Duration::from_secs(20);
    let store = store();
    // 16 bytes acknowledge the write, then the connection is gone
    let client = setting.client(vec![(honest(&store), Some(16)), (honest(&store), None)]);
    client.write(&[1; 512], 0).unwrap();
    client.read(&mut [0; 512], 0).unwrap();
    let e = client.flush().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ConnectionLost);
    assert!(e.to_string().contains("may not be on the disk"), "{e}");
    client.flush().unwrap();
}

#[test]
fn a_flush_that_was_in_flight_at_the_loss_reports_it() {
    let mut setting = Setting::new(Replies::Simple);
    setting.options.reconnect = Duration::from_secs(20);
    let served = store();
    let store = Arc::clone(&served);
    let dies = script(move |peer| {
        let asked = peer.asked()?;
        answer(peer, &store, &asked)?;
        peer.asked().map(|_| ())
    });
    let client = setting.client(vec![dies, (honest(&served), None)]);
    client.write(&[1; 512], 0).unwrap();
    assert!(client.flush().unwrap_err().to_string().contains("may not be on the disk"));
    client.flush().unwrap();
}

#[test]
fn a_flush_without_anything_to_lose_is_sent_again() {
    let mut setting = Setting::new(Replies::Simple);
    setting.options.reconnect = Duration::from_secs(20);
    let client = setting.client(vec![script(|peer| peer.asked().map(|_| ())), (honest(&store()), None)]);
    client.flush().unwrap();
}

const FLUSH: u16 = 1 << 2;
const FUA: u16 = 1 << 3;
const FUA_OF_A_COMMAND: u16 = 1;

/// The verb and the FUA flag of each request that changes an export with or without FLUSH and FUA.
fn changes_on(without: u16) -> (Vec<(u16, bool)>, Result<()>) {
    let mut setting = Setting::new(Replies::Structured);
    setting.flags &= !without;
    let (told, seen) = mpsc::channel();
    let store = store();
    let client = setting.client(vec![script(move |peer| {
        loop {
            let asked = peer.asked()?;
            let _ = told.send((asked.verb, asked.flags & FUA_OF_A_COMMAND != 0)); // the test may be over
            answer(peer, &store, &asked)?;
        }
    })]);
    client.write(&[1; 512], 0).unwrap();
    assert!(client.zero(512..1024).unwrap());
    client.trim(1024..2048).unwrap();
    let (finish, done) = mpsc::channel();
    let finish: Finish = Box::new(move |_, result| finish.send(result).unwrap());
    assert!(client.start(Transfer::Write(&[2; 512]), 0, finish).is_none());
    done.recv().unwrap().unwrap();
    client.read(&mut [0; 512], 0).unwrap();
    let flushed = client.flush();
    client.close();
    (seen.iter().filter(|(verb, _)| *verb != 2).collect(), flushed)
}

#[test]
fn where_nothing_can_be_flushed_every_change_is_stable_by_itself() {
    let (requests, flushed) = changes_on(FLUSH);
    assert_eq!(requests, [(1, true), (6, true), (4, true), (1, true), (0, false)]);
    flushed.unwrap();
}

#[test]
fn a_server_that_flushes_need_not_hurry_and_one_without_fua_is_not_asked_for_it() {
    let plain = [(1, false), (6, false), (4, false), (1, false), (0, false)];
    let (requests, flushed) = changes_on(0);
    assert_eq!(requests, [&plain[..], &[(3, false)]].concat());
    flushed.unwrap();
    let (requests, flushed) = changes_on(FLUSH | FUA);
    assert_eq!(requests, plain);
    flushed.unwrap();
}

/// Writes, loses the connection, flushes.
fn flush_after_a_loss_without(without: u16) -> Result<()> {
    let mut setting = Setting::new(Replies::Simple);
    setting.flags &= !without;
    setting.options.reconnect = Duration::from_secs(20);
    let store = store();
    let client = setting.client(vec![(honest(&store), Some(16)), (honest(&store), None)]);
    client.write(&[1; 512], 0).unwrap();
    client.read(&mut [0; 512], 0).unwrap();
    client.flush()
}

#[test]
fn a_loss_is_reported_unless_every_write_was_stable() {
    flush_after_a_loss_without(FLUSH).unwrap();
    let e = flush_after_a_loss_without(FLUSH | FUA).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ConnectionLost);
}

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, _level: Level, text: &str) {
        self.0.lock().push(text.to_owned());
    }
}

#[test]
fn a_server_without_flush_and_fua_is_told_of_once_where_writes_will_come() {
    for (without, write, expected) in
        [(FLUSH | FUA, true, 1), (FLUSH | FUA, false, 0), (FLUSH, true, 0), (FUA, true, 0)]
    {
        let mut setting = Setting::new(Replies::Simple);
        setting.flags &= !without;
        setting.options.write = write;
        setting.options.reconnect = Duration::from_secs(20);
        let (store, lines) = (store(), Arc::new(Lines::default()));
        let servers = setting.servers(vec![(honest(&store), Some(600)), (honest(&store), None)]);
        let log = Log::new(lines.clone(), Level::Warning);
        let client = Client::connect(servers, &setting.options, log, setting.threads.clone()).unwrap();
        client.read(&mut [0; 512], 0).unwrap();
        client.read(&mut [0; 512], 0).unwrap();
        let told = lines.0.lock().iter().filter(|line| line.contains("no promise about a power cut")).count();
        assert_eq!(told, expected, "{:?}", lines.0.lock());
    }
}
