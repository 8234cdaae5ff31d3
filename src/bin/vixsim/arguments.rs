//! The command line.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::Arg;
use lexopt::Parser;
use lexopt::ValueExt;
use vixDiskLib::logging::Level;
use vixDiskLib::sim::certificate::CertificateFiles;
use vixDiskLib::sim::nfc::knobs::Settings;
use vixDiskLib::sim::options::DatastoreOptions;
use vixDiskLib::sim::options::FirstClassOptions;
use vixDiskLib::sim::options::FolderEncoding;
use vixDiskLib::sim::options::MachineOptions;
use vixDiskLib::sim::options::Options;
use vixDiskLib::sim::personality::Release;

/// What the program is to do.
#[derive(Debug)]
pub struct Arguments {
    /// How the simulator is started.
    pub options: Options,
    /// Where it says that it is ready.
    pub ready_file: Option<PathBuf>,
    /// Where lines go.
    pub log: Option<PathBuf>,
    /// Which lines.
    pub level: Level,
    /// The end of the standard input is the end of the program.
    pub until_input_ends: bool,
}

/// What was asked for.
pub enum Asked {
    /// Serving.
    Serve(Box<Arguments>),
    /// A text.
    Text(String),
}

/// The password may stand in the environment, where other users do not see it.
const PASSWORD: &str = "VIXSIM_PASSWORD";

impl Arguments {
    /// Reads the command line.
    pub fn read(mut parser: Parser) -> Result<Asked, String> {
        let mut arguments = Arguments {
            options: Options::default(),
            ready_file: None,
            log: None,
            level: Level::Info,
            until_input_ends: false,
        };
        if let Ok(password) = std::env::var(PASSWORD) {
            arguments.options.set_password(password);
        }
        let (mut certificate, mut key, mut running) = (None, None, Vec::new());
        while let Some(argument) = parser.next().map_err(|e| e.to_string())? {
            let name = match argument {
                Arg::Short('h') => "help".to_owned(),
                Arg::Long(name) => name.to_owned(),
                other => return Err(other.unexpected().to_string()),
            };
            match name.as_str() {
                "help" => return Ok(Asked::Text(help())),
                "version" => {
                    return Ok(Asked::Text(concat!("vixsim ", env!("CARGO_PKG_VERSION"), "\n").to_owned()));
                }
                "esxi" => arguments.options.esxi = true,
                "until-stdin-closes" => arguments.until_input_ends = true,
                "cert" => certificate = Some(path(&mut parser)?),
                "key" => key = Some(path(&mut parser)?),
                "powered-on" => running.push(text(&mut parser)?),
                name => arguments.take(name, &mut parser)?,
            }
        }
        arguments.options.certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
            (None, None) => None,
            _ => return Err("--cert and --key belong together".to_owned()),
        };
        for name in running {
            let machine = arguments.options.machines.iter_mut().find(|machine| machine.name == name);
            machine.ok_or_else(|| format!("--powered-on {name:?}: no --vm has this name"))?.powered_on = true;
        }
        Ok(Asked::Serve(Box::new(arguments)))
    }

    /// Options with a value.
    fn take(&mut self, name: &str, parser: &mut Parser) -> Result<(), String> {
        let options = &mut self.options;
        match name {
            "listen" => options.listen = address(parser)?,
            "nfc" => options.nfc = address(parser)?,
            "user" => options.user = text(parser)?,
            "password" => options.set_password(text(parser)?),
            "password-file" => {
                let file = path(parser)?;
                let read = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
                options.set_password(read.trim_end_matches(['\r', '\n']).to_owned());
            }
            "personality" => {
                let name = text(parser)?;
                options.release =
                    Release::named(&name).ok_or_else(|| format!("there is no personality {name:?}"))?;
            }
            "vm" => options.machines.push(MachineOptions::parse(&text(parser)?).map_err(|e| e.to_string())?),
            "fcd" => {
                let given = FirstClassOptions::parse(&text(parser)?);
                options.first_class.push(given.map_err(|e| e.to_string())?);
            }
            "datastore" => {
                options.datastores.push(DatastoreOptions::parse(&text(parser)?).map_err(|e| e.to_string())?);
            }
            "fault" => options.faults.push(text(parser)?),
            "nfc-set" => options.nfc_settings.push(text(parser)?),
            "session-life" => options.session_life = seconds(parser)?,
            "ticket-life" => options.ticket_life = seconds(parser)?,
            "hosts" => options.hosts = number(parser)?,
            "most-areas" => options.most_areas = number(parser)?,
            "folder-encoding" => {
                options.folder_encoding = match text(parser)?.as_str() {
                    "real" => FolderEncoding::AsReal,
                    "once" => FolderEncoding::Once,
                    "twice" => FolderEncoding::Twice,
                    other => return Err(format!("--folder-encoding {other:?}: real, once or twice")),
                };
            }
            "ready-file" => self.ready_file = Some(path(parser)?),
            "log" => self.log = Some(path(parser)?),
            "log-level" => {
                self.level = match text(parser)?.as_str() {
                    "error" => Level::Error,
                    "warning" => Level::Warning,
                    "info" => Level::Info,
                    "debug" => Level::Debug,
                    other => return Err(format!("--log-level {other:?}: error, warning, info or debug")),
                };
            }
            other => return Err(format!("there is no option --{other}")),
        }
        Ok(())
    }
}

fn text(parser: &mut Parser) -> Result<String, String> {
    parser.value().and_then(|value| value.string()).map_err(|e| e.to_string())
}

fn path(parser: &mut Parser) -> Result<PathBuf, String> {
    parser.value().map(PathBuf::from).map_err(|e| e.to_string())
}

fn address(parser: &mut Parser) -> Result<SocketAddr, String> {
    let given = text(parser)?;
    given
        .parse()
        .map_err(|_| format!("{given:?} is no address with a port, such as 127.0.0.1:0 or [::1]:8443"))
}

fn number(parser: &mut Parser) -> Result<usize, String> {
    let given = text(parser)?;
    given.parse().map_err(|_| format!("{given:?} is no number"))
}

fn seconds(parser: &mut Parser) -> Result<Duration, String> {
    let given = text(parser)?;
    let seconds = given.parse::<u32>().map_err(|_| format!("{given:?} is no number of seconds"))?;
    Ok(Duration::from_secs(u64::from(seconds)))
}

/// The help, with the settings of the NFC server as it names them itself.
fn help() -> String {
    let settings =
        Settings::names().map(|(name, takes)| format!("                                 {name}={takes}\n"));
    include_str!("help.txt").replace("SETTINGS\n", &settings.collect::<String>())
}
