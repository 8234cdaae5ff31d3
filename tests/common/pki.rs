//! Certificates for tests, made by `certtool`: an authority, a server for this machine, a client, and a stranger.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::scratch;
use super::tools;

/// The program that makes them.
pub const PROGRAM: &str = "certtool";

/// One in two is found at once; a hundred without are none at all.
const MOST_KEYS: usize = 100;

/// The DER of a key in 33 bytes begins like this in PEM, one in 32 bytes with `MHcCAQEEI`.
const WITH_ZERO: &str = "MHgCAQEEI";

/// An authority and what it vouches for. Each folder has its files under the names that NBD programs look for.
#[derive(Debug)]
pub struct Pki {
    folder: TempDir,
}

impl Pki {
    /// Makes everything anew, which takes a fraction of a second.
    pub fn new() -> Self {
        let folder = scratch::folder();
        for name in ["server", "client", "stranger", "elsewhere"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder for certificates");
        }
        let pki = Self { folder };
        pki.authority("ca");
        pki.authority("stranger-ca");
        let here = "dns_name = localhost\nip_address = 127.0.0.1\nip_address = ::1\n";
        pki.certificate("server", "server", &format!("{here}tls_www_server\n"));
        pki.certificate("client", "client", "tls_www_client\n");
        pki.certificate("elsewhere", "server", "dns_name = elsewhere.example\ntls_www_server\n");
        for (authority, folder) in
            [("ca", "server"), ("ca", "client"), ("ca", "elsewhere"), ("stranger-ca", "stranger")]
        {
            let to = pki.folder.path().join(folder).join("ca-cert.pem");
            std::fs::copy(pki.file(authority, "cert"), to).expect("copying an authority");
        }
        pki
    }

    /// For servers: `ca-cert.pem`, `server-cert.pem`, `server-key.pem`.
    pub fn server(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    /// For a server whose certificate names another host.
    pub fn elsewhere(&self) -> PathBuf {
        self.folder.path().join("elsewhere")
    }

    /// For clients: `ca-cert.pem`, `client-cert.pem`, `client-key.pem`.
    pub fn client(&self) -> PathBuf {
        self.folder.path().join("client")
    }

    /// For clients that trust somebody else: `ca-cert.pem`.
    pub fn stranger(&self) -> PathBuf {
        self.folder.path().join("stranger")
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.client().join("ca-cert.pem")
    }

    /// The server certificate's digest (`sha1` or `sha256`) in lower-case digits without separators.
    pub fn thumbprint(&self, hash: &str) -> String {
        let mut command = Command::new(PROGRAM);
        command.arg("--fingerprint").arg(format!("--hash={hash}"));
        let said = tools::check(command.arg("--infile").arg(self.server().join("server-cert.pem"))).out();
        said.trim().to_lowercase().replace(':', "")
    }

    fn file(&self, name: &str, what: &str) -> PathBuf {
        self.folder.path().join(format!("{name}-{what}.pem"))
    }

    fn authority(&self, name: &str) {
        self.key(&self.file(name, "key"));
        let template =
            format!("cn = the test authority {name}\nca\ncert_signing_key\nexpiration_days = 30\n");
        let mut command = self.certtool("--generate-self-signed", &template);
        command.arg("--load-privkey").arg(self.file(name, "key"));
        tools::check(command.arg("--outfile").arg(self.file(name, "cert")));
    }

    /// `folder/role-cert.pem` and its key, signed by the authority.
    fn certificate(&self, folder: &str, role: &str, extra: &str) {
        let folder = self.folder.path().join(folder);
        let key = folder.join(format!("{role}-key.pem"));
        self.key(&key);
        let template = format!("cn = {role}\nsigning_key\nencryption_key\nexpiration_days = 30\n{extra}");
        let mut command = self.certtool("--generate-certificate", &template);
        command.arg("--load-privkey").arg(key);
        command.arg("--load-ca-certificate").arg(self.file("ca", "cert"));
        command.arg("--load-ca-privkey").arg(self.file("ca", "key"));
        tools::check(command.arg("--outfile").arg(folder.join(format!("{role}-cert.pem"))));
    }

    /// Elliptic keys but for servers: qemu-nbd wants a certificate for key encipherment, which is RSA's. The client's key
    /// has a zero in front, as certtool gives to every second one.
    fn key(&self, path: &Path) {
        let kind: &[&str] = match path.ends_with("server-key.pem") {
            true => &["--key-type=rsa", "--bits=2048"],
            false => &["--key-type=ecdsa", "--curve=secp256r1"],
        };
        let with_zero = path.ends_with("client-key.pem");
        for _ in 0..MOST_KEYS {
            let mut command = Command::new(PROGRAM);
            tools::check(command.arg("--generate-privkey").args(kind).arg("--outfile").arg(path));
            let text = std::fs::read_to_string(path).expect("a key in PEM");
            if !with_zero || text.contains(WITH_ZERO) {
                return;
            }
        }
        panic!("none of {MOST_KEYS} keys has a zero in front: does certtool write them otherwise?");
    }

    fn certtool(&self, what: &str, template: &str) -> Command {
        let path = self.folder.path().join("template");
        std::fs::write(&path, template).expect("a template");
        let mut command = Command::new(PROGRAM);
        command.arg(what).arg("--template").arg(path);
        command
    }
}
