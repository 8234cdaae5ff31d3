//! From a fresh connection to an export that can be read: greeting, TLS, what replies look like, the export itself.
//!
//! ```text
//!   greeting ──▶ STARTTLS ──▶ EXTENDED_HEADERS ──▶ STRUCTURED_REPLY ──▶ SET_META_CONTEXT ──▶ GO ──▶ Export
//!      │        (iff wanted,      │ taken: no STRUCTURED_REPLY needed          ▲             │ not known
//!      │        or the end)       └────────────────────────────────────────────┘             ▼
//!      ├── newstyle, not fixed: options have no answers ─────────────────────────────▶ EXPORT_NAME ──▶ Export
//!      └── oldstyle: the server has one export and says it at once
//! ```
//!
//! With TLS wanted nothing is negotiated before it, so there is nothing that somebody on the way could have injected, and
//! no way on without it. The protocol allows one option at a time. Exactly the bytes of the negotiation are received.

use std::time::Instant;

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::nbd::BlockSizes;
use crate::net::nbd::Export;
use crate::net::nbd::Replies;
use crate::net::nbd::options;
use crate::net::nbd::options::Fields;
use crate::net::nbd::options::Info;
use crate::net::nbd::options::LONGEST_NAME;
use crate::net::nbd::options::Opt;
use crate::net::nbd::options::Refusal;
use crate::net::nbd::options::Rep;
use crate::net::nbd::options::protocol;
use crate::net::nbd::options::shown;
use crate::net::nbd::talk::Refused;
use crate::net::nbd::talk::Talk;
use crate::net::nbd::talk::out_of_place;
use crate::net::stream::Stream;

/// What the client wants of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Name of the export, `""` for the server's default.
    pub export: String,
    /// Replies in chunks.
    pub structured: bool,
    /// Chunks and requests with 64 bit lengths.
    pub extended: bool,
    /// What is allocated; possible only with replies in chunks.
    pub allocation: bool,
}

impl Wants {
    /// This export and everything the server can do.
    pub fn all_of(export: impl Into<String>) -> Self {
        Self { export: export.into(), structured: true, extended: true, allocation: true }
    }
}

/// Puts TLS on a stream.
pub type Upgrade<'a> = &'a dyn Fn(Box<dyn Stream>) -> Result<Box<dyn Stream>>;

/// Negotiates until requests can be sent. With `upgrade` the connection goes on with TLS or not at all.
///
/// Everything is over at `until`, except what `upgrade` does, which keeps its own time.
pub fn negotiate(
    stream: Box<dyn Stream>,
    wants: &Wants,
    upgrade: Option<Upgrade<'_>>,
    until: Instant,
) -> Result<(Box<dyn Stream>, Export)> {
    let peer = stream.label();
    let about = || format!("NBD export {} of {peer}", shown(wants.export.as_bytes()));
    if wants.export.len() > LONGEST_NAME || wants.export.contains('\0') {
        let message = format!("an export's name has at most {LONGEST_NAME} bytes and no NUL");
        return Err(Error::new(ErrorKind::InvalidArgument, message)).context(about);
    }
    Talk { stream, until }.agree(wants, upgrade).context(about)
}

/// The names of the server's exports, [`MOST_LISTED`] at most. A server may refuse to tell.
pub fn list(stream: Box<dyn Stream>, upgrade: Option<Upgrade<'_>>, until: Instant) -> Result<Vec<String>> {
    let peer = stream.label();
    let names = Talk { stream, until }.greet(upgrade).and_then(|(mut talk, style)| match style {
        Style::Fixed { .. } => talk.list().inspect(|_| talk.leave()),
        Style::Bare { .. } | Style::Old { .. } => Err(protocol("the server is too old to list its exports")),
    });
    names.context(|| format!("NBD exports of {peer}"))
}

/// What kind of server it is.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// It answers options. `padded`: the answer to [`Opt::ExportName`] has zeros at its end.
    Fixed { padded: bool },
    /// It knows [`Opt::ExportName`] only.
    Bare { padded: bool },
    /// It said everything in its greeting.
    Old { size: u64, flags: u16 },
}

/// What came of [`Opt::Go`].
enum Gone {
    Export(Export),
    NotKnown,
}

/// What came of a question about an export.
enum Told {
    Is { size: u64, flags: u16, blocks: BlockSizes },
    Not(Refused),
}

/// Most names [`list`] returns; a server that goes on for ever is stopped soon after.
pub const MOST_LISTED: usize = 1000;

/// Replies a single option may have before its last one.
const MOST_REPLIES: usize = 10 * MOST_LISTED;

/// Exports named in a message.
const MOST_NAMED: usize = 20;

impl Talk {
    fn agree(self, wants: &Wants, upgrade: Option<Upgrade<'_>>) -> Result<(Box<dyn Stream>, Export)> {
        let name = wants.export.as_str();
        let (mut talk, style) = self.greet(upgrade)?;
        let export = match style {
            Style::Old { size, flags } if name.is_empty() => plain_export(size, flags),
            Style::Old { .. } => Err(Error::new(
                ErrorKind::NotFound,
                "the server negotiates nothing (oldstyle) and has only its default export, \"\"",
            )),
            Style::Bare { padded } => talk.export_name(name, padded),
            Style::Fixed { padded } => talk.agree_by_options(wants, padded),
        };
        Ok((talk.stream, export?))
    }

    fn agree_by_options(&mut self, wants: &Wants, padded: bool) -> Result<Export> {
        let name = wants.export.as_str();
        let replies = self.replies(wants)?;
        let mut allocation = None;
        if wants.allocation && replies != Replies::Simple {
            allocation = self.allocation(name)?;
        }
        if let Gone::Export(export) = self.go(name, replies, allocation)? {
            return Ok(export);
        }
        if replies == Replies::Extended {
            return Err(protocol("the server has extended headers but no NBD_OPT_GO"));
        }
        self.must_be_listed(name)?;
        let export = self.export_name(name, padded)?;
        Ok(Export { replies, allocation, ..export })
    }

    /// The greeting, and TLS.
    fn greet(mut self, upgrade: Option<Upgrade<'_>>) -> Result<(Self, Style)> {
        let greeting = self.recv::<8>().context(|| "waiting for the server's greeting")?;
        if greeting != options::GREETING {
            let message = format!("the server begins with {}; {}", shown(&greeting), looks_like(&greeting));
            return Err(protocol(message));
        }
        let style = match u64::from_be_bytes(self.recv().context(|| "in the server's greeting")?) {
            options::NEWSTYLE => self.greet_newstyle()?,
            options::OLDSTYLE => self.greet_oldstyle()?,
            other => return Err(protocol(format!("{other:#x} is no style of NBD"))),
        };
        match (upgrade, style) {
            (None, _) => Ok((self, style)),
            (Some(upgrade), Style::Fixed { .. }) => Ok((self.start_tls(upgrade)?, style)),
            (Some(_), _) => Err(protocol("TLS is wanted, but the server is too old for it")),
        }
    }

    fn greet_newstyle(&mut self) -> Result<Style> {
        let flags = u16::from_be_bytes(self.recv().context(|| "in the server's greeting")?);
        let ours = flags & (options::FIXED_NEWSTYLE | options::NO_ZEROES);
        self.send(&u32::from(ours).to_be_bytes())?;
        let padded = flags & options::NO_ZEROES == 0;
        match flags & options::FIXED_NEWSTYLE {
            0 => Ok(Style::Bare { padded }),
            _ => Ok(Style::Fixed { padded }),
        }
    }

    fn greet_oldstyle(&mut self) -> Result<Style> {
        let rest: [u8; 12 + options::PADDING] = self.recv().context(|| "in an oldstyle greeting")?;
        let mut fields = Fields::new(&rest, "an oldstyle greeting");
        let (size, _, flags) = (fields.u64()?, fields.u16()?, fields.u16()?);
        Ok(Style::Old { size, flags })
    }

    /// The connection with TLS, or none.
    fn start_tls(mut self, upgrade: Upgrade<'_>) -> Result<Self> {
        if let Some(refusal) = self.ask(Opt::StartTls)? {
            self.leave();
            return Err(refusal.error(Opt::StartTls)).context(|| "TLS is wanted");
        }
        Ok(Self { stream: upgrade(self.stream)?, until: self.until })
    }

    /// The best kind of reply that both sides want.
    fn replies(&mut self, wants: &Wants) -> Result<Replies> {
        if wants.extended && self.accepts(Opt::ExtendedHeaders)? {
            return Ok(Replies::Extended);
        }
        if wants.structured && self.accepts(Opt::StructuredReply)? {
            return Ok(Replies::Structured);
        }
        Ok(Replies::Simple)
    }

    /// Whether the server takes an option that could be done without.
    fn accepts(&mut self, opt: Opt) -> Result<bool> {
        match self.ask(opt)? {
            None => Ok(true),
            Some(refusal) if refusal.is_final() => Err(refusal.error(opt)),
            Some(_) => Ok(false),
        }
    }

    /// An option without payload and without an answer but yes or no.
    fn ask(&mut self, opt: Opt) -> Result<Option<Refused>> {
        self.option(opt, &[])?;
        match self.reply(opt)? {
            (Rep::Ack, said) if said.is_empty() => Ok(None),
            (Rep::Refused(why), said) => Ok(Some(Refused { why, said })),
            (rep, said) => Err(out_of_place(opt, rep, &said)),
        }
    }

    /// The id of `base:allocation`, if the server has it for this export.
    fn allocation(&mut self, export: &str) -> Result<Option<u32>> {
        let opt = Opt::SetMetaContext;
        self.option(opt, &options::allocation_of(export)?)?;
        let mut id = None;
        loop {
            match self.reply(opt)? {
                (Rep::Ack, said) if said.is_empty() => return Ok(id),
                (Rep::MetaContext, said) => {
                    if id.replace(options::context_id(&said)?).is_some() {
                        return Err(protocol("the same metadata context twice"));
                    }
                }
                (Rep::Refused(why), said) => {
                    let refusal = Refused { why, said };
                    return if refusal.is_final() { Err(refusal.error(opt)) } else { Ok(None) };
                }
                (rep, said) => return Err(out_of_place(opt, rep, &said)),
            }
        }
    }

    fn go(&mut self, name: &str, replies: Replies, allocation: Option<u32>) -> Result<Gone> {
        match self.about(Opt::Go, name)? {
            Told::Is { size, flags, blocks } => {
                export(size, flags, blocks, replies, allocation).map(Gone::Export)
            }
            Told::Not(Refused { why: Refusal::Unsupported, .. }) => Ok(Gone::NotKnown),
            Told::Not(refusal) => {
                let error = refusal.error(Opt::Go);
                Err(if refusal.why == Refusal::Unknown { self.with_names(error) } else { error })
            }
        }
    }

    /// What the server says about an export to this option, which is [`Opt::Info`] or [`Opt::Go`].
    fn about(&mut self, opt: Opt, name: &str) -> Result<Told> {
        self.option(opt, &options::about(name)?)?;
        let mut said_export = None;
        let mut blocks = options::USUAL_BLOCKS;
        for _ in 0..MOST_REPLIES {
            match self.reply(opt)? {
                (Rep::Info, said) => match Info::parse(&said)? {
                    Info::Export(size, flags) => said_export = Some((size, flags)),
                    Info::Blocks(sizes) => blocks = sizes,
                    Info::Other => {}
                },
                (Rep::Ack, said) if said.is_empty() => {
                    let Some((size, flags)) = said_export else {
                        return Err(protocol("the server grants the export but not its size"));
                    };
                    return Ok(Told::Is { size, flags, blocks });
                }
                (Rep::Refused(why), said) => return Ok(Told::Not(Refused { why, said })),
                (rep, said) => return Err(out_of_place(opt, rep, &said)),
            }
        }
        Err(protocol(format!("more than {MOST_REPLIES} replies to {}", opt.name())))
    }

    /// Servers without [`Opt::Go`] close the connection on an unknown name, which says nothing: their list says more.
    fn must_be_listed(&mut self, name: &str) -> Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        match self.list() {
            Ok(names) if names.len() < MOST_LISTED && !names.iter().any(|n| n == name) => {
                let error = Error::new(ErrorKind::NotFound, "the server does not list the export");
                Err(error.context(listed(&names, &[])))
            }
            Ok(_) => Ok(()),
            // A refusal to list is no reason to stop; anything else is the end of the connection.
            Err(error) if error.kind() == ErrorKind::NotSupported => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn export_name(&mut self, name: &str, padded: bool) -> Result<Export> {
        self.option(Opt::ExportName, name.as_bytes())?;
        let answer: [u8; 10] = self.recv().context(
            || "NBD_OPT_EXPORT_NAME; servers this old close the connection when they lack the export",
        )?;
        let mut fields = Fields::new(&answer, "the answer to NBD_OPT_EXPORT_NAME");
        let (size, flags) = (fields.u64()?, fields.u16()?);
        if padded {
            self.recv::<{ options::PADDING }>().context(|| "the padding after NBD_OPT_EXPORT_NAME")?;
        }
        plain_export(size, flags)
    }

    /// The names of the exports. [`ErrorKind::NotSupported`]: the server does not want to tell.
    fn list(&mut self) -> Result<Vec<String>> {
        let opt = Opt::List;
        self.option(opt, &[])?;
        let mut names = Vec::new();
        for _ in 0..MOST_REPLIES {
            match self.reply(opt)? {
                (Rep::Ack, said) if said.is_empty() => return Ok(names),
                (Rep::Server, said) => {
                    let name = options::listed(&said)?;
                    if names.len() < MOST_LISTED {
                        names.push(name);
                    }
                }
                (Rep::Refused(why), said) => {
                    return Err(Refused { why, said }.error(opt).with_kind(ErrorKind::NotSupported));
                }
                (rep, said) => return Err(out_of_place(opt, rep, &said)),
            }
        }
        Err(protocol(format!("more than {MOST_REPLIES} replies to {}", opt.name())))
    }

    /// The error with the exports the server does have, if it tells: a name may be a slip, and size tells disks apart.
    fn with_names(&mut self, error: Error) -> Error {
        let Ok(names) = self.list() else { return error };
        let mut sizes = Vec::new();
        for name in names.iter().take(MOST_NAMED) {
            match self.about(Opt::Info, name) {
                Ok(Told::Is { size, flags, .. }) => sizes.push(Some((size, flags & options::READ_ONLY != 0))),
                Ok(Told::Not(refusal)) if refusal.why != Refusal::Unsupported => sizes.push(None),
                _ => break, // the names are worth telling without
            }
        }
        self.leave();
        error.context(listed(&names, &sizes))
    }
}

/// What a server might be that does not greet as NBD servers do.
fn looks_like(greeting: &[u8]) -> &'static str {
    match greeting {
        [0x15 | 0x16, 3, ..] => "it seems to speak TLS from the first byte, which NBD servers do not",
        [b'H', b'T', b'T', b'P', ..] => "it seems to be a web server",
        [b'2', b'2', b'0', b' ' | b'-', ..] => "it seems to be another service, perhaps that of an ESXi host",
        [b'S', b'S', b'H', b'-', ..] => "it seems to be an SSH server",
        _ => "NBD servers begin with \"NBDMAGIC\"",
    }
}

/// The exports of a server in a sentence; of the first ones the size, where it is known, and whether they are read-only.
fn listed(names: &[String], about: &[Option<(u64, bool)>]) -> String {
    let mut text = match names.len() {
        0 => return "the server lists no exports".to_owned(),
        1 => "the server has the export ".to_owned(),
        _ => "the server has the exports ".to_owned(),
    };
    let about = about.iter().map(Option::as_ref).chain(std::iter::repeat(None));
    let named = names.iter().take(MOST_NAMED).zip(about).map(|(name, about)| {
        let name = shown(name.as_bytes());
        match about {
            Some((size, true)) => format!("{name} ({size} bytes, read-only)"),
            Some((size, false)) => format!("{name} ({size} bytes)"),
            None => name,
        }
    });
    text.push_str(&named.collect::<Vec<_>>().join(", "));
    if names.len() > MOST_NAMED {
        text.push_str(" and more");
    }
    text
}

/// An export of which nothing but size and flags is known.
fn plain_export(size: u64, flags: u16) -> Result<Export> {
    export(size, flags, options::USUAL_BLOCKS, Replies::Simple, None)
}

fn export(
    size: u64,
    flags: u16,
    blocks: BlockSizes,
    replies: Replies,
    allocation: Option<u32>,
) -> Result<Export> {
    if i64::try_from(size).is_err() {
        return Err(protocol(format!("an export of {size} bytes, more than a file can have")));
    }
    // Without the first flag the others mean nothing; that writing is forbidden is believed anyway.
    let meant = if flags & options::HAS_FLAGS == 0 { flags & options::READ_ONLY } else { flags };
    Ok(Export { size, flags: meant, blocks, replies, allocation })
}
