//! govmomi's simulator of vCenter and ESXi, built by `scripts/build-vcsim.sh`: a server that others wrote.

use std::io::BufRead;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use ring::digest;
use tempfile::TempDir;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::logging::Sink;
use vixDiskLib::net::http::Client;
use vixDiskLib::net::http::Door;
use vixDiskLib::net::http::Method;
use vixDiskLib::net::http::Request;
use vixDiskLib::net::http::Target;
use vixDiskLib::net::tls::Tls;
use vixDiskLib::net::tls::TlsSettings;
use vixDiskLib::net::vim::Login;
use vixDiskLib::net::vim::Server;
use vixDiskLib::net::vim::Session;
use vixDiskLib::net::vim::Times;
use vixDiskLib::secret::Secret;

use super::scratch;
use super::tools;

/// Where the program is.
pub fn program() -> String {
    scratch::peers().join("vcsim").display().to_string()
}

/// Lines of a log.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Sink for Lines {
    fn line(&self, _: Level, text: &str) {
        self.0.lock().expect("lines").push(text.to_owned());
    }
}

impl Lines {
    /// A log that writes here, everything.
    pub fn log(&self) -> Log {
        Log::new(Arc::new(self.clone()), Level::Debug)
    }

    /// How many lines have this in them.
    pub fn count(&self, what: &str) -> usize {
        self.0.lock().expect("lines").iter().filter(|line| line.contains(what)).count()
    }

    /// All of them.
    pub fn text(&self) -> String {
        self.0.lock().expect("lines").join("\n")
    }
}

/// A running simulator; it ends when this is dropped.
pub struct Vcsim {
    child: Child,
    folder: TempDir,
    certificate: Vec<u8>,
    /// The port of its HTTPS.
    pub port: u16,
    raw: Client,
}

/// A vCenter with a datacenter, hosts and machines.
pub fn vcenter() -> Vcsim {
    Vcsim::start(&[])
}

/// A host without a vCenter.
pub fn host() -> Vcsim {
    Vcsim::start(&["-esx"])
}

impl Vcsim {
    fn start(options: &[&str]) -> Self {
        let folder = scratch::folder();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]);
        let made = made.expect("a certificate");
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        std::fs::write(&certificate, made.cert.pem()).expect("writing a certificate");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("writing a key");
        let mut command = Command::new(program());
        command.arg(certificate).arg(key).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("starting vcsim");
        let mut url = String::new();
        let out = child.stdout.take().expect("the output of vcsim");
        BufReader::new(out).read_line(&mut url).expect("the URL of vcsim");
        let port = url.trim().strip_suffix("/sdk").and_then(|url| url.rsplit(':').next()?.parse().ok());
        let port = port.unwrap_or_else(|| panic!("vcsim says {url:?}"));
        let tls = Tls::new(&TlsSettings { verify: false, ..TlsSettings::default() }, Log::none());
        let door = Door { host: "127.0.0.1".into(), port, tls: tls.expect("TLS") };
        let raw = Client::new(Box::new(door), Duration::from_secs(30));
        Self { child, folder, certificate: made.cert.der().to_vec(), port, raw }
    }

    /// SHA-1 or SHA-256 of its certificate.
    pub fn thumbprint(&self, algorithm: &'static digest::Algorithm) -> String {
        let digest = digest::digest(algorithm, &self.certificate);
        digest.as_ref().iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
    }

    /// Its certificate in PEM.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The server with these settings of TLS.
    pub fn server(&self, tls: TlsSettings) -> Server {
        Server { host: "127.0.0.1".into(), port: self.port, tls }
    }

    /// The server by its thumbprint.
    pub fn pinned(&self) -> Server {
        let thumbprint = Some(self.thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY));
        self.server(TlsSettings { thumbprint, ..TlsSettings::default() })
    }

    /// A session.
    pub fn open(&self, login: Login, log: Log) -> Result<Session> {
        Session::open(self.pinned(), login, Times::default(), log)
    }

    /// A session of the one user.
    pub fn session(&self) -> Session {
        self.open(user("pass"), Log::none()).expect("a session")
    }

    /// The answer to what is in the body of an envelope, without any of our client's understanding.
    pub fn soap(&self, cookie: &Secret, body: &str) -> String {
        let envelope = format!(
            "<e:Envelope xmlns:e=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
             <e:Body>{body}</e:Body></e:Envelope>"
        );
        let cookie = [b"vmware_soap_session=", cookie.expose()].concat();
        let headers: &[(&str, &[u8])] = &[("Content-Type", b"text/xml"), ("Cookie", &cookie)];
        let request = Request { method: Method::Post, target: "/sdk", headers, body: envelope.as_bytes() };
        let until = Instant::now() + Duration::from_secs(30);
        let answer =
            self.raw.exchange(&request, Target::Collect(8 << 20), until).expect("an answer of vcsim");
        String::from_utf8(answer.body.bytes().to_vec()).expect("text")
    }

    /// The value of a property as XML.
    pub fn property(&self, cookie: &Secret, kind: &str, id: &str, path: &str) -> String {
        let said = self.soap(
            cookie,
            &format!(
                "<RetrieveProperties xmlns=\"urn:vim25\"><_this type=\"PropertyCollector\">{}</_this><specSet><propSet><type>{kind}</type>\
                 <pathSet>{path}</pathSet></propSet><objectSet><obj type=\"{kind}\">{id}</obj></objectSet></specSet></RetrieveProperties>",
                self.collector()
            ),
        );
        between(&said, "<val", "</val>").split_once('>').expect("a value").1.to_owned()
    }

    fn collector(&self) -> &'static str {
        match self.soap(&Secret::default(), CONTENT).contains("ha-property-collector") {
            true => "ha-property-collector",
            false => "propertyCollector",
        }
    }

    /// Waits for a task; its result as XML.
    pub fn result(&self, cookie: &Secret, task: &str) -> String {
        let start = Instant::now();
        loop {
            let info = self.property(cookie, "Task", task, "info");
            match between(&info, "<state>", "</state>") {
                "success" => {
                    return between(&info, "<result", "</result>")
                        .split_once('>')
                        .expect("a result")
                        .1
                        .to_owned();
                }
                "error" => panic!("the task failed: {info}"),
                _ => assert!(start.elapsed() < Duration::from_secs(30), "a task that does not end: {info}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

const CONTENT: &str = "<RetrieveServiceContent xmlns=\"urn:vim25\"><_this type=\"ServiceInstance\">ServiceInstance</_this>\
                       </RetrieveServiceContent>";

impl Drop for Vcsim {
    fn drop(&mut self) {
        self.raw.close();
        drop(self.child.stdin.take());
        tools::wait_within(&mut self.child, Duration::from_secs(20));
    }
}

/// The one user.
pub fn user(password: &str) -> Login {
    Login::User { name: "user".into(), password: Secret::from(password.to_owned()) }
}

/// The text between the first of these and the next of those.
#[track_caller]
pub fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let found = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
    found.unwrap_or_else(|| panic!("no {begin}..{end} in {text}")).0
}
