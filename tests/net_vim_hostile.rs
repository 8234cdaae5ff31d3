//! SOAP servers that lie, stop in the middle, never end or repeat what they heard: each is an error of the right kind in
//! bounded time and memory, and no secret is ever seen.
#![allow(clippy::unwrap_used)]

mod common;
#[allow(dead_code, reason = "a part of it")]
#[path = "../fuzz/src/limits.rs"]
mod limits;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use common::soap_peer;
use common::soap_peer::COOKIE;
use common::soap_peer::Heard;
use common::soap_peer::Peer;
use common::soap_peer::Reply;
use common::soap_peer::TICKET;
use common::soap_peer::envelope;
use common::soap_peer::http;
use common::soap_peer::named;
use common::soap_peer::response;
use common::soap_peer::usual;
use common::tools;
use common::vcsim::Lines;
use ring::digest;
use rustls::ServerConfig;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::net::tls::TlsSettings;
use vixDiskLib::net::vim::Login;
use vixDiskLib::net::vim::MachineSpec;
use vixDiskLib::net::vim::Moref;
use vixDiskLib::net::vim::Server;
use vixDiskLib::net::vim::Session;
use vixDiskLib::net::vim::Times;
use vixDiskLib::secret::Secret;

#[global_allocator]
static ALLOCATOR: limits::Counting = limits::Counting;

/// What a bounded wait may take at most on a busy machine.
const BOUNDED: Duration = Duration::from_secs(20);

const PATIENT: Times = Times {
    connect: Duration::from_secs(30),
    request: Duration::from_secs(30),
    farewell: Duration::from_secs(30),
};
const IMPATIENT: Duration = Duration::from_millis(150);

const PASSWORD: &str = "pass<&>word-canary";

fn user() -> Login {
    Login::User { name: "u".into(), password: Secret::from(PASSWORD.to_owned()) }
}

fn machine() -> Moref {
    Moref::machine("vm-1")
}

fn open(peer: &Peer) -> Session {
    peer.open(user(), PATIENT, Log::none()).unwrap()
}

/// A server that answers one call by this and everything else as it should.
fn liar(method: &'static str, lie: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> Peer {
    Peer::new(move |heard| if heard.method == method { lie(heard) } else { usual(heard) })
}

/// What asking for a ticket gives when the answer is this.
fn ticket_from(reply: Reply) -> Result<(), Error> {
    let peer = liar("NfcGetVmFiles", move |_| reply.clone());
    open(&peer).ticket_for_files(&machine()).map(drop)
}

#[track_caller]
fn is_refused(what: &str, reply: Reply, kind: ErrorKind) {
    let start = Instant::now();
    let (done, cost) = limits::measured(|| ticket_from(reply));
    let e = done.expect_err(what);
    assert_eq!(e.kind(), kind, "{what}: {e}");
    assert!(start.elapsed() < BOUNDED, "{what} took {:?}", start.elapsed());
    assert!(cost.memory < 64 << 20, "{what} held {} bytes", cost.memory);
    assert!(e.to_string().len() < 2000, "{what}: {e}");
}

fn xml(body: impl AsRef<str>) -> Reply {
    Reply::Raw(http("200 OK", "text/xml", body.as_ref()))
}

#[test]
fn every_call_works_with_a_server_that_behaves() {
    let peer = Peer::new(usual);
    let session = open(&peer);
    assert!(session.about().is_vcenter());
    assert_eq!(session.cookie().expose_text().unwrap(), COOKIE);
    session.keep_alive().unwrap();
    session.ticket_for_files(&machine()).unwrap();
    session.ticket_for_disk(&machine(), 2000, Some(&Moref::new("HostSystem", "host-1")), true).unwrap();
    session.ticket_for_disk(&machine(), 2000, None, false).unwrap();
    assert_eq!(session.hardware(&machine(), None).unwrap().disks[0].capacity, 1 << 20);
    session.disable_relocation(&machine(), "me").unwrap();
    session.enable_relocation(&machine(), "me").unwrap();
    assert_eq!(session.datastore_name(&Moref::new("Datastore", "datastore-1")).unwrap(), "ds");
    let path = session.first_class_disk("1", &Moref::new("Datastore", "datastore-1"), None);
    assert_eq!(path.unwrap(), "[ds] fcd/1.vmdk");
    let spec = MachineSpec::parse("564d5eae-1111-2222-3333-444455556666").unwrap();
    assert_eq!(session.machine(&spec).unwrap(), machine());
    session.close().unwrap();
    assert_eq!((peer.connections(), peer.calls("Login"), peer.calls("Logout")), (1, 1, 1));
    let heard = peer.heard();
    let sent = |method: &str| heard.iter().find(|heard| heard.method == method).unwrap();
    assert!(sent("Login").body.contains("<password>pass&lt;&amp;&gt;word-canary</password>"));
    assert!(sent("DisableMethods").body.contains("<DisableMethods xmlns=\"urn:internalvim25\">"));
    for heard in heard.iter().filter(|heard| heard.head.starts_with("POST")) {
        assert!(heard.head.contains("SOAPAction: \"urn:vim25/8.0.1.0\"\r\n"), "{}", heard.head);
    }
    assert!(sent("CurrentTime").head.contains(&format!("Cookie: vmware_soap_session={COOKIE}\r\n")));
}

#[test]
fn each_fault_has_its_kind_and_tells_its_text() {
    for (kind, names) in [
        (ErrorKind::Unauthorised, &["InvalidLogin", "NoPermission"][..]),
        (ErrorKind::ObjectNotFound, &["ManagedObjectNotFound", "NotFound"]),
        (ErrorKind::NotFound, &["FileNotFound", "NoDiskFound"]),
        (ErrorKind::Locked, &["FileLocked"]),
        (ErrorKind::AccessDenied, &["CannotAccessFile", "CannotAccessVmDisk"]),
        (ErrorKind::Io, &["FileFault"]),
        (ErrorKind::InvalidArgument, &["InvalidArgument", "InvalidRequest"]),
        (
            ErrorKind::Busy,
            &[
                "InvalidState",
                "InvalidPowerState",
                "MethodDisabled",
                "MethodAlreadyDisabledFault",
                "ResourceInUse",
            ],
        ),
        (ErrorKind::NotSupported, &["NotSupported", "MethodNotFound", "RestrictedVersion"]),
        (ErrorKind::DiskFull, &["NoDiskSpace"]),
        (ErrorKind::OutOfMemory, &["InsufficientResourcesFault"]),
        (
            ErrorKind::HostUnavailable,
            &["HostNotConnected", "HostCommunication", "HostConnectFault", "InvalidHostState"],
        ),
        (ErrorKind::Cancelled, &["RequestCanceled"]),
        (ErrorKind::ServerFault, &["SystemError", "RuntimeFault", "NobodyKnowsThisFault"]),
    ] {
        for name in names {
            let e = ticket_from(named(name)).unwrap_err();
            assert_eq!(e.kind(), kind, "{e}");
            assert!(e.to_string().contains(&format!("{name}: \"the text of {name}\"")), "{e}");
        }
    }
}

#[test]
fn a_fault_tells_privilege_and_object() {
    let detail = "<NoPermissionFault xmlns=\"urn:vim25\" xsi:type=\"NoPermission\"><object type=\"VirtualMachine\">vm-1</object>\
                  <privilegeId>VirtualMachine.Provisioning.GetVmFiles</privilegeId></NoPermissionFault>";
    let e = ticket_from(Reply::Fault("No.".into(), detail.into())).unwrap_err().to_string();
    for part in ["\"No.\"", "VirtualMachine.Provisioning.GetVmFiles", "VirtualMachine vm-1", "NfcGetVmFiles"]
    {
        assert!(e.contains(part), "{e}");
    }
}

#[test]
fn answers_that_are_not_what_they_should_be_are_refused() {
    let good = envelope(&response("NfcGetVmFiles", &soap_peer::ticket()));
    let bombs =
        (0..9).map(|n| format!("<!ENTITY e{} \"&e{n};&e{n};&e{n};&e{n};\">", n + 1)).collect::<String>();
    let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let spaces = |count: usize| (0..count).map(|n| format!(" xmlns:n{n}=\"urn:{n}\"")).collect::<String>();
    let cases: Vec<(&str, String)> = vec![
        ("a bomb of entities", format!("<!DOCTYPE a [<!ENTITY e0 \"x\">{bombs}]><a>&e9;</a>")),
        ("an entity of outside", "<!DOCTYPE a [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><a>&e;</a>".into()),
        (
            "a DTD in front",
            format!("<!DOCTYPE x>{}", good.replace("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", "")),
        ),
        ("an unknown entity", good.replace("902", "&port;")),
        ("deep nesting", envelope(&deep(100_000))),
        ("deep nesting without end", envelope(&"<a>".repeat(2_000_000))),
        ("signs without end", "<".repeat(7 << 20)),
        ("attributes without end", format!("<a{}>", " b=\"\"".repeat(1 << 20))),
        ("namespaces without end", format!("<a{}/>", spaces(10_000))),
        ("namespaces in each other", format!("<a{}>", spaces(60)).repeat(400)),
        ("no XML", "Internal error".into()),
        ("nothing", String::new()),
        ("only spaces", " ".repeat(1000)),
        ("UTF-16", "\u{0}<\u{0}a".repeat(10)),
        ("another element", "<html xmlns=\"http://www.w3.org/1999/xhtml\"><body/></html>".into()),
        (
            "SOAP 1.2",
            good.replace(
                "http://schemas.xmlsoap.org/soap/envelope/",
                "http://www.w3.org/2003/05/soap-envelope",
            ),
        ),
        ("the namespace of nobody", good.replace("urn:vim25", "urn:vim26")),
        ("no namespace", good.replace(" xmlns=\"urn:vim25\"", "")),
        ("the response to something else", good.replace("NfcGetVmFilesResponse", "NfcPutVmFilesResponse")),
        ("two responses", envelope(&response("NfcGetVmFiles", &soap_peer::ticket()).repeat(2))),
        ("two bodies", good.replace("</soapenv:Envelope>", "<soapenv:Body/></soapenv:Envelope>")),
        ("an empty body", envelope("")),
        ("no returnval", envelope(&response("NfcGetVmFiles", ""))),
        ("two returnvals", envelope(&response("NfcGetVmFiles", &soap_peer::ticket().repeat(2)))),
        ("two ids", good.replace("<sessionId>", "<sessionId>x</sessionId><sessionId>")),
        ("two ports", good.replace("<port>", "<port>903</port><port>")),
        ("no id", good.replace(&format!("<sessionId>{TICKET}</sessionId>"), "")),
        ("an id of two lines", good.replace(TICKET, "a\r\nb")),
        ("a port that is none", good.replace("902", "70000")),
        ("a port that is a word", good.replace("902", "nine")),
        ("a host with a blank", good.replace("esx", "e x")),
    ];
    for (what, body) in cases {
        is_refused(what, xml(body), ErrorKind::Protocol);
    }
    is_refused(
        "bytes that are no text",
        Reply::Raw([&http("200 OK", "text/xml", "<a>")[..], b"\xff"].concat()),
        ErrorKind::Protocol,
    );
    ticket_from(xml(good)).unwrap();
}

#[test]
fn prefixes_order_and_unknown_elements_do_not_matter() {
    let odd = "\u{feff}<e:Envelope xmlns:e=\"http://schemas.xmlsoap.org/soap/envelope/\"><e:Header><x:y xmlns:x=\"urn:x\">z</x:y></e:Header>\
         <e:Body><q:NfcGetVmFilesResponse xmlns:q=\"urn:vim25\"><q:returnval><!-- c --><new xmlns=\"urn:vim25\">1<port>7</port></new>\
         <q:sessionId>52<![CDATA[-i]]>&#100;</q:sessionId><port>8</port><q:service>nfc</q:service><q:port> 902\n</q:port>\
         </q:returnval></q:NfcGetVmFilesResponse></e:Body></e:Envelope>\n";
    let peer = liar("NfcGetVmFiles", move |_| xml(odd));
    let ticket = open(&peer).ticket_for_files(&machine()).unwrap();
    assert_eq!((ticket.id.expose_text(), ticket.port, ticket.service.as_str()), (Some("52-id"), 902, "nfc"));
    assert_eq!((ticket.host, ticket.identity), (None, None));
}

#[test]
fn an_answer_that_is_cut_anywhere_is_an_error() {
    let body = envelope(&response("NfcGetVmFiles", &soap_peer::ticket()));
    let whole = http("200 OK", "text/xml", &body);
    let at = Arc::new(AtomicUsize::new(0));
    let (cut, said) = (at.clone(), whole.clone());
    let peer = liar("NfcGetVmFiles", move |_| Reply::Last(said[..cut.load(Ordering::SeqCst)].to_vec()));
    let session = open(&peer);
    for cut in 0..whole.len() {
        at.store(cut, Ordering::SeqCst);
        let e = session.ticket_for_files(&machine()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ConnectionLost, "cut at {cut}: {e}");
    }
    at.store(whole.len(), Ordering::SeqCst);
    session.ticket_for_files(&machine()).unwrap();
    // The same with a length that fits, so that only the document is cut.
    for cut in (0..body.len()).step_by(7) {
        let e = ticket_from(xml(&body[..cut])).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Protocol, "cut at {cut}: {e}");
    }
}

#[test]
fn what_is_no_vsphere_server_is_not_called_a_missing_file_or_permission() {
    let page = "Server: some-web-server\r\n";
    for status in ["404 Not Found", "403 Forbidden", "401 Unauthorized"] {
        let answer = http(status, "text/html", "<h1>nothing here</h1>");
        let text = String::from_utf8(answer).unwrap().replacen("\r\n", &format!("\r\n{page}"), 1);
        let reply = Reply::Raw(text.into_bytes());
        let peer = liar("RetrieveServiceContent", move |_| reply.clone());
        let e = peer.open(user(), PATIENT, Log::none()).map(drop).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ServerNotFound, "{e}");
        assert!(e.to_string().contains("nothing here") && e.to_string().contains("no vSphere server"), "{e}");
        let named = e.to_string().contains("some-web-server");
        assert_eq!(named, status.starts_with("404"), "{e}");
    }
}

#[test]
fn what_is_no_soap_at_all_is_told_with_its_beginning() {
    let page = "<html><head><title>503</title></head><body>Down for   maintenance</body></html>";
    for (status, kind) in [
        ("200 OK", ErrorKind::Protocol),
        ("500 Internal Server Error", ErrorKind::Protocol),
        ("401 Unauthorized", ErrorKind::Unauthorised),
        ("403 Forbidden", ErrorKind::Unauthorised),
        ("404 Not Found", ErrorKind::ServerNotFound),
        ("503 Service Unavailable", ErrorKind::HostUnavailable),
    ] {
        let e = ticket_from(Reply::Raw(http(status, "text/html; charset=utf-8", page))).unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains("Down for maintenance"), "{e}");
    }
    let json = Reply::Raw(http("200 OK", "application/json", "{\"a\": 1}"));
    assert!(ticket_from(json).unwrap_err().to_string().contains("application/json"));
    let fault_as_success = http(
        "200 OK",
        "text/xml",
        &envelope("<soapenv:Fault><faultstring>odd</faultstring></soapenv:Fault>"),
    );
    is_refused("a fault with status 200", Reply::Raw(fault_as_success), ErrorKind::ServerFault);
    let good = envelope(&response("NfcGetVmFiles", &soap_peer::ticket()));
    is_refused(
        "a response with status 500",
        Reply::Raw(http("500 Oops", "text/xml", &good)),
        ErrorKind::Protocol,
    );
}

#[test]
fn redirections_are_not_followed() {
    let peer = Peer::new(|_| {
        let words =
            "HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/sdk\r\nContent-Length: 0\r\n\r\n";
        Reply::Raw(words.into())
    });
    let e = peer.open(user(), PATIENT, Log::none()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Protocol);
    assert!(e.to_string().contains("https://elsewhere.example/sdk"), "{e}");
    assert_eq!(peer.calls("Login"), 0, "no password goes there");
}

#[test]
fn what_never_ends_is_ended_here() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n".to_vec();
    let body = [&head[..], b"\r\n"].concat();
    is_refused("headers without end", Reply::Endless(head, b"X-Y: z\r\n".to_vec()), ErrorKind::Protocol);
    is_refused("a body without end", Reply::Endless(body.clone(), vec![b'x'; 4096]), ErrorKind::Protocol);
    let times = Times { request: IMPATIENT, ..PATIENT };
    for reply in [
        Reply::Drip([&body[..], &[b' '; 100_000]].concat(), Duration::from_millis(1)),
        Reply::Drip(vec![b'\r'; 100_000], Duration::from_millis(1)),
        Reply::Silence,
    ] {
        let peer = liar("NfcGetVmFiles", move |_| reply.clone());
        let session = peer.open(user(), times, Log::none()).unwrap();
        let start = Instant::now();
        assert_eq!(session.ticket_for_files(&machine()).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= IMPATIENT && start.elapsed() < BOUNDED, "{:?}", start.elapsed());
    }
}

#[test]
fn a_server_may_be_silent_at_every_step_and_at_the_farewell() {
    for method in ["/sdk/vimServiceVersions.xml", "RetrieveServiceContent", "Login"] {
        let peer = liar(method, |_| Reply::Silence);
        let start = Instant::now();
        let e = peer.open(user(), Times { request: IMPATIENT, ..PATIENT }, Log::none()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TimedOut, "{method}: {e}");
        assert!(start.elapsed() < BOUNDED);
    }
    let peer = liar("Logout", |_| Reply::Silence);
    let session = peer.open(user(), Times { farewell: IMPATIENT, ..PATIENT }, Log::none()).unwrap();
    let start = Instant::now();
    assert_eq!(session.close().unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(start.elapsed() >= IMPATIENT && start.elapsed() < BOUNDED, "{:?}", start.elapsed());
}

#[test]
fn connections_that_the_server_closes_after_each_answer_are_made_again() {
    let peer = Peer::new(|heard| match usual(heard) {
        Reply::Response(body) => Reply::Last(http("200 OK", "text/xml", &envelope(&body))),
        Reply::Raw(bytes) => Reply::Last(bytes),
        other => other,
    });
    let session = open(&peer);
    for _ in 0..20 {
        session.keep_alive().unwrap();
    }
    session.close().unwrap();
    assert_eq!(peer.connections(), peer.heard().len());
}

#[test]
fn a_busy_server_is_asked_again_until_time_is_up() {
    let left = AtomicUsize::new(3);
    let peer = liar("NfcGetVmFiles", move |heard| {
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => named("TaskInProgress"),
            Err(_) => usual(heard),
        }
    });
    open(&peer).ticket_for_files(&machine()).unwrap();
    assert_eq!(peer.calls("NfcGetVmFiles"), 4);

    let peer = liar("NfcGetVmFiles", |_| named("TaskInProgress"));
    let session = peer.open(user(), Times { request: IMPATIENT, ..PATIENT }, Log::none()).unwrap();
    assert_eq!(session.ticket_for_files(&machine()).unwrap_err().kind(), ErrorKind::Busy);
    assert!(peer.calls("NfcGetVmFiles") <= 4);
}

#[test]
fn a_session_that_is_never_known_is_logged_in_again_once_per_call() {
    let peer = liar("CurrentTime", |_| named("NotAuthenticated"));
    let session = open(&peer);
    assert_eq!(session.keep_alive().unwrap_err().kind(), ErrorKind::SessionInvalid);
    assert_eq!((peer.calls("Login"), peer.calls("CurrentTime")), (2, 2));
    let logins: Vec<Heard> = peer.heard().into_iter().filter(|heard| heard.method == "Login").collect();
    assert!(!logins[1].head.contains("Cookie"), "a session that is logged in refuses to be logged in");
}

#[test]
fn a_password_that_was_refused_once_is_not_tried_again() {
    let logins = AtomicUsize::new(0);
    let peer = Peer::new(move |heard| match heard.method.as_str() {
        "Login" if logins.fetch_add(1, Ordering::SeqCst) > 0 => named("InvalidLogin"),
        "CurrentTime" => named("NotAuthenticated"),
        _ => usual(heard),
    });
    let session = open(&peer);
    for _ in 0..5 {
        assert_eq!(session.keep_alive().unwrap_err().kind(), ErrorKind::Unauthorised);
    }
    assert_eq!(peer.calls("Login"), 2, "more would lock the account");
}

#[test]
fn the_cookie_is_that_of_the_login() {
    // Some servers give it with the first answer, and the login goes with it.
    let peer = Peer::new(|heard| {
        let text = match usual(heard) {
            Reply::Response(body) if heard.method == "RetrieveServiceContent" => envelope(&body),
            _ if heard.method == "Login" => {
                envelope(&response("Login", "<returnval><key>k</key></returnval>"))
            }
            other => return other,
        };
        let early = heard.method == "RetrieveServiceContent";
        let cookie = if early {
            "Set-Cookie: a=b\r\nSet-Cookie: vmware_soap_session=\"early\"; Path=/\r\n"
        } else {
            ""
        };
        Reply::Raw(
            format!(
                "HTTP/1.1 200 OK\r\n{cookie}Content-Type: text/xml\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            )
            .into(),
        )
    });
    let session = open(&peer);
    assert_eq!(session.cookie().expose_text(), Some("\"early\""));
    let login = peer.heard().into_iter().find(|heard| heard.method == "Login").unwrap();
    assert!(login.head.contains("Cookie: vmware_soap_session=\"early\"\r\n"), "{}", login.head);

    // A cookie that comes with a later answer is not of this session.
    let peer = liar("CurrentTime", |heard| {
        let Reply::Response(body) = usual(heard) else { panic!("a response") };
        let text = envelope(&body);
        Reply::Raw(
            format!(
                "HTTP/1.1 200 OK\r\nSet-Cookie: vmware_soap_session=late\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            )
            .into(),
        )
    });
    let session = open(&peer);
    session.keep_alive().unwrap();
    assert_eq!(session.cookie().expose_text(), Some(COOKIE));

    // Without one there is no session.
    let peer = liar("Login", |_| Reply::Response(response("Login", "<returnval><key>k</key></returnval>")));
    assert_eq!(peer.open(user(), PATIENT, Log::none()).unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn a_cookie_without_its_quotes_is_tried_with_them() {
    let peer = Peer::new(|heard| match heard.head.contains("vmware_soap_session=\"52-x\"\r\n") {
        false if heard.method == "RetrievePropertiesEx" => named("NotAuthenticated"),
        _ => usual(heard),
    });
    for text in ["52-x", "vmware_soap_session=52-x; Path=/", "\"52-x\""] {
        let session = peer.open(Login::Cookie(Secret::from(text.to_owned())), PATIENT, Log::none()).unwrap();
        assert_eq!(session.cookie().expose_text(), Some("\"52-x\""));
        session.close().unwrap();
    }
    assert_eq!((peer.calls("Login"), peer.calls("Logout")), (0, 0));
    let wrong = Login::Cookie(Secret::from("52-y".to_owned()));
    assert_eq!(peer.open(wrong, PATIENT, Log::none()).unwrap_err().kind(), ErrorKind::SessionInvalid);
}

#[test]
fn versions_are_agreed_on_or_assumed() {
    for (list, version) in [
        (Reply::Raw(http("404 Not Found", "text/html", "no")), "6.5"),
        (Reply::Raw(http("200 OK", "text/html", "<html>login</html>")), "6.5"),
        (Reply::Raw(http("200 OK", "text/xml", "<a")), "6.5"),
        (
            Reply::Raw(http("200 OK", "text/xml", &soap_peer::VERSIONS.replace("8.0.1.0", "9.1.0.0"))),
            "7.0.3.2",
        ),
        (
            Reply::Raw(http("200 OK", "text/xml", &soap_peer::VERSIONS.replace("8.0.1.0", "8.0\"&gt;"))),
            "7.0.3.2",
        ),
    ] {
        let peer = liar("/sdk/vimServiceVersions.xml", move |_| list.clone());
        open(&peer);
        let login = peer.heard().into_iter().find(|heard| heard.method == "Login").unwrap();
        assert!(login.head.contains(&format!("SOAPAction: \"urn:vim25/{version}\"\r\n")), "{}", login.head);
    }
}

#[test]
fn tickets_come_from_the_usual_object_where_the_server_does_not_tell() {
    for (told, api, expected) in [
        (named("MethodNotFound"), "VirtualCenter", "nfcService"),
        (Reply::Response(response("RetrieveInternalContent", "<returnval/>")), "VirtualCenter", "nfcService"),
        (named("MethodNotFound"), "HostAgent", "ha-nfc-service"),
    ] {
        let peer = Peer::new(move |heard| match heard.method.as_str() {
            "RetrieveInternalContent" => told.clone(),
            "RetrieveServiceContent" => Reply::Response(response(
                "RetrieveServiceContent",
                &soap_peer::CONTENT.replace("VirtualCenter", api),
            )),
            _ => usual(heard),
        });
        let session = open(&peer);
        session.ticket_for_files(&machine()).unwrap();
        session.ticket_for_files(&machine()).unwrap();
        let asked = peer.heard().into_iter().find(|heard| heard.method == "NfcGetVmFiles").unwrap();
        assert!(
            asked.body.contains(&format!("<_this type=\"NfcService\">{expected}</_this>")),
            "{}",
            asked.body
        );
        assert_eq!(peer.calls("RetrieveInternalContent"), 1);
    }
}

fn part(token: &str, sets: &str) -> String {
    format!("<returnval>{token}<objects><obj type=\"VirtualMachine\">vm-1</obj>{sets}</objects></returnval>")
}

const DISK: &str = "<propSet><name>config.hardware.device</name><val><VirtualDevice xsi:type=\"VirtualDisk\"><key>1</key>\
                    <capacityInKB>1</capacityInKB></VirtualDevice></val></propSet>";

#[test]
fn properties_may_come_in_parts_but_not_without_end() {
    let peer = Peer::new(|heard| match heard.method.as_str() {
        "RetrievePropertiesEx" => Reply::Response(response(
            &heard.method,
            &part("<token>1&lt;</token>", "<propSet><name>name</name><val>n</val></propSet>"),
        )),
        "ContinueRetrievePropertiesEx" => {
            assert!(heard.body.contains("<token>1&lt;</token>"), "{}", heard.body);
            Reply::Response(response(&heard.method, &part("", DISK)))
        }
        _ => usual(heard),
    });
    let hardware = open(&peer).hardware(&machine(), None).unwrap();
    assert_eq!((hardware.name.as_str(), hardware.disks[0].capacity), ("n", 1024));

    let peer = Peer::new(|heard| match heard.method.as_str() {
        "RetrievePropertiesEx" | "ContinueRetrievePropertiesEx" => {
            Reply::Response(response(&heard.method, &part("<token>1</token>", "")))
        }
        _ => usual(heard),
    });
    assert_eq!(open(&peer).hardware(&machine(), None).unwrap_err().kind(), ErrorKind::Protocol);
    assert!(peer.calls("ContinueRetrievePropertiesEx") < 1000);
}

#[test]
fn properties_that_are_withheld_say_why() {
    let missing = "<missingSet><path>config.hardware.device</path><fault><fault xsi:type=\"NoPermission\">\
                   <object type=\"VirtualMachine\">vm-1</object><privilegeId>System.Read</privilegeId></fault>\
                   <localizedMessage>not yours</localizedMessage></fault></missingSet>";
    for (inside, kind, words) in [
        (part("", missing), ErrorKind::Unauthorised, "System.Read"),
        (part("", ""), ErrorKind::Protocol, "config.hardware.device"),
        (String::new(), ErrorKind::Protocol, "config.hardware.device"),
        (part("", DISK).replace("vm-1", "vm-2"), ErrorKind::Protocol, "not asked for"),
        (part("", DISK).replace("<key>1</key>", ""), ErrorKind::Protocol, "without a key"),
    ] {
        let peer =
            liar("RetrievePropertiesEx", move |heard| Reply::Response(response(&heard.method, &inside)));
        let e = open(&peer).hardware(&machine(), None).unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(words), "{e}");
    }
}

/// Makes every call, whatever comes of them; the errors in words.
fn everything(session: &Session) -> String {
    let (machine, other) = (machine(), Moref::new("Datastore", "datastore-1"));
    let snapshot = Moref::snapshot("snapshot-1");
    let spec = |text| MachineSpec::parse(text).unwrap();
    let said = [
        session.keep_alive().err(),
        session.ticket_for_files(&machine).err(),
        session.ticket_for_disk(&machine, 1, Some(&other), true).err(),
        session.ticket_for_disk(&machine, 1, None, false).err(),
        session.hardware(&machine, None).err(),
        session.hardware(&machine, snapshot.as_ref()).err(),
        session.disable_relocation(&machine, "me").err(),
        session.enable_relocation(&machine, "me").err(),
        session.datacenter_path(&machine).err(),
        session.datastore_name(&other).err(),
        session.first_class_disk("1", &other, None).err(),
        session.first_class_disk("1", &other, Some("2")).err(),
        session.machine(&spec("564d5eae-1111-2222-3333-444455556666")).err(),
        session.machine(&spec("dc/vm/x")).err(),
        session.machine(&spec("a/a.vmx?dcPath=dc&dsName=ds")).err(),
        session.close().err(),
    ];
    format!("{session:?} {said:?} {:?}", said.iter().flatten().map(Error::to_string).collect::<Vec<_>>())
}

/// Every way in which a server can say something, with the words in it.
fn repeating(words: &str) -> Vec<Reply> {
    let escaped =
        words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let line = words.replace(['\r', '\n'], " ");
    let cookie = COOKIE.trim_matches('"');
    let name = if words.contains(cookie) { cookie.replace("52", "a52") } else { "a".to_owned() };
    let fault = |name: &str| {
        format!(
            "<{name}Fault xmlns=\"urn:vim25\" xsi:type=\"{escaped}\"><object type=\"{escaped}\">{escaped}</object>\
             <privilegeId>{escaped}</privilegeId><sourceId>{escaped}</sourceId><file>{escaped}</file></{name}Fault>"
        )
    };
    let numbers: String = words.bytes().map(|b| format!("&#{b};")).collect();
    let returned =
        ["port", "key", "host", "service", "sslThumbprint", "sessionId", "obj", "userName", "token"]
            .map(|field| format!("<{field}>{escaped}</{field}>"))
            .concat();
    vec![
        Reply::Fault(escaped.clone(), fault("NoPermission")),
        Reply::Fault(numbers, fault("MethodAlreadyDisabled")),
        Reply::Fault(format!("{}{escaped}", "x".repeat(290)), fault(&name)),
        Reply::Raw(http("200 OK", "text/html", words)),
        Reply::Raw(http("200 OK", &line, words)),
        Reply::Raw(http(&format!("503 {line}"), "text/plain", &format!("{words}{}", "x".repeat(70_000)))),
        Reply::Raw(
            format!("HTTP/1.1 302 {line}\r\nLocation: https://x/{line}\r\nContent-Length: 0\r\n\r\n").into(),
        ),
        Reply::Raw(http("200 OK", "text/xml", words)),
        Reply::Raw(http("200 OK", "text/xml", &format!("<{name}></x>"))),
        Reply::Raw(http("200 OK", "text/xml", &envelope(&format!("<a xmlns=\"{escaped}\"/>")))),
        Reply::Raw(http("200 OK", "text/xml", &envelope(&response("X", &returned)))),
        Reply::Response(returned),
    ]
}

#[test]
fn a_server_that_repeats_what_it_heard_makes_us_say_no_secret() {
    for way in 0..repeating("").len() {
        let repeat = move |heard: &Heard, and: &str| {
            let words = format!("{} {} {and}", heard.head, heard.body);
            match repeating(&words).swap_remove(way) {
                Reply::Response(inside) => {
                    Reply::Response(response(&heard.method, &format!("<returnval>{inside}</returnval>")))
                }
                other => other,
            }
        };
        let (lines, tickets) = (Lines::default(), AtomicUsize::new(0));
        let peer = Peer::new(move |heard| match heard.method.as_str() {
            "/sdk/vimServiceVersions.xml"
            | "RetrieveServiceContent"
            | "Login"
            | "RetrieveInternalContent" => usual(heard),
            "NfcGetVmFiles" if tickets.fetch_add(1, Ordering::SeqCst) == 0 => usual(heard),
            _ => repeat(heard, &format!("{TICKET} {COOKIE} {PASSWORD}")),
        });
        let session = peer.open(user(), PATIENT, lines.log()).unwrap();
        let ticket = session.ticket_for_files(&machine()).unwrap();
        let told = format!("{ticket:?} {}", everything(&session));
        assert!(!told.contains("canary"), "way {way}: {told}");
        for method in
            ["/sdk/vimServiceVersions.xml", "RetrieveServiceContent", "Login", "RetrievePropertiesEx"]
        {
            let peer = liar(method, move |heard| repeat(heard, ""));
            for login in [user(), Login::Cookie(Secret::from(COOKIE.to_owned()))] {
                let told = format!("{login:?} {:?}", peer.open(login.clone(), PATIENT, lines.log()).err());
                assert!(!told.contains("canary"), "way {way}, {method}: {told}");
            }
        }
        assert!(!lines.text().contains("canary"), "way {way}: {}", lines.text());
    }
}

#[test]
fn the_words_of_a_server_that_greets_with_the_password_are_left_out() {
    let lines = Lines::default();
    let peer = liar("RetrieveServiceContent", |_| {
        let content =
            soap_peer::CONTENT.replace("VMware vCenter Server 8.0.1 build-1", "pass&lt;&amp;&gt;word-canary");
        Reply::Response(response("RetrieveServiceContent", &content))
    });
    peer.open(user(), PATIENT, lines.log()).unwrap();
    assert!(!lines.text().contains("canary") && lines.count("repeat a secret") > 0, "{}", lines.text());
}

/// Shows a certificate without looking at it, which the usual way of rustls would do.
#[derive(Debug)]
struct Unread(Arc<CertifiedKey>);

impl ResolvesServerCert for Unread {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// What openssl makes with these steps, in a folder of its own.
fn identity(steps: &[&str]) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let folder = common::scratch::folder();
    for step in steps {
        tools::check(Command::new("openssl").args(step.split(' ')).current_dir(folder.path()));
    }
    let file = |name| folder.path().join(name);
    (CertificateDer::from_pem_file(file("cert")).unwrap(), PrivateKeyDer::from_pem_file(file("key")).unwrap())
}

#[test]
fn certificates_that_no_parser_likes_are_taken_by_their_thumbprint_alone() {
    requires!("openssl");
    let key = "-nodes -newkey rsa:2048 -keyout key -subj /CN=localhost";
    let request = format!("req -new {key} -out req");
    let plain = format!("req -x509 {key} -days 30 -out cert");
    let huge = format!("{plain} -addext subjectAltName=IP:127.0.0.1 -set_serial 0x7f{}", "ab".repeat(60));
    let cases: [(&str, &[&str]); 3] = [
        ("version 1", &[&request, "x509 -req -days 30 -in req -signkey key -out cert"]),
        ("without names", &[&plain]),
        ("with a huge serial number", &[&huge]),
    ];
    for (what, steps) in cases {
        let (certificate, key) = identity(steps);
        let thumbprint: String = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &certificate)
            .as_ref()
            .iter()
            .map(|b| format!("{b:02X}:"))
            .collect();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let shown = CertifiedKey::new(vec![certificate.clone()], any_supported_type(&key).unwrap());
            let config =
                ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::new(Unread(Arc::new(shown))));
            let peer = Peer::with_tls(config, usual);
            let open = |thumbprint: Option<&str>| {
                let tls = TlsSettings { thumbprint: thumbprint.map(str::to_owned), ..TlsSettings::default() };
                let server = Server { host: "127.0.0.1".into(), port: peer.port, tls };
                Session::open(server, user(), PATIENT, Log::none())
            };
            let session =
                open(Some(thumbprint.trim_end_matches(':'))).unwrap_or_else(|e| panic!("{what}: {e}"));
            session.ticket_for_files(&machine()).unwrap();
            session.close().unwrap();
            let heard = peer.heard().len();
            assert_eq!(open(None).unwrap_err().kind(), ErrorKind::CertificateRefused, "{what}");
            assert_eq!(
                open(Some(&"00".repeat(20))).unwrap_err().kind(),
                ErrorKind::CertificateRefused,
                "{what}"
            );
            assert_eq!(peer.heard().len(), heard, "nothing is said to a wrong server");
        }
    }
}
