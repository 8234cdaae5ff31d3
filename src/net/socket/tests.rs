use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::thread;

use super::*;

fn until(time: Duration) -> Instant {
    Instant::now() + time
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(30);

/// Something that reads and writes like a peer.
trait Peer: Read + Write + Send {}
impl<T: Read + Write + Send> Peer for T {}

fn tcp() -> (Socket, Box<dyn Peer>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = Address::Tcp { host: "127.0.0.1".into(), port };
    let socket = Socket::connect(&address, until(LONG)).unwrap();
    assert_eq!(socket.label(), format!("tcp 127.0.0.1:{port}"));
    (socket, Box::new(listener.accept().unwrap().0))
}

fn unix() -> (Socket, Box<dyn Peer>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = Socket::connect(&Address::Unix(path), until(LONG)).unwrap();
    (socket, Box::new(listener.accept().unwrap().0))
}

fn both(test: fn(Socket, Box<dyn Peer>)) {
    for (socket, peer) in [tcp(), unix()] {
        test(socket, peer);
    }
}

fn send_all(socket: &Socket, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let sent = socket.send(&[IoSlice::new(bytes)], Patience::Until(until(LONG))).unwrap().unwrap();
        bytes = &bytes[sent..];
    }
}

#[test]
fn bytes_go_through_several_parts() {
    both(|socket, mut peer| {
        let parts = [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")];
        assert_eq!(socket.send(&parts, Patience::None).unwrap(), Some(5));
        let mut got = [0; 5];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");

        peer.write_all(b"world").unwrap();
        let (mut a, mut b) = ([0; 2], [0; 9]);
        let mut parts = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        assert_eq!(socket.recv(&mut parts, Patience::Until(until(LONG))).unwrap(), Some(5));
        assert_eq!((&a, &b[..3]), (b"wo", &b"rld"[..]));
    });
}

#[test]
fn more_parts_than_the_system_takes_are_sent_in_pieces() {
    both(|socket, mut peer| {
        let bytes: Vec<u8> = (0..3000).map(|i| i as u8).collect();
        let parts: Vec<IoSlice<'_>> = bytes.chunks(1).map(IoSlice::new).collect();
        let sent = socket.send(&parts, Patience::None).unwrap().unwrap();
        assert!((1..=bytes.len()).contains(&sent), "{sent}");
        let mut got = vec![0; sent];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes[..sent]);
    });
}

#[test]
fn receiving_ends_when_time_is_up() {
    both(|socket, _peer| {
        for time in [None, Some(SHORT), Some(os::SLICE + SHORT)] {
            let begin = Instant::now();
            let patience = time.map_or(Patience::None, |time| Patience::Until(begin + time));
            assert_eq!(socket.recv(&mut [IoSliceMut::new(&mut [0])], patience).unwrap(), None);
            assert!(begin.elapsed() >= time.unwrap_or_default(), "{time:?}: {:?}", begin.elapsed());
        }
    });
}

#[test]
fn bytes_that_come_while_waiting_are_received() {
    both(|socket, mut peer| {
        for patience in [SHORT * 20, LONG] {
            let late = thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(SHORT);
                    peer.write_all(b"x").unwrap();
                });
                socket.recv(&mut [IoSliceMut::new(&mut [0])], Patience::Until(until(patience))).unwrap()
            });
            assert_eq!(late, Some(1), "{patience:?}");
        }
    });
}

#[test]
fn sending_to_a_peer_that_does_not_read_ends_when_time_is_up() {
    both(|socket, _peer| {
        let much = vec![7; 8 << 20];
        let send = |patience| socket.send(&[IoSlice::new(&much)], patience).unwrap();
        while send(Patience::Until(until(SHORT * 5))).is_some() {} // the system's buffers grow for a while
        assert_eq!(send(Patience::None), None);
        for time in [SHORT, os::SLICE + SHORT] {
            let begin = Instant::now();
            assert_eq!(send(Patience::Until(begin + time)), None);
            assert!(begin.elapsed() >= time, "{time:?}: {:?}", begin.elapsed());
        }
        assert_eq!(socket.wait(TO_SEND, until(SHORT)).unwrap(), Ready::default());
    });
}

#[test]
fn both_directions_at_once_carry_megabytes() {
    both(|socket, mut peer| {
        let bytes: Vec<u8> =
            (0..16 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut buf = vec![0; 300_000];
                let mut left = bytes.len();
                while left > 0 {
                    let n = peer.read(&mut buf).unwrap();
                    peer.write_all(&buf[..n]).unwrap();
                    left -= n;
                }
            });
            scope.spawn(|| send_all(&socket, &bytes));
            let mut got = vec![0; bytes.len()];
            let mut at = 0;
            while at < got.len() {
                let room = &mut [IoSliceMut::new(&mut got[at..])];
                at += socket.recv(room, Patience::Until(until(LONG))).unwrap().unwrap();
            }
            assert!(got == bytes);
        });
    });
}

#[test]
fn a_peer_that_closes_is_the_end_and_then_a_lost_connection_without_signal() {
    both(|socket, peer| {
        drop(peer);
        assert_eq!(
            socket.recv(&mut [IoSliceMut::new(&mut [0])], Patience::Until(until(LONG))).unwrap(),
            Some(0)
        );
        let wanted = Ready { recv: true, send: false };
        assert_eq!(socket.wait(wanted, until(LONG)).unwrap(), wanted);
        // The test's runtime ignores SIGPIPE; C programs do not, so the flag is what is checked.
        let e = loop {
            match socket.send(&[IoSlice::new(b"x")], Patience::Until(until(LONG))) {
                Ok(_) => thread::yield_now(),
                Err(e) => break e,
            }
        };
        assert_eq!(e.kind(), ErrorKind::ConnectionLost, "{e}");
    });
}

#[test]
fn shutdown_ends_the_waits_of_others() {
    both(|socket, _peer| {
        thread::scope(|scope| {
            let receiving = scope.spawn(|| {
                socket.recv(&mut [IoSliceMut::new(&mut [0])], Patience::Until(until(LONG))).unwrap()
            });
            let sending = scope.spawn(|| {
                let much = vec![0; 1 << 20];
                while socket.send(&[IoSlice::new(&much)], Patience::Until(until(LONG))).is_ok() {}
            });
            thread::sleep(SHORT);
            let begin = Instant::now();
            socket.shutdown();
            assert_eq!(receiving.join().unwrap(), Some(0));
            sending.join().unwrap();
            assert!(begin.elapsed() < LONG / 2);
        });
    });
}

#[test]
fn waiting_says_what_is_ready() {
    both(|socket, mut peer| {
        let all = Ready { recv: true, send: true };
        assert_eq!(socket.wait(all, until(LONG)).unwrap(), TO_SEND);
        assert_eq!(socket.wait(TO_RECV, until(SHORT)).unwrap(), Ready::default());
        peer.write_all(b"x").unwrap();
        assert_eq!(socket.wait(TO_RECV, until(LONG)).unwrap(), TO_RECV);
        assert_eq!(socket.wait(all, Instant::now()).unwrap(), all);
    });
}

#[test]
fn a_port_without_a_server_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for host in ["127.0.0.1", "localhost"] {
        let e = Socket::connect(&Address::Tcp { host: host.into(), port }, until(LONG)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ConnectionRefused, "{e}");
        assert!(e.to_string().starts_with(&format!("connecting to tcp {host}:{port}: ")), "{e}");
    }
}

#[test]
fn unix_sockets_that_cannot_be_reached_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let kind = |path: &Path| Socket::connect(&Address::Unix(path.into()), until(LONG)).unwrap_err().kind();
    assert_eq!(kind(&path), ErrorKind::ServerNotFound);
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(kind(&path), ErrorKind::ConnectionRefused);
    assert_eq!(kind(&folder.path().join("n".repeat(120))), ErrorKind::NameTooLong);
    assert_eq!(kind(Path::new("")), ErrorKind::Io);
}

#[test]
fn a_unix_server_that_does_not_accept_is_waited_for_no_longer_than_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut queued = Vec::new();
    let e = loop {
        match Socket::connect(&Address::Unix(path.clone()), until(SHORT)) {
            Ok(socket) => queued.push(socket),
            Err(e) => break e,
        }
        if queued.len() > 100_000 {
            return; // a system whose queue has no end
        }
    };
    assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
}

#[test]
fn descriptors_do_not_reach_child_processes() {
    both(|socket, _peer| {
        let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", socket.fd.as_raw_fd())).unwrap();
        let flags = fdinfo.lines().find_map(|l| l.strip_prefix("flags:")).unwrap().trim().to_owned();
        let flags = u32::from_str_radix(&flags, 8).unwrap();
        assert_ne!(flags & libc::O_CLOEXEC as u32, 0);
        assert_eq!(flags & libc::O_NONBLOCK as u32, 0, "receiving would poll each time");
    });
}
