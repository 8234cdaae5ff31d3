//! A SOAP server inside the test, which may lie.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Log;
use vixDiskLib::net::http::Dial;
use vixDiskLib::net::socket::Address;
use vixDiskLib::net::socket::Socket;
use vixDiskLib::net::stream::Stream;
use vixDiskLib::net::vim::Login;
use vixDiskLib::net::vim::Session;
use vixDiskLib::net::vim::Times;

/// A request.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What is called, or for what is no call the target.
    pub method: String,
    /// The head as text.
    pub head: String,
    /// The body as text.
    pub body: String,
}

/// What is done about it.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An envelope with this in its body, status 200.
    Response(String),
    /// An envelope with a fault, whose detail is this, status 500.
    Fault(String, String),
    /// These bytes; then the connection goes on.
    Raw(Vec<u8>),
    /// These bytes; then the connection is closed.
    Last(Vec<u8>),
    /// These bytes once, then those again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, one every so often.
    Drip(Vec<u8>, Duration),
    /// Nothing, until the client goes.
    Silence,
}

type Answer = dyn Fn(&Heard) -> Reply + Send + Sync;

/// A running server. Its threads end with their connections.
pub struct Peer {
    /// Where it listens.
    pub port: u16,
    heard: Arc<Mutex<Vec<Heard>>>,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    /// A server without TLS.
    pub fn new(answer: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(answer))
    }

    /// A server with TLS.
    pub fn with_tls(config: ServerConfig, answer: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Some(Arc::new(config)), Arc::new(answer))
    }

    fn start(tls: Option<Arc<ServerConfig>>, answer: Arc<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let peer = Self { port, heard: Arc::default(), connections: Arc::default() };
        let (heard, connections) = (peer.heard.clone(), peer.connections.clone());
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (answer, heard, tls) = (answer.clone(), heard.clone(), tls.clone());
                std::thread::spawn(move || {
                    let _ = socket.set_nodelay(true);
                    match tls {
                        None => serve(socket, &*answer, &heard),
                        Some(tls) => {
                            let tls = ServerConnection::new(tls).expect("a TLS connection");
                            serve(StreamOwned::new(tls, socket), &*answer, &heard)
                        }
                    }
                });
            }
        });
        peer
    }

    /// What it has heard.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("what was heard").clone()
    }

    /// How often this was called.
    pub fn calls(&self, method: &str) -> usize {
        self.heard().iter().filter(|heard| heard.method == method).count()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// A session over plain TCP.
    pub fn open(&self, login: Login, times: Times, log: Log) -> Result<Session> {
        Session::open_with(Box::new(Plain(self.port)), login, times, log)
    }
}

/// Plain TCP to a port of this machine.
#[derive(Debug)]
pub struct Plain(pub u16);

impl Dial for Plain {
    fn dial(&self, until: Instant) -> Result<Box<dyn Stream>> {
        let address = Address::Tcp { host: "127.0.0.1".into(), port: self.0 };
        Ok(Box::new(Socket::connect(&address, until)?))
    }

    fn host(&self) -> String {
        "peer".into()
    }
}

fn serve<S: Read + Write>(mut stream: S, answer: &Answer, all: &Mutex<Vec<Heard>>) -> std::io::Result<()> {
    while let Some(heard) = hear(&mut stream)? {
        all.lock().expect("what was heard").push(heard.clone());
        match answer(&heard) {
            Reply::Response(body) => {
                stream.write_all(&http("200 OK", "text/xml; charset=utf-8", &envelope(&body)))?;
            }
            Reply::Fault(text, detail) => stream.write_all(&fault(&text, &detail))?,
            Reply::Raw(bytes) => stream.write_all(&bytes)?,
            Reply::Last(bytes) => {
                stream.write_all(&bytes)?;
                return stream.flush();
            }
            Reply::Endless(first, more) => {
                stream.write_all(&first)?;
                loop {
                    stream.write_all(&more)?;
                }
            }
            Reply::Drip(bytes, pace) => {
                for byte in bytes {
                    stream.write_all(&[byte])?;
                    stream.flush()?;
                    std::thread::sleep(pace);
                }
            }
            Reply::Silence => return stream.read(&mut [0]).map(drop),
        }
        stream.flush()?;
    }
    Ok(())
}

fn hear(stream: &mut impl Read) -> std::io::Result<Option<Heard>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if !more(stream, &mut bytes)? {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
    while bytes.len() < head + length.unwrap_or(0) {
        if !more(stream, &mut bytes)? {
            return Ok(None);
        }
    }
    let body = String::from_utf8_lossy(&bytes[head..]).into_owned();
    let called = body.split_once("soapenv:Body><").and_then(|(_, rest)| rest.split_once(' '));
    let target = text.split(' ').nth(1).unwrap_or_default();
    let method = called.map_or(target, |(method, _)| method).to_owned();
    Ok(Some(Heard { method, head: text, body }))
}

fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut buf = [0; 4096];
    let count = stream.read(&mut buf)?;
    bytes.extend_from_slice(&buf[..count]);
    Ok(count > 0)
}

/// A whole answer.
pub fn http(status: &str, kind: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// An envelope as real servers write it.
pub fn envelope(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n\
         <soapenv:Body>\n{body}\n</soapenv:Body>\n</soapenv:Envelope>"
    )
}

/// A whole answer with a fault.
pub fn fault(text: &str, detail: &str) -> Vec<u8> {
    let fault = format!(
        "<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>{text}</faultstring><detail>{detail}</detail></soapenv:Fault>"
    );
    http("500 Internal Server Error", "text/xml; charset=utf-8", &envelope(&fault))
}

/// A fault of this name.
pub fn named(name: &str) -> Reply {
    Reply::Fault(
        format!("the text of {name}"),
        format!("<{name}Fault xmlns=\"urn:vim25\" xsi:type=\"{name}\"></{name}Fault>"),
    )
}

/// A response of this method with this inside.
pub fn response(method: &str, inside: &str) -> String {
    format!("<{method}Response xmlns=\"urn:vim25\">{inside}</{method}Response>")
}

/// The cookie that [`usual`] gives, as real servers do in quotes.
pub const COOKIE: &str = "\"52cookiecanary\"";

/// The id of the tickets that [`usual`] gives.
pub const TICKET: &str = "52ticketcanary";

/// What a vCenter answers to each call.
pub fn usual(heard: &Heard) -> Reply {
    let method = heard.method.as_str();
    let inside = match method {
        "/sdk/vimServiceVersions.xml" => return Reply::Raw(http("200 OK", "text/xml", VERSIONS)),
        "Login" => {
            let text =
                envelope(&response(method, "<returnval><key>52key</key><userName>u</userName></returnval>"));
            let head = format!(
                "HTTP/1.1 200 OK\r\nSet-Cookie: vmware_soap_session={COOKIE}; Path=/; HttpOnly; Secure;\r\n\
                 Content-Type: text/xml\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            return Reply::Raw(head.into_bytes());
        }
        "RetrieveServiceContent" => CONTENT.to_owned(),
        "RetrieveInternalContent" => {
            "<returnval><nfcService type=\"NfcService\">nfcService</nfcService></returnval>".to_owned()
        }
        "CurrentTime" => "<returnval>2026-01-01T00:00:00Z</returnval>".to_owned(),
        "NfcGetVmFiles" | "NfcRandomAccessOpenDisk" | "NfcRandomAccessOpenReadonly" => ticket(),
        "FindByUuid" | "FindByDatastorePath" => {
            "<returnval type=\"VirtualMachine\">vm-1</returnval>".to_owned()
        }
        "FindByInventoryPath" => "<returnval type=\"Datacenter\">datacenter-1</returnval>".to_owned(),
        "RetrievePropertiesEx" => properties(&heard.body),
        "RetrieveVStorageObject" => {
            "<returnval><config><backing><filePath>[ds] fcd/1.vmdk</filePath></backing></config></returnval>"
                .to_owned()
        }
        "Logout" | "DisableMethods" | "EnableMethods" => String::new(),
        _ => return named("MethodNotFound"),
    };
    Reply::Response(response(method, &inside))
}

/// A ticket's content.
pub fn ticket() -> String {
    format!(
        "<returnval><host>esx</host><port>902</port><sslThumbprint>AA:BB</sslThumbprint><service>vpxa-nfc</service>\
         <serviceVersion>1.1</serviceVersion><sessionId>{TICKET}</sessionId></returnval>"
    )
}

/// The list of versions.
pub const VERSIONS: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><namespaces version=\"1.0\"><namespace><name>urn:vim25</name>\
    <version>8.0.1.0</version><priorVersions><version>7.0.3.2</version></priorVersions></namespace></namespaces>";

/// What there is one of.
pub const CONTENT: &str = "<returnval><rootFolder type=\"Folder\">group-d1</rootFolder>\
    <propertyCollector type=\"PropertyCollector\">propertyCollector</propertyCollector>\
    <about><name>VMware vCenter Server</name><fullName>VMware vCenter Server 8.0.1 build-1</fullName><vendor>VMware, Inc.</vendor>\
    <version>8.0.1</version><build>1</build><apiType>VirtualCenter</apiType><apiVersion>8.0.1.0</apiVersion></about>\
    <sessionManager type=\"SessionManager\">SessionManager</sessionManager>\
    <authorizationManager type=\"AuthorizationManager\">AuthorizationManager</authorizationManager>\
    <searchIndex type=\"SearchIndex\">SearchIndex</searchIndex>\
    <vStorageObjectManager type=\"VcenterVStorageObjectManager\">VStorageObjectManager</vStorageObjectManager></returnval>";

/// What the properties asked for are.
fn properties(body: &str) -> String {
    let object = body
        .split_once("<obj ")
        .and_then(|(_, rest)| rest.split_once("</obj>"))
        .map_or("", |(object, _)| object);
    let known = [
        ("currentSession", "<key>52key</key><userName>u</userName>"),
        ("name", "a machine"),
        ("runtime.powerState", "poweredOff"),
        (
            "config.hardware.device",
            "<VirtualDevice xsi:type=\"VirtualDisk\"><key>2000</key><backing xsi:type=\"VirtualDiskFlatVer2BackingInfo\">\
             <fileName>[ds] a/a.vmdk</fileName><diskMode>persistent</diskMode></backing><controllerKey>1000</controllerKey>\
             <capacityInKB>1024</capacityInKB></VirtualDevice>",
        ),
        ("summary.name", "ds"),
    ];
    let asked = |path: &str| body.contains(&format!("<pathSet>{path}</pathSet>"));
    let sets: String = known
        .iter()
        .filter(|(path, _)| asked(path))
        .map(|(path, value)| format!("<propSet><name>{path}</name><val>{value}</val></propSet>"))
        .collect();
    format!("<returnval><objects><obj {object}</obj>{sets}</objects></returnval>")
}
