//! Target for the SOAP client: the answers of a server are the input.
//!
//! The first byte says which call is made and how its answer comes (see [`Config`]); the rest are the answers, one for each
//! exchange, with a zero byte between them, the last one for all that follow. What comes out must keep its promises, and no
//! error and no line of the log may repeat the password, whatever the server says.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use vixDiskLib::error::Result;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::logging::Sink;
use vixDiskLib::net::http::Dial;
use vixDiskLib::net::nfc::ticket::Ticket;
use vixDiskLib::net::stream::Stream;
use vixDiskLib::net::vim::Hardware;
use vixDiskLib::net::vim::Login;
use vixDiskLib::net::vim::MachineSpec;
use vixDiskLib::net::vim::Moref;
use vixDiskLib::net::vim::Session;
use vixDiskLib::net::vim::Times;
use vixDiskLib::secret::Secret;

use super::peer::Scripted;
use super::peer::Then;

/// What is never to be seen.
const PASSWORD: &str = "geheim<wort>";

/// Calls, by the low bits of the first byte. The first three are the steps of getting in.
const CALLS: [&str; 16] = [
    "Versions",
    "RetrieveServiceContent",
    "Login",
    "CurrentTime",
    "NfcGetVmFiles",
    "NfcRandomAccessOpenDisk",
    "RetrievePropertiesEx",
    "RetrievePropertiesEx",
    "DisableMethods",
    "EnableMethods",
    "RetrievePropertiesEx",
    "RetrievePropertiesEx",
    "RetrieveVStorageObject",
    "FindByUuid",
    "FindByInventoryPath",
    "Logout",
];

/// How an input is used: the bits of its first byte.
#[derive(Clone, Copy, Debug)]
struct Config {
    /// Bits 0 to 3.
    call: usize,
    /// Bit 4: the answers are said to be faults.
    fails: bool,
    /// Bit 5: the answers have their heads themselves.
    raw: bool,
    /// Bit 6: a few bytes at a time.
    portions: bool,
    /// Bit 7: silence instead of the end of the stream.
    then: Then,
}

impl Config {
    fn of(byte: u8) -> Self {
        let bit = |n: u8| byte & 1 << n != 0;
        let then = if bit(7) { Then::Silence } else { Then::Close };
        Self { call: usize::from(byte & 15), fails: bit(4), raw: bit(5), portions: bit(6), then }
    }

    fn answer(self, bytes: &[u8]) -> Vec<u8> {
        match (self.raw, self.fails) {
            (true, _) => bytes.to_vec(),
            (false, true) => http("500 Internal Server Error", bytes),
            (false, false) => http("200 OK", bytes),
        }
    }
}

/// Each connection gets one answer.
#[derive(Debug)]
struct Answers {
    config: Config,
    answers: Mutex<std::vec::IntoIter<Vec<u8>>>,
    last: Vec<u8>,
    heard: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
}

#[derive(Debug)]
struct Door(Arc<Answers>);

impl Dial for Door {
    fn dial(&self, _: Instant) -> Result<Box<dyn Stream>> {
        let next = self.0.answers.lock().unwrap().next();
        let portion = if self.0.config.portions { 7 } else { usize::MAX };
        let stream = Scripted::new(&next.unwrap_or_else(|| self.0.last.clone()), self.0.config.then);
        let stream = stream.in_portions(portion);
        self.0.heard.lock().unwrap().push(stream.heard());
        Ok(Box::new(stream))
    }

    fn host(&self) -> String {
        "fuzzed".to_owned()
    }
}

#[derive(Default)]
struct Lines(Mutex<String>);

impl Sink for Lines {
    fn line(&self, _: Level, text: &str) {
        self.0.lock().unwrap().push_str(text);
    }
}

/// Answers of a server.
pub fn soap(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let config = Config::of(first);
    let given: Vec<Vec<u8>> = rest.split(|b| *b == 0).map(|bytes| config.answer(bytes)).collect();
    let before = config.call.min(3);
    let mut answers: Vec<Vec<u8>> = getting_in().into_iter().take(before).collect();
    let last = given.last().cloned().unwrap_or_default();
    answers.extend(given.into_iter().take(64));
    let answers = Answers { config, answers: Mutex::new(answers.into_iter()), last, heard: Mutex::default() };
    let (answers, lines) = (Arc::new(answers), Arc::new(Lines::default()));
    let login = Login::User { name: "u".into(), password: Secret::from(PASSWORD.to_owned()) };
    let short = Duration::from_millis(20);
    let times = Times { connect: short, request: short, farewell: short };
    let log = Log::new(lines.clone(), Level::Debug);
    let said = match Session::open_with(Box::new(Door(answers.clone())), login, times, log) {
        Err(e) => format!("{e} {e:?}"),
        Ok(session) => {
            let said = call(&session, config.call);
            drop(session.close());
            said
        }
    };
    // The answers themselves may have it; then the words they are in are left out.
    for text in [said, lines.0.lock().unwrap().clone()] {
        assert!(!text.contains(PASSWORD), "the password is told: {text}");
    }
    for heard in answers.heard.lock().unwrap().iter() {
        well_formed(&heard.lock().unwrap());
    }
}

/// The error, if it is one.
fn call(session: &Session, call: usize) -> String {
    let (machine, store) = (Moref::machine("vm-1"), Moref::new("Datastore", "datastore-1"));
    let snapshot = Moref::snapshot("snapshot-1");
    let spec = |text| MachineSpec::parse(text).unwrap();
    let done = match call {
        4 => session.ticket_for_files(&machine).map(|ticket| usable(&ticket)),
        5 => session.ticket_for_disk(&machine, 2000, Some(&store), true).map(|ticket| usable(&ticket)),
        6 => session.hardware(&machine, None).map(|hardware| sane(&hardware)),
        7 => session.hardware(&machine, snapshot.as_ref()).map(|hardware| sane(&hardware)),
        8 => session.disable_relocation(&machine, "me"),
        9 => session.enable_relocation(&machine, "me"),
        10 => session.datacenter_path(&machine).map(drop),
        11 => session.datastore_name(&store).map(|name| assert!(!name.is_empty())),
        12 => session.first_class_disk("1", &store, None).map(|path| assert!(!path.is_empty())),
        13 => session.machine(&spec("564d5eae-1111-2222-3333-444455556666")).map(|found| is_machine(&found)),
        14 => session.machine(&spec("a/a.vmx?dcPath=d%2520c&dsName=ds")).map(|found| is_machine(&found)),
        15 => session.close(),
        _ => session.keep_alive(),
    };
    let done = done.and_then(|()| session.first_class_disk("1", &store, Some("2")).map(drop));
    done.err().map_or(String::new(), |e| format!("{e} {e:?}"))
}

/// A ticket goes into lines of another protocol.
fn usable(ticket: &Ticket) {
    let is_word = |text: &str| !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    assert!(ticket.port != 0 && is_word(&ticket.service) && is_word(ticket.id.expose_text().unwrap()));
    assert!(ticket.host.as_deref().is_none_or(is_word), "{ticket:?}");
    let id = ticket.id.expose_text().unwrap();
    assert!(
        id.len() < 8
            || !format!("{ticket:?}").contains(id)
            || ticket.service.contains(id)
            || is_public(ticket, id)
    );
}

/// A server may use one word for everything.
fn is_public(ticket: &Ticket, id: &str) -> bool {
    ticket.host.as_deref().is_some_and(|host| host.contains(id))
        || format!("{:?}", ticket.identity).contains(id)
}

fn sane(hardware: &Hardware) {
    for disk in &hardware.disks {
        assert!(disk.chain.len() <= 256 && disk.capacity < 1 << 62, "{disk:?}");
        assert!(disk.chain.iter().all(|path| disk.has(path)));
    }
}

fn is_machine(found: &Moref) {
    assert!(found.kind == "VirtualMachine" && !found.id.is_empty());
}

/// What was sent is one request, whatever was received before.
fn well_formed(heard: &[u8]) {
    const KNOWN: [&str; 6] =
        ["Host: ", "User-Agent: ", "Content-Type: ", "SOAPAction: ", "Cookie: ", "Content-Length: "];
    if heard.is_empty() {
        return;
    }
    let end = heard.windows(4).position(|window| window == b"\r\n\r\n").expect("the end of a head");
    let head = std::str::from_utf8(&heard[..end]).expect("a head of ASCII");
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap();
    assert!(["GET /sdk/vimServiceVersions.xml HTTP/1.1", "POST /sdk HTTP/1.1"].contains(&first), "{head}");
    assert!(lines.all(|line| KNOWN.iter().any(|name| line.starts_with(name))), "{head}");
}

fn http(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nSet-Cookie: vmware_soap_session=\"52-x\"; Path=/\r\n\
         Content-Type: text/xml\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn getting_in() -> [Vec<u8>; 3] {
    [&VERSIONS.as_bytes().to_vec(), &content(), &login()].map(|body| http("200 OK", body))
}

const VERSIONS: &str = "<namespaces version=\"1.0\"><namespace><name>urn:vim25</name><version>8.0.1.0</version>\
    <priorVersions><version>7.0.3.2</version><version>6.5</version></priorVersions></namespace></namespaces>";

fn envelope(body: &str) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><s:Body>{body}</s:Body></s:Envelope>"
    )
    .into_bytes()
}

fn response(method: &str, inside: &str) -> Vec<u8> {
    envelope(&format!("<{method}Response xmlns=\"urn:vim25\">{inside}</{method}Response>"))
}

fn returned(call: usize, inside: &str) -> Vec<u8> {
    let response = response(CALLS[call], &format!("<returnval>{inside}</returnval>"));
    [&[call as u8][..], &response].concat()
}

fn content() -> Vec<u8> {
    let managers = [
        "propertyCollector",
        "sessionManager",
        "searchIndex",
        "authorizationManager",
        "vStorageObjectManager",
    ]
    .map(|name| format!("<{name} type=\"T\">{name}</{name}>"))
    .concat();
    let about = "<about><fullName>VMware vCenter Server 8.0.1</fullName><apiType>VirtualCenter</apiType>\
                 <apiVersion>8.0.1.0</apiVersion></about>";
    response("RetrieveServiceContent", &format!("<returnval>{about}{managers}</returnval>"))
}

fn login() -> Vec<u8> {
    response("Login", "<returnval><key>52</key><userName>u</userName></returnval>")
}

fn fault(name: &str, inside: &str) -> Vec<u8> {
    envelope(&format!(
        "<s:Fault><faultcode>ServerFaultCode</faultcode><faultstring>the geheim&lt;wort&gt;</faultstring><detail>\
         <{name}Fault xmlns=\"urn:vim25\" xsi:type=\"{name}\">{inside}</{name}Fault></detail></s:Fault>"
    ))
}

const TICKET: &str = "<host>esx</host><port>902</port><sslThumbprint>AA:BB</sslThumbprint><service>vpxa-nfc</service>\
                      <serviceVersion>1.1</serviceVersion><sessionId>52d0-ticket</sessionId>";

const DISK: &str = "<VirtualDevice xsi:type=\"VirtualDisk\"><key>2000</key><deviceInfo><label>Hard disk 1</label></deviceInfo>\
    <backing xsi:type=\"VirtualDiskSeSparseBackingInfo\"><fileName>[ds] a/a-1.vmdk</fileName><diskMode>persistent</diskMode>\
    <uuid>6000</uuid><parent xsi:type=\"VirtualDiskFlatVer2BackingInfo\"><fileName>[ds] a/a.vmdk</fileName></parent></backing>\
    <controllerKey>1000</controllerKey><unitNumber>0</unitNumber><capacityInKB>1024</capacityInKB></VirtualDevice>\
    <VirtualDevice xsi:type=\"ParaVirtualSCSIController\"><key>1000</key></VirtualDevice>";

fn properties(id: &str, sets: &[(&str, &str)]) -> Vec<u8> {
    let sets: String = sets
        .iter()
        .map(|(name, value)| format!("<propSet><name>{name}</name><val>{value}</val></propSet>"))
        .collect();
    let inside = format!("<objects><obj type=\"VirtualMachine\">{id}</obj>{sets}</objects>");
    returned(6, &inside)[1..].to_vec()
}

fn after(first: u8, answers: &[Vec<u8>]) -> Vec<u8> {
    [&[first][..], &answers.join(&0)].concat()
}

/// Name and content of the inputs that fuzzing starts from.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let machine = properties(
        "vm-1",
        &[("name", "a"), ("runtime.powerState", "poweredOn"), ("config.hardware.device", DISK)],
    );
    let tree = "<VirtualMachineSnapshotTree><snapshot type=\"VirtualMachineSnapshot\">snapshot-1</snapshot>\
                <childSnapshotList><snapshot type=\"VirtualMachineSnapshot\">snapshot-2</snapshot></childSnapshotList>\
                </VirtualMachineSnapshotTree>";
    let snapshots = properties("vm-1", &[("snapshot.rootSnapshotList", tree)]);
    let at = properties("snapshot-1", &[("config.hardware.device", DISK)]);
    let told = response(
        "RetrieveInternalContent",
        "<returnval><nfcService type=\"NfcService\">nfcService</nfcService></returnval>",
    );
    let ticket = |call: usize| returned(call, TICKET)[1..].to_vec();
    let climb = |id: &str, parent: &str| properties(id, &[("name", id), ("parent", parent)]);
    let parent = "<x/>group-d1".to_owned();
    let permission = "<object type=\"VirtualMachine\">vm-1</object><privilegeId>System.Read</privilegeId>";
    let found = |method, kind: &str| response(method, &format!("<returnval type=\"{kind}\">x-1</returnval>"));
    let raw = format!(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        VERSIONS.len()
    );
    let chunked = [raw.as_bytes(), VERSIONS.as_bytes(), b"\r\n0\r\n\r\n"].concat();
    vec![
        ("versions", after(0, &[VERSIONS.as_bytes().to_vec(), content(), login()])),
        ("chunked", after(32, &[chunked, http("200 OK", &content()), http("200 OK", &login())])),
        ("content", after(1, &[content(), login()])),
        ("login", after(2, &[login()])),
        ("time", returned(3, "2026-01-01T00:00:00Z")),
        ("files", after(4, &[told.clone(), ticket(4)])),
        ("disk", after(5, &[told, ticket(5)])),
        ("hardware", after(6, &[machine])),
        ("snapshot", after(7, &[snapshots, at])),
        ("disable", after(8, &[response("DisableMethods", "")])),
        ("disabled", after(8 + 16, &[fault("MethodAlreadyDisabledFault", "<sourceId>me</sourceId>")])),
        ("enable", after(9, &[response("EnableMethods", "")])),
        ("datacenter", after(10, &[climb("vm-1", &parent)])),
        ("datastore", after(11, &[properties("datastore-1", &[("summary.name", "ds")])])),
        (
            "first-class",
            returned(12, "<config><backing><filePath>[ds] fcd/1.vmdk</filePath></backing></config>"),
        ),
        ("uuid", after(13, &[found("FindByUuid", "VirtualMachine")])),
        (
            "file",
            after(
                14,
                &[found("FindByInventoryPath", "Datacenter"), found("FindByDatastorePath", "VirtualMachine")],
            ),
        ),
        ("logout", after(15, &[response("Logout", "")])),
        ("permission", after(6 + 16, &[fault("NoPermission", permission)])),
        ("expired", after(3 + 16, &[fault("NotAuthenticated", "")])),
        ("busy", after(3 + 16, &[fault("TaskInProgress", "")])),
    ]
}
