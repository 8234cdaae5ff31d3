//! The content of a member file: `machine execution lamport type creation-time [name=value ..]`, padded with NUL.

use crate::error::{Error, ErrorKind, Result};

/// Length of a member file.
pub(super) const LEN: usize = 512;

/// Who holds or waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The machine.
    pub machine: String,
    /// The process: `pid-starttime(name)`, `pid-starttime` or `pid`.
    pub execution: String,
    /// The number drawn.
    pub lamport: u32,
    /// `X`, as opposed to `S`.
    pub exclusive: bool,
    /// When the process was started, in the machine's own unit.
    pub created: Option<u64>,
    /// Hash of the lock folder's path.
    pub location: Option<u32>,
}

impl Member {
    /// `None`: not a member file.
    pub fn parse(bytes: &[u8]) -> Option<Member> {
        if bytes.len() != LEN {
            return None;
        }
        let text = bytes.split(|&b| b == 0).next()?;
        let text = String::from_utf8_lossy(text);
        let mut fields = text.split_ascii_whitespace();
        let mut member = Member {
            machine: fields.next()?.to_owned(),
            execution: fields.next()?.to_owned(),
            lamport: fields.next()?.parse().ok()?,
            exclusive: match fields.next()? {
                "X" => true,
                "S" => false,
                _ => return None,
            },
            // Older programs leave it out, or write something else in its place.
            created: fields.next().and_then(|field| field.parse().ok()),
            location: None,
        };
        for property in fields {
            let (name, value) =
                property.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())?;
            if name == "lc" {
                member.location = Some(value.parse().ok()?);
            }
        }
        Some(member)
    }

    /// The file's content.
    pub fn to_bytes(&self) -> Result<[u8; LEN]> {
        let kind = if self.exclusive { 'X' } else { 'S' };
        let created = self.created.unwrap_or(0);
        let mut text = format!("{} {} {} {kind} {created}", self.machine, self.execution, self.lamport);
        if let Some(location) = self.location {
            text += &format!(" lc={location}");
        }
        let mut bytes = [0; LEN];
        match bytes.get_mut(..text.len()) {
            Some(room) if text.len() < LEN => room.copy_from_slice(text.as_bytes()),
            _ => return Err(Error::new(ErrorKind::Internal, format!("a lock file of {} bytes", text.len()))),
        }
        Ok(bytes)
    }
}
