use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::*;
use crate::net::http::message::Method;
use crate::net::http::message::end_of_head;
use crate::secret::Secret;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);

/// What a connection of the server does when a request has come.
#[derive(Clone)]
enum Act {
    Say(Vec<u8>),
    /// Says this and then the second part, byte by byte, for ever.
    Endless(Vec<u8>, &'static [u8]),
    /// Says this and then nothing until the client goes.
    Silence(Vec<u8>),
}

/// A server whose n-th connection does what the n-th script says and is closed then.
#[derive(Debug)]
struct Scripted {
    address: Address,
    dialled: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for script in scripts {
                let Ok((socket, _)) = listener.accept() else { return };
                std::thread::spawn(move || drop(follow(socket, script)));
            }
        });
        Self { address: Address::Tcp { host: "127.0.0.1".into(), port }, dialled: Arc::default() }
    }

    fn client(self) -> (Client, Arc<AtomicUsize>) {
        let dialled = self.dialled.clone();
        (Client::new(Box::new(self), LONG), dialled)
    }
}

impl Dial for Scripted {
    fn dial(&self, until: Instant) -> Result<Box<dyn Stream>> {
        self.dialled.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Socket::connect(&self.address, until)?))
    }

    fn host(&self) -> String {
        "server".into()
    }
}

fn follow(mut socket: TcpStream, script: Vec<Act>) -> std::io::Result<()> {
    for act in script {
        let mut heard = Vec::new();
        while end_of_head(&heard, 0).is_none() {
            let mut buf = [0; 1000];
            match socket.read(&mut buf)? {
                0 => return Ok(()),
                n => heard.extend_from_slice(&buf[..n]),
            }
        }
        match act {
            Act::Say(words) => socket.write_all(&words)?,
            Act::Endless(words, more) => {
                socket.write_all(&words)?;
                loop {
                    socket.write_all(more)?;
                }
            }
            Act::Silence(words) => {
                socket.write_all(&words)?;
                return socket.read(&mut [0]).map(drop);
            }
        }
    }
    Ok(())
}

fn get(client: &Client, target: Target<'_>) -> Result<Answer> {
    within(client, target, LONG)
}

fn within(client: &Client, target: Target<'_>, time: Duration) -> Result<Answer> {
    let request = Request { method: Method::Get, target: "/x", headers: &[], body: &[] };
    client.exchange(&request, target, Instant::now() + time)
}

fn once(act: Act) -> Client {
    Scripted::new(vec![vec![act]]).client().0
}

fn says(words: impl AsRef<[u8]>) -> Act {
    Act::Say(words.as_ref().to_vec())
}

fn answer(body: &str) -> Act {
    says(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

#[track_caller]
fn is_protocol_error(words: impl AsRef<[u8]>) {
    let e = get(&once(says(words)), Target::Collect(1000)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Protocol, "{e}");
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_body_is_taken_however_its_end_is_known() {
    for words in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 200 OK\r\n\r\nhello".to_owned(),
        "HTTP/1.0 200 OK\n\nhello".to_owned(),
        format!("{CHUNKED}2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"),
        format!("{CHUNKED}2\nhe\n0003 \nllo\n000\nTrailer: x\n\n"),
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello"
            .to_owned(),
    ] {
        let answer = get(&once(says(&words)), Target::Collect(5)).unwrap();
        assert_eq!(
            (answer.head.status, answer.body.bytes(), answer.is_filled),
            (200, &b"hello"[..], false),
            "{words}"
        );
    }
}

#[test]
fn a_connection_is_used_again_unless_the_server_says_otherwise() {
    let closing = "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 1\r\n\r\n3";
    let scripts = vec![
        vec![answer("1"), says(format!("{CHUNKED}1\r\n2\r\n0\r\n\r\n")), says(closing)],
        vec![answer("4")],
    ];
    let (client, dialled) = Scripted::new(scripts).client();
    for (body, connections) in [(b"1", 1), (b"2", 1), (b"3", 1), (b"4", 2)] {
        assert_eq!(get(&client, Target::Collect(1)).unwrap().body.bytes(), body);
        assert_eq!(dialled.load(Ordering::SeqCst), connections);
    }
}

#[test]
fn a_kept_connection_that_the_server_closed_is_made_again_once() {
    let (client, dialled) =
        Scripted::new(vec![vec![answer("1")], vec![answer("2")], vec![], vec![]]).client();
    for body in [b"1", b"2"] {
        assert_eq!(get(&client, Target::Collect(1)).unwrap().body.bytes(), body);
    }
    assert_eq!(get(&client, Target::Collect(1)).unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert_eq!(dialled.load(Ordering::SeqCst), 3, "a new connection gets no second chance");
}

#[test]
fn an_answer_that_broke_off_is_not_asked_for_again() {
    let cut = says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
    let (client, dialled) = Scripted::new(vec![vec![answer("1"), cut], vec![answer("2")]]).client();
    get(&client, Target::Collect(1)).unwrap();
    assert_eq!(get(&client, Target::Collect(9)).unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert_eq!(dialled.load(Ordering::SeqCst), 1);
}

#[test]
fn bytes_that_nobody_asked_for_end_a_connection() {
    let scripts = vec![
        vec![says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\n\r\n")],
        vec![answer("2")],
    ];
    let (client, dialled) = Scripted::new(scripts).client();
    for body in [b"1", b"2"] {
        assert_eq!(get(&client, Target::Collect(1)).unwrap().body.bytes(), body);
    }
    assert_eq!(dialled.load(Ordering::SeqCst), 2);
}

#[test]
fn a_body_is_received_into_a_buffer_of_its_size() {
    let body: String = (0..100_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    let chunks: String = body
        .as_bytes()
        .chunks(777)
        .map(|c| format!("{:x}\r\n{}\r\n", c.len(), std::str::from_utf8(c).unwrap()))
        .collect();
    for act in [
        answer(&body),
        says(format!("{CHUNKED}{chunks}0\r\n\r\n")),
        says(format!("HTTP/1.1 200 OK\r\n\r\n{body}")),
    ] {
        let mut buf = vec![0; body.len()];
        let answer = get(&once(act), Target::Fill(&mut buf, &|head| head.status == 200)).unwrap();
        assert!(answer.is_filled && answer.body.bytes().is_empty());
        assert!(buf == body.as_bytes());
    }
}

#[test]
fn a_body_of_another_size_than_its_buffer_is_refused() {
    for act in [
        answer("hell"),
        answer("hello!"),
        says(format!("{CHUNKED}4\r\nhell\r\n0\r\n\r\n")),
        says(format!("{CHUNKED}6\r\nhello!\r\n0\r\n\r\n")),
        says(format!("{CHUNKED}5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n")),
        says("HTTP/1.1 200 OK\r\n\r\nhell"),
        says("HTTP/1.1 200 OK\r\n\r\nhello!"),
    ] {
        let mut buf = [0; 5];
        let e = get(&once(act), Target::Fill(&mut buf, &|_| true)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Protocol, "{e}");
    }
}

#[test]
fn an_unwanted_answer_leaves_the_buffer_alone_and_is_not_read_for_ever() {
    let mut buf = [7; 5];
    let endless = Act::Endless(
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<h1>gone</h1>".to_vec(),
        b"x",
    );
    let answer = get(&once(endless), Target::Fill(&mut buf, &|head| head.status == 206)).unwrap();
    assert_eq!((answer.is_filled, answer.body.bytes().len(), buf), (false, 64 << 10, [7; 5]));
    let e = answer.refusal(&Hidden::default());
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("404 \"Not Found\"") && e.to_string().contains("<h1>gone</h1>"), "{e}");
}

#[test]
fn bodies_and_heads_that_are_longer_than_allowed_are_refused() {
    is_protocol_error(format!("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n{}", "x".repeat(1001)));
    is_protocol_error(format!("{CHUNKED}3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001)));
    is_protocol_error(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1001)));
    is_protocol_error(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", u64::MAX));
    is_protocol_error(format!("{CHUNKED}ffffffffffffffff\r\n{}", "x".repeat(2000)));
    is_protocol_error(format!("{CHUNKED}{}", "1".repeat(2000)));
    is_protocol_error(format!("{CHUNKED}0\r\n{}", "a: b\r\n".repeat(20_000)));
    for more in [&b"a: b\r\n"[..], b"x", b"\x00", b"\r"] {
        let e =
            get(&once(Act::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), more)), Target::Collect(9)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Protocol, "{e}");
    }
    let e = get(&once(Act::Endless(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n")), Target::Collect(9))
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Protocol, "{e}");
    for more in [&b"1\r\nx\r\n"[..], b"1;"] {
        let e = get(&once(Act::Endless(CHUNKED.into(), more)), Target::Collect(9000)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Protocol, "{e}");
    }
}

#[test]
fn broken_chunks_and_changed_protocols_are_refused() {
    is_protocol_error(format!("{CHUNKED}1\r\nhello\r\n0\r\n\r\n"));
    is_protocol_error(format!("{CHUNKED}x\r\n"));
    is_protocol_error(format!("{CHUNKED}-1\r\n"));
    is_protocol_error("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    is_protocol_error("220 smtp ready\r\n\r\n");
}

#[test]
fn an_answer_that_ends_anywhere_is_an_error() {
    let whole = format!("{CHUNKED}5\r\nhello\r\n0\r\nA: b\r\n\r\n");
    for cut in 0..whole.len() {
        let e = get(&once(says(&whole[..cut])), Target::Collect(9)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ConnectionLost, "cut at {cut}: {e}");
    }
}

#[test]
fn a_silent_server_is_waited_for_until_the_moment_is_over() {
    for words in [
        "",
        "HTTP/1.1 2",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
        CHUNKED,
        "HTTP/1.1 200 OK\r\n\r\n",
    ] {
        let start = Instant::now();
        let e = within(&once(Act::Silence(words.into())), Target::Collect(9), SHORT).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TimedOut, "{words}: {e}");
        assert!(start.elapsed() >= SHORT && start.elapsed() < LONG / 2, "{words}: {:?}", start.elapsed());
    }
}

#[test]
fn a_server_that_always_has_something_to_say_gets_no_more_time() {
    let start = Instant::now();
    let endless = Act::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), b"x");
    let e = within(&once(endless), Target::Collect(usize::MAX), SHORT).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
}

#[test]
fn refusals_say_where_a_redirection_leads_and_keep_secrets() {
    let hidden = Hidden::default();
    hidden.keep(&Secret::from("canary".to_owned()));
    let refused = |words: &str| get(&once(says(words)), Target::Collect(1000)).unwrap().refusal(&hidden);
    let e = refused("HTTP/1.1 302 Found\r\nLocation: https://elsewhere/sdk\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(e.kind(), ErrorKind::Protocol);
    assert!(e.to_string().contains("https://elsewhere/sdk"), "{e}");
    for (words, kind) in [
        ("HTTP/1.1 301 canary\r\nLocation: https://canary/\r\n\r\ncanary", ErrorKind::Protocol),
        ("HTTP/1.1 401 canary\r\n\r\nsaid c&#97;nary", ErrorKind::Unauthorised),
        ("HTTP/1.1 503 busy\r\n\r\ncanary", ErrorKind::HostUnavailable),
        ("HTTP/1.1 418 canary\r\n\r\n", ErrorKind::Protocol),
    ] {
        let e = refused(words);
        assert_eq!(e.kind(), kind);
        assert!(!e.to_string().contains("nary"), "{e}");
    }
}

#[test]
fn many_threads_have_exchanges_at_once() {
    let (client, _) = Scripted::new(vec![vec![answer("x"); 20]; 8]).client();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(get(&client, Target::Collect(1)).unwrap().body.bytes(), b"x");
                }
            });
        }
    });
}
