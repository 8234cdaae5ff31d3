//! Which machine and process this is, and whether the process of a member still lives.

use std::fs;
use std::io;
use std::path::Path;

use crate::storage::lock::member::Member;

/// This process as other holders of locks see it.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    machine: String,
    pid: u32,
    /// Clock ticks from boot to the start of the process; 0 when the system does not say.
    start: u64,
    execution: String,
}

impl Owner {
    /// This process on this machine.
    pub fn current() -> Owner {
        let pid = std::process::id();
        let (name, start) = fs::read("/proc/self/stat")
            .ok()
            .and_then(|stat| Stat::parse(&stat))
            .filter(|stat| stat.pid == pid)
            .map_or((String::new(), 0), |stat| (stat.name, stat.start));
        let name: String =
            name.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect();
        let mut execution = if start == 0 { format!("{pid}-0") } else { format!("{pid}-{start}({name})") };
        while execution.len() > LONGEST_EXECUTION {
            execution.pop();
        }
        Owner { machine: machine_id(), pid, start, execution }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// This process as an exclusive member.
    pub fn member(&self, lamport: u32, location: u32) -> Member {
        Member {
            machine: self.machine.clone(),
            execution: self.execution.clone(),
            lamport,
            exclusive: true,
            created: Some(self.start),
            location: Some(location),
        }
    }

    /// Why `member` of the folder with hash `location` can be removed; `None` when it cannot. What is not known for sure is
    /// taken for alive.
    pub fn why_stale(&self, member: &Member, location: u32) -> Option<&'static str> {
        if !same_machine(&self.machine, &member.machine) {
            return None;
        }
        let (pid, start) = process_of(member)?;
        if pid == self.pid && start == self.start {
            // A folder that moved under a living process of somebody else says nothing; our own locks do not move.
            return member.location.filter(|&of| of != location).map(|_| "it belongs to another folder");
        }
        match life_of(pid) {
            Life::Gone => Some("its process is gone"),
            Life::Started(at) if start != 0 && at != start => {
                Some("its process is gone, another one has its number")
            }
            Life::Started(_) | Life::Unknown => None,
        }
    }

    /// A sentence that says who holds the lock.
    pub fn describe(&self, member: &Member, path: &Path) -> String {
        let file = path.display();
        let execution = member.execution.escape_debug();
        if same_machine(&self.machine, &member.machine) {
            let own = process_of(member).is_some_and(|(pid, _)| pid == self.pid);
            let whose = if own { "this process" } else { "process" };
            return format!("held by {whose} {execution} of this machine, lock file {file}");
        }
        let machine = member.machine.escape_debug();
        format!("held by process {execution} of machine {machine}, lock file {file}")
    }
}

/// What `/proc/pid/stat` says.
struct Stat {
    pid: u32,
    name: String,
    start: u64,
}

impl Stat {
    /// `pid (name) state ..`, where the name may contain blanks and parentheses; the start time is the 22nd field.
    fn parse(stat: &[u8]) -> Option<Stat> {
        let text = String::from_utf8_lossy(stat);
        let (pid, rest) = text.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(')')?;
        let start = rest.split_ascii_whitespace().nth(19)?;
        Some(Stat { pid: pid.parse().ok()?, name: name.to_owned(), start: start.parse().ok()? })
    }
}

/// Process id and start time of a member; the start time is 0 when it does not say.
fn process_of(member: &Member) -> Option<(u32, u64)> {
    match member.execution.split_once('-') {
        Some((pid, rest)) => {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            Some((pid.parse().ok()?, digits.parse().unwrap_or(0)))
        }
        // Programs that name the process by its number alone put the start time into the fifth field.
        None => Some((member.execution.parse().ok()?, member.created.unwrap_or(0))),
    }
}

enum Life {
    /// Running, started at this time.
    Started(u64),
    Gone,
    Unknown,
}

fn life_of(pid: u32) -> Life {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => Stat::parse(&stat).map_or(Life::Unknown, |stat| Life::Started(stat.start)),
        Err(e) if is_missing(&e) && sees_all_processes() => Life::Gone,
        Err(_) => Life::Unknown,
    }
}

/// False where `/proc` hides other users' processes, or belongs to other process numbers than ours.
fn sees_all_processes() -> bool {
    let own = fs::read("/proc/self/stat").ok().and_then(|stat| Stat::parse(&stat));
    own.is_some_and(|stat| stat.pid == std::process::id()) && fs::read("/proc/1/stat").is_ok()
}

fn is_missing(error: &io::Error) -> bool {
    const ESRCH: i32 = 3; // the process ended between opening and reading
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}

/// True when both ids mean one machine. Of two ids in the old form the first 4 bytes, which come from the host's name, do
/// not count.
fn same_machine(one: &str, other: &str) -> bool {
    match (old_form(one), old_form(other)) {
        (Some([_, _, _, _, one @ ..]), Some([_, _, _, _, other @ ..])) => one == other,
        _ => one == other,
    }
}

/// The id of this machine in the old form: 12 bytes in base 64, the first 4 from the host's name.
///
/// The rest must be the same in every program of this kind on this machine and nowhere else, or a living lock of another
/// machine is taken for a leftover. So everything goes in that tells clones apart: the machine's number, its name, its
/// network cards, and the process numbers' own world (a container cannot see whether a process outside lives).
fn machine_id() -> String {
    let read = |path: &str| fs::read(path).ok().filter(|text| !text.is_empty());
    let host = read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname")).unwrap_or_default();
    let machine = read("/etc/machine-id").or_else(|| read("/var/lib/dbus/machine-id"));
    let machine = machine.or_else(|| read("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    let processes = fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned());
    let mut hash = Fnv::new();
    for part in
        [&machine, &host, lowest_hardware_address().as_bytes(), processes.unwrap_or_default().as_bytes()]
    {
        hash.add(part);
        hash.add(&[0]);
    }
    let mut name = Fnv::new();
    name.add(&host);
    let mut id = [0; 12];
    let (front, back) = id.split_at_mut(4);
    front.copy_from_slice(&name.low());
    back.copy_from_slice(&hash.0.to_le_bytes());
    to_base64(&id)
}

/// The lowest address of a network card; virtual interfaces, which come and go, do not count.
fn lowest_hardware_address() -> String {
    let Ok(interfaces) = fs::read_dir("/sys/class/net") else { return String::new() };
    let cards = interfaces.filter_map(io::Result::ok).filter(|card| card.path().join("device").exists());
    let addresses = cards.filter_map(|card| fs::read_to_string(card.path().join("address")).ok());
    addresses
        .map(|address| address.trim().to_owned())
        .filter(|a| a != "00:00:00:00:00:00")
        .min()
        .unwrap_or_default()
}

/// Fowler-Noll-Vo 1a, 64 bits: short, stable, and does not show what went in.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Both halves folded into 4 bytes.
    fn low(&self) -> [u8; 4] {
        let [a, b, c, d, e, f, g, h] = self.0.to_le_bytes();
        [a ^ e, b ^ f, c ^ g, d ^ h]
    }
}

/// Base 64 with `-` in place of `/`, because the id also serves in file names.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";

fn to_base64(id: &[u8; 12]) -> String {
    let mut text = String::with_capacity(16);
    for group in id.chunks_exact(3) {
        let bits = group.iter().fold(0usize, |bits, &byte| bits << 8 | usize::from(byte));
        for shift in [18, 12, 6, 0] {
            text.push(char::from(ALPHABET[bits >> shift & 63]));
        }
    }
    text
}

fn old_form(text: &str) -> Option<[u8; 12]> {
    let digits: &[u8; 16] = text.as_bytes().try_into().ok()?;
    let mut id = [0; 12];
    for (group, bytes) in digits.chunks_exact(4).zip(id.chunks_exact_mut(3)) {
        let mut bits = 0usize;
        for digit in group {
            bits = bits << 6 | ALPHABET.iter().position(|known| known == digit)?;
        }
        for (byte, shift) in bytes.iter_mut().zip([16, 8, 0]) {
            *byte = (bits >> shift & 255) as u8;
        }
    }
    Some(id)
}

/// What VMware cuts the text at.
const LONGEST_EXECUTION: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_one_id_of_16_characters() {
        let id = machine_id();
        assert_eq!(id, machine_id());
        assert_eq!(id.len(), 16);
        assert!(id.bytes().all(|b| ALPHABET.contains(&b)), "{id}");
    }

    #[test]
    fn old_ids_ignore_the_part_that_comes_from_the_host_name() {
        let id = |front, back| to_base64(&[front, front, front, front, back, 2, 3, 4, 5, 6, 7, 8]);
        assert!(same_machine(&id(1, 9), &id(255, 9)));
        assert!(!same_machine(&id(1, 9), &id(1, 10)));
        assert_eq!(old_form(&id(1, 9)), Some([1, 1, 1, 1, 9, 2, 3, 4, 5, 6, 7, 8]));
        assert!(!same_machine("uuid=00-11", &id(1, 9)));
        assert!(same_machine("uuid=00-11", "uuid=00-11"));
    }

    #[test]
    fn a_process_name_may_contain_blanks_and_parentheses() {
        let stat = b"12 (a) (b c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!((stat.pid, stat.name.as_str(), stat.start), (12, "a) (b c", 4711));
        assert!(Stat::parse(b"12 (a").is_none());
    }

    #[test]
    fn all_three_forms_of_a_process_are_read() {
        let of = |execution: &str| {
            let member = Owner::current().member(1, 1);
            process_of(&Member { execution: execution.into(), created: Some(9), ..member })
        };
        assert_eq!(of("17-35(nbdkit)"), Some((17, 35)));
        assert_eq!(of("17-35"), Some((17, 35)));
        assert_eq!(of("17-0"), Some((17, 0)));
        assert_eq!(of("17"), Some((17, 9)));
        assert_eq!(of("x-35"), None);
    }
}
