//! The bytes of option negotiation: what is sent, what comes back, and what a refusal means. All numbers are big-endian.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::BlockSizes;

/// Longest string the protocol allows, in bytes.
pub const LONGEST_NAME: usize = 4096;

/// Longest payload of an option reply that is taken: two of the longest strings and the numbers around them.
pub const LONGEST_REPLY: u32 = 16 << 10;

/// What servers stand to when they say nothing about block sizes.
pub const USUAL_BLOCKS: BlockSizes = BlockSizes { minimum: 1, preferred: 4096, maximum: 32 << 20 };

/// The metadata context that tells what is allocated.
pub const ALLOCATION: &str = "base:allocation";

/// What a server begins with.
pub const GREETING: [u8; 8] = *b"NBDMAGIC";
/// A server that negotiates options.
pub const NEWSTYLE: u64 = u64::from_be_bytes(*b"IHAVEOPT");
/// A server that does not.
pub const OLDSTYLE: u64 = 0x0000_4202_8186_1253;

/// Handshake flag: options are answered.
pub const FIXED_NEWSTYLE: u16 = 1;
/// Handshake flag: nothing pads the answer to [`Opt::ExportName`].
pub const NO_ZEROES: u16 = 2;
/// The padding otherwise.
pub const PADDING: usize = 124;

/// Transmission flag: the flags mean something.
pub const HAS_FLAGS: u16 = 1;
/// Transmission flag: writing is refused.
pub const READ_ONLY: u16 = 2;

const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt {
    /// Take the export, without any answer but its size and flags.
    ExportName = 1,
    /// Good-bye.
    Abort = 2,
    /// Which exports are there?
    List = 3,
    /// Go on with TLS.
    StartTls = 5,
    /// What is the export like?
    Info = 6,
    /// Take the export.
    Go = 7,
    /// Reply in chunks.
    StructuredReply = 8,
    /// Choose metadata contexts.
    SetMetaContext = 10,
    /// Chunks and requests with 64 bit lengths.
    ExtendedHeaders = 11,
}

impl Opt {
    /// The name in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Opt::ExportName => "NBD_OPT_EXPORT_NAME",
            Opt::Abort => "NBD_OPT_ABORT",
            Opt::List => "NBD_OPT_LIST",
            Opt::StartTls => "NBD_OPT_STARTTLS",
            Opt::Info => "NBD_OPT_INFO",
            Opt::Go => "NBD_OPT_GO",
            Opt::StructuredReply => "NBD_OPT_STRUCTURED_REPLY",
            Opt::SetMetaContext => "NBD_OPT_SET_META_CONTEXT",
            Opt::ExtendedHeaders => "NBD_OPT_EXTENDED_HEADERS",
        }
    }

    /// The option as it is sent. The payloads here are bounded by [`LONGEST_NAME`].
    pub fn request(self, payload: &[u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(16 + payload.len());
        bytes.extend(NEWSTYLE.to_be_bytes());
        bytes.extend((self as u32).to_be_bytes());
        bytes.extend(length_of(payload)?);
        bytes.extend(payload);
        Ok(bytes)
    }
}

fn length_of(bytes: &[u8]) -> Result<[u8; 4]> {
    let length = u32::try_from(bytes.len());
    Ok(length.map_err(|_| Error::new(ErrorKind::Internal, "a string of 4 GiB"))?.to_be_bytes())
}

/// Payload of [`Opt::Info`] and [`Opt::Go`], which asks for block sizes too.
pub fn about(export: &str) -> Result<Vec<u8>> {
    let mut payload = length_of(export.as_bytes())?.to_vec();
    payload.extend(export.as_bytes());
    payload.extend(1u16.to_be_bytes());
    payload.extend(INFO_BLOCK_SIZE.to_be_bytes());
    Ok(payload)
}

/// Payload of [`Opt::SetMetaContext`] that asks for [`ALLOCATION`].
pub fn allocation_of(export: &str) -> Result<Vec<u8>> {
    let mut payload = length_of(export.as_bytes())?.to_vec();
    payload.extend(export.as_bytes());
    payload.extend(1u32.to_be_bytes());
    payload.extend(length_of(ALLOCATION.as_bytes())?);
    payload.extend(ALLOCATION.as_bytes());
    Ok(payload)
}

/// What kind of reply to an option came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rep {
    /// Done.
    Ack,
    /// An export in a list.
    Server,
    /// Something about the export.
    Info,
    /// A context that was chosen.
    MetaContext,
    /// A refusal.
    Refused(Refusal),
}

/// Why an option was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The option is not known.
    Unsupported,
    /// The server does not want to.
    Policy,
    /// The option was malformed, or is of no use at this point.
    Invalid,
    /// The server's machine cannot.
    Platform,
    /// Not before TLS.
    TlsRequired,
    /// No such export.
    Unknown,
    /// The server is about to end.
    Shutdown,
    /// The client must ask for block sizes.
    BlockSizeRequired,
    /// The option was too long.
    TooBig,
    /// Not without extended headers.
    ExtendedRequired,
    /// A code the specification does not know.
    Other(u32),
}

impl Refusal {
    fn of(code: u32) -> Self {
        match code & !REFUSED {
            1 => Refusal::Unsupported,
            2 => Refusal::Policy,
            3 => Refusal::Invalid,
            4 => Refusal::Platform,
            5 => Refusal::TlsRequired,
            6 => Refusal::Unknown,
            7 => Refusal::Shutdown,
            8 => Refusal::BlockSizeRequired,
            9 => Refusal::TooBig,
            10 => Refusal::ExtendedRequired,
            _ => Refusal::Other(code),
        }
    }

    /// The refusal as an error; `text` is what the server said about it.
    pub fn error(self, opt: Opt, text: &[u8]) -> Error {
        let (kind, why) = match self {
            Refusal::Unsupported => (ErrorKind::Protocol, "it does not know the option".to_owned()),
            Refusal::Policy => (ErrorKind::AccessDenied, "its policy forbids it".to_owned()),
            Refusal::Invalid => (ErrorKind::Protocol, "it finds the request invalid".to_owned()),
            Refusal::Platform => (ErrorKind::Protocol, "its machine cannot do it".to_owned()),
            Refusal::TlsRequired => {
                (ErrorKind::Protocol, "it demands TLS: use nbds:// or the transport nbdssl".to_owned())
            }
            Refusal::Unknown => (ErrorKind::NotFound, "it has no such export".to_owned()),
            Refusal::Shutdown => (ErrorKind::ConnectionLost, "it is shutting down".to_owned()),
            Refusal::BlockSizeRequired => {
                (ErrorKind::Protocol, "it demands block size constraints".to_owned())
            }
            Refusal::TooBig => (ErrorKind::Protocol, "the request is too long for it".to_owned()),
            Refusal::ExtendedRequired => (ErrorKind::Protocol, "it demands extended headers".to_owned()),
            Refusal::Other(code) => (ErrorKind::Protocol, format!("error {code:#x}")),
        };
        let said = if text.is_empty() { String::new() } else { format!("; it says: {}", shown(text)) };
        Error::new(kind, format!("the server refuses {}: {why}{said}", opt.name()))
    }
}

const REFUSED: u32 = 1 << 31;

/// The head of a reply to an option; `length` bytes of payload follow, at most [`LONGEST_REPLY`].
#[derive(Clone, Copy, Debug)]
pub struct ReplyHead {
    /// What kind of reply it is.
    pub rep: Rep,
    /// Bytes of payload.
    pub length: u32,
}

impl ReplyHead {
    /// Bytes of a head.
    pub const LEN: usize = 20;

    /// Reads the head of a reply to this option.
    pub fn parse(bytes: &[u8; Self::LEN], opt: Opt) -> Result<Self> {
        let mut fields = Fields::new(bytes, "the head of an option reply");
        let magic = fields.u64()?;
        if magic != REPLY_MAGIC {
            return Err(protocol(format!(
                "an option reply begins with {magic:#x} instead of {REPLY_MAGIC:#x}"
            )));
        }
        let (option, code, length) = (fields.u32()?, fields.u32()?, fields.u32()?);
        if option != opt as u32 {
            return Err(protocol(format!("a reply to option {option} where {} was sent", opt.name())));
        }
        if length > LONGEST_REPLY {
            return Err(protocol(format!("a reply of {length} bytes, more than {LONGEST_REPLY}")));
        }
        let rep = match code {
            1 => Rep::Ack,
            2 => Rep::Server,
            3 => Rep::Info,
            4 => Rep::MetaContext,
            _ if code & REFUSED != 0 => Rep::Refused(Refusal::of(code)),
            _ => return Err(protocol(format!("a reply of unknown type {code}"))),
        };
        Ok(Self { rep, length })
    }
}

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// Something about the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info {
    /// Its size in bytes, its transmission flags.
    Export(u64, u16),
    /// Constraints on requests.
    Blocks(BlockSizes),
    /// Something that is of no use here: names, descriptions, what later versions add.
    Other,
}

impl Info {
    /// Reads the payload of [`Rep::Info`].
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(payload, "information about the export");
        match fields.u16()? {
            INFO_EXPORT => {
                let (size, flags) = (fields.u64()?, fields.u16()?);
                fields.end()?;
                Ok(Info::Export(size, flags))
            }
            INFO_BLOCK_SIZE => {
                let (minimum, preferred, maximum) = (fields.u32()?, fields.u32()?, fields.u32()?);
                fields.end()?;
                Ok(Info::Blocks(block_sizes(minimum, preferred, maximum)?))
            }
            _ => Ok(Info::Other),
        }
    }
}

/// Block sizes that keep the promises of [`BlockSizes`]. A minimum that cannot be meant is refused, for every request
/// would break it; the others are brought into line with it.
fn block_sizes(minimum: u32, preferred: u32, maximum: u32) -> Result<BlockSizes> {
    if !minimum.is_power_of_two() || minimum > 64 << 10 {
        return Err(protocol(format!("a smallest block of {minimum} bytes, not a power of two up to 65536")));
    }
    let maximum = maximum - maximum % minimum;
    if maximum == 0 {
        return Err(protocol(format!("requests of at least {minimum} bytes, but shorter than that at most")));
    }
    let preferred = 1 << preferred.clamp(minimum, maximum).ilog2();
    Ok(BlockSizes { minimum, preferred, maximum })
}

/// The id of the context, out of the payload of [`Rep::MetaContext`]; only [`ALLOCATION`] was asked for.
pub fn context_id(payload: &[u8]) -> Result<u32> {
    let mut fields = Fields::new(payload, "a metadata context");
    let id = fields.u32()?;
    match fields.rest() {
        name if name == ALLOCATION.as_bytes() => Ok(id),
        other => Err(protocol(format!("the context {} where {ALLOCATION} was asked for", shown(other)))),
    }
}

/// The name of the export, out of the payload of [`Rep::Server`]. What follows is a description.
pub fn listed(payload: &[u8]) -> Result<String> {
    let mut fields = Fields::new(payload, "an export in a list");
    let length = fields.u32()?;
    let name = usize::try_from(length).ok().and_then(|length| fields.rest().get(..length));
    match name {
        Some(name) => Ok(String::from_utf8_lossy(name).into_owned()),
        None => Err(protocol(format!("an export name of {length} bytes in a reply of {}", payload.len()))),
    }
}

/// What a peer said, fit for a log: short, on one line, in quotes.
pub fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut short: String = text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(200).is_some() {
        short.push('…');
    }
    format!("\"{short}\"")
}

/// A fault of the peer.
pub fn protocol(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Protocol, message)
}

/// Big-endian numbers one after the other.
pub struct Fields<'a> {
    bytes: &'a [u8],
    whole: usize,
    name: &'static str,
}

impl<'a> Fields<'a> {
    /// Reads from the beginning of `bytes`, which are called `name` when something is missing.
    pub fn new(bytes: &'a [u8], name: &'static str) -> Self {
        Self { bytes, whole: bytes.len(), name }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((field, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err(protocol(format!("{} is cut short: {} bytes", self.name, self.whole)));
        };
        self.bytes = rest;
        Ok(*field)
    }

    /// 16 bits.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// 32 bits.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// 64 bits.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Refuses bytes that are left.
    pub fn end(&self) -> Result<()> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(protocol(format!("{} has {left} bytes too many", self.name))),
        }
    }
}
