//! Tickets: short-lived permissions for one connection to NFC or one transfer over HTTPS.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::Result;
use crate::sim::nfc::Grant;
use crate::sim::random;

/// More tickets at once are not kept: the oldest go.
const MOST: usize = 10_000;

/// What a ticket for `/folder` is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlGrant {
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path and query that it is for.
    pub target: String,
}

/// All tickets that were not used yet.
pub struct Tickets {
    life: Mutex<Duration>,
    /// Grants, and the number of the host that each is for.
    nfc: Mutex<Held<(usize, Grant)>>,
    urls: Mutex<Held<UrlGrant>>,
}

/// Grants by the names of their tickets, and until when they hold.
type Held<G> = HashMap<String, (Instant, G)>;

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("nfc", &self.nfc.lock().len()).finish_non_exhaustive()
    }
}

impl Tickets {
    /// None so far; each can be used for `life`.
    pub fn new(life: Duration) -> Tickets {
        Tickets { life: Mutex::new(life), nfc: Mutex::default(), urls: Mutex::default() }
    }

    /// How long tickets made from now on can be used.
    pub fn set_life(&self, life: Duration) {
        *self.life.lock() = life;
    }

    /// A ticket for NFC with this host: a UUID (O, `nfc.md` 2).
    pub fn for_nfc(&self, host: usize, grant: Grant) -> Result<String> {
        let id = random::uuid()?;
        keep(&mut self.nfc.lock(), id.clone(), *self.life.lock(), (host, grant));
        Ok(id)
    }

    /// A ticket for one transfer.
    pub fn for_url(&self, grant: UrlGrant) -> Result<String> {
        let id = random::cookie()?;
        keep(&mut self.urls.lock(), id.clone(), *self.life.lock(), grant);
        Ok(id)
    }

    /// What an NFC ticket is for; it is used up. A host does not know the tickets of another one, which stay good there.
    pub fn redeem_nfc(&self, host: usize, id: &str) -> Option<Grant> {
        let mut held = self.nfc.lock();
        held.get(id).filter(|(_, (at, _))| *at == host)?;
        take(&mut held, id).map(|(_, grant)| grant)
    }

    /// Nobody gets in with the NFC tickets of a machine that were not used until here.
    pub fn forget(&self, machine: &str) {
        self.nfc.lock().retain(|_, (_, (_, grant))| grant.machine != machine);
    }

    /// What a ticket of `/folder` is for; it is used up.
    pub fn redeem_url(&self, id: &str) -> Option<UrlGrant> {
        take(&mut self.urls.lock(), id)
    }
}

fn keep<G>(held: &mut Held<G>, id: String, life: Duration, grant: G) {
    let now = Instant::now();
    held.retain(|_, (until, _)| *until > now);
    if held.len() >= MOST
        && let Some(oldest) = held.iter().min_by_key(|(_, (until, _))| *until).map(|(id, _)| id.clone())
    {
        held.remove(&oldest);
    }
    held.insert(id, (now + life, grant));
}

fn take<G>(held: &mut Held<G>, id: &str) -> Option<G> {
    let (until, grant) = held.remove(id)?;
    (until > Instant::now()).then_some(grant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::nfc::Right;

    #[test]
    fn a_ticket_serves_once_and_not_for_ever() {
        let tickets = Tickets::new(Duration::from_secs(60));
        let grant = Grant { machine: "vm-1".to_owned(), right: Right::Files };
        let id = tickets.for_nfc(0, grant.clone()).unwrap();
        assert_eq!(tickets.redeem_nfc(0, &id), Some(grant.clone()));
        assert_eq!(tickets.redeem_nfc(0, &id), None);
        tickets.set_life(Duration::ZERO);
        let late = tickets.for_nfc(0, grant).unwrap();
        assert_eq!(tickets.redeem_nfc(0, &late), None);
        assert_eq!(tickets.redeem_nfc(0, ""), None);
    }

    #[test]
    fn a_ticket_is_good_with_its_host_alone() {
        let tickets = Tickets::new(Duration::from_secs(60));
        let grant = Grant { machine: "vm-1".to_owned(), right: Right::Files };
        let id = tickets.for_nfc(1, grant.clone()).unwrap();
        assert_eq!(tickets.redeem_nfc(0, &id), None);
        assert_eq!(tickets.redeem_nfc(1, &id), Some(grant), "the wrong host did not use it up");
    }

    #[test]
    fn the_tickets_of_a_machine_are_forgotten_together() {
        let tickets = Tickets::new(Duration::from_secs(60));
        let ticket = |machine: &str| {
            let grant = Grant { machine: machine.to_owned(), right: Right::Files };
            tickets.for_nfc(0, grant).unwrap()
        };
        let [one, other] = ["vm-1", "vm-11"].map(ticket);
        tickets.forget("vm-1");
        assert_eq!(tickets.redeem_nfc(0, &one), None);
        assert!(tickets.redeem_nfc(0, &other).is_some());
    }
}
