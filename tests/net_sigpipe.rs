//! Sending to a peer that is gone must not end the process. Rust programs ignore the signal for that, C programs do not,
//! so this process has it as they do.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code)] // the disposition of a signal

use std::io::IoSlice;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use std::time::Instant;

use vixDiskLib::error::ErrorKind;
use vixDiskLib::net::socket::Address;
use vixDiskLib::net::socket::Socket;
use vixDiskLib::net::stream::Patience;
use vixDiskLib::net::stream::Stream;

#[test]
fn sending_to_a_peer_that_is_gone_raises_no_signal() {
    // SAFETY: the default action of a signal has no handler that could misbehave.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let until = Instant::now() + Duration::from_secs(60);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp { host: "127.0.0.1".into(), port: tcp.local_addr().unwrap().port() };
    let socket = Socket::connect(&address, until).unwrap();
    let (peer, _) = tcp.accept().unwrap();
    gone(&socket, peer);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let unix = UnixListener::bind(&path).unwrap();
    let socket = Socket::connect(&Address::Unix(path), until).unwrap();
    let (peer, _) = unix.accept().unwrap();
    gone(&socket, peer);
}

fn gone(socket: &dyn Stream, mut peer: impl Read) {
    let patience = Patience::Until(Instant::now() + Duration::from_secs(60));
    assert_eq!(socket.send(&[IoSlice::new(b"x")], patience).unwrap(), Some(1));
    peer.read_exact(&mut [0]).unwrap();
    drop(peer);
    let e = loop {
        match socket.send(&[IoSlice::new(b"x")], patience) {
            Ok(_) => std::thread::yield_now(),
            Err(e) => break e,
        }
    };
    assert_eq!(e.kind(), ErrorKind::ConnectionLost, "{e}");
    assert!(e.to_string().contains("Broken pipe") || e.to_string().contains("reset"), "{e}");
}
