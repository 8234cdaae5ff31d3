//! Several pinned certificates, and TLS that is left again.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::io::Read;
use std::io::Write;
use std::sync::Arc;

use rustls::ServerConnection;

use super::tests::Authority;
use super::tests::BOTH;
use super::tests::Pair;
use super::tests::config;
use super::tests::echo;
use super::tests::patient;
use super::tests::plain;
use super::tests::soon;
use super::tests::with_tls;
use super::*;

fn accept(accepted: Vec<Accepted>) -> Tls {
    Tls::pinned(&TlsSettings::default(), accepted, Log::none()).unwrap()
}

fn exactly(pair: &Pair) -> Accepted {
    Accepted::Certificate(pair.certificate.to_vec())
}

#[test]
fn one_of_several_certificates_is_enough() {
    let authority = Authority::new();
    let (right, wrong) = (authority.server(), authority.server());
    for version in BOTH {
        let sha1 = Accepted::Thumbprint(thumbprint::of(&right.certificate));
        for (accepted, fits) in [
            (vec![exactly(&right)], true),
            (vec![exactly(&wrong), sha1.clone()], true),
            (vec![Accepted::Thumbprint("nonsense".to_owned()), exactly(&right)], true),
            (vec![exactly(&wrong), Accepted::Thumbprint("nonsense".to_owned())], false),
        ] {
            let (socket, served) = with_tls(config(&right, version), echo);
            let wrapped = accept(accepted).wrap(socket, "anything", soon());
            match wrapped {
                Ok(stream) => {
                    assert!(fits);
                    stream.shutdown();
                }
                Err(e) => assert!(!fits && e.kind() == ErrorKind::CertificateRefused, "{e}"),
            }
            let _ = served.join().unwrap();
        }
    }
    let none = Tls::pinned(&TlsSettings::default(), Vec::new(), Log::none()).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::CertificateRefused);
}

#[test]
fn tls_that_is_left_says_nothing_and_leaves_the_stream_open() {
    let pair = Authority::new().server();
    for version in BOTH {
        let server = config(&pair, version);
        let (socket, served) = plain(move |mut socket| {
            let mut tls = ServerConnection::new(Arc::new(server)).unwrap();
            let mut line = [0; 3];
            rustls::Stream::new(&mut tls, &mut socket).read_exact(&mut line).unwrap();
            rustls::Stream::new(&mut tls, &mut socket).write_all(b"yes").unwrap();
            let mut bare = Vec::new();
            socket.read_to_end(&mut bare).unwrap();
            (line, bare)
        });
        let socket: Arc<dyn Stream> = Arc::from(socket);
        let episode =
            accept(vec![exactly(&pair)]).wrap_for_a_while(Box::new(socket.clone()), "x", soon()).unwrap();
        assert_eq!(episode.certificate(), &*pair.certificate);
        episode.stream().send(&[IoSlice::new(b"no?")], patient()).unwrap();
        let mut said = [0; 3];
        assert_eq!(episode.stream().recv(&mut [IoSliceMut::new(&mut said)], patient()).unwrap(), Some(3));
        episode.leave().unwrap();
        assert_eq!(socket.send(&[IoSlice::new(b"bare")], patient()).unwrap(), Some(4));
        socket.shutdown();
        assert_eq!(served.join().unwrap(), (*b"no?", b"bare".to_vec()));
    }
}

#[test]
fn what_was_not_received_is_not_left_behind_in_silence() {
    let pair = Authority::new().server();
    let (socket, served) = with_tls(config(&pair, BOTH[1]), |served| {
        served.write_all(b"one and two")?;
        let _ = served.read(&mut [0]);
        Ok(())
    });
    let socket: Arc<dyn Stream> = Arc::from(socket);
    let episode =
        accept(vec![exactly(&pair)]).wrap_for_a_while(Box::new(socket.clone()), "x", soon()).unwrap();
    assert_eq!(episode.stream().recv(&mut [IoSliceMut::new(&mut [0; 3])], patient()).unwrap(), Some(3));
    let e = episode.leave().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Protocol);
    assert!(e.to_string().contains("8 bytes"), "{e}");
    socket.shutdown();
    served.join().unwrap().unwrap();
}
