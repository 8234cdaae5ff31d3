//! The end of a reservation: its entries go into the tables, or its space goes back.

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::Pending;
use crate::format::sparse::Sparse;
use crate::format::sparse::header::ENTRIES;
use crate::format::sparse::publish::Dirty;
use crate::format::sparse::write::Places;
use crate::format::sparse::write::Reservation;
use crate::format::sparse::write::Work;

impl Sparse {
    pub(super) fn enter(&self, pending: &Pending<'_>, deferred: bool) -> Result<()> {
        if deferred { self.enter_later(pending.ticket) } else { self.enter_at_once(pending.ticket) }
    }

    /// Writes the entries of a reservation to both tables, then to memory.
    fn enter_at_once(&self, ticket: u64) -> Result<()> {
        let writer = self.writer()?;
        let reservation = loop {
            let mut work = writer.work.lock();
            let reservation = find(&work, ticket)?;
            let table = reservation.table();
            if work.check().is_err() {
                break reservation;
            }
            if work.publishing.contains(&table) {
                writer.changed.wait(&mut work);
            } else if work.dirty.contains_key(&table) {
                drop(work);
                let _ = self.publish_dirty(); // a failure is found by `check`
            } else {
                work.reserved.iter_mut().filter(|r| r.ticket == ticket).for_each(|r| r.entering = true);
                break reservation;
            }
        };
        let refused = writer.work.lock().check();
        let written = refused.and_then(|()| self.write_entries(&reservation));
        let mut work = writer.work.lock();
        work.reserved.retain(|r| r.ticket != ticket);
        let mut keep = false;
        match &written {
            Ok(()) => self.set_entries(&reservation),
            Err(e) => {
                writer.fail(&mut work, e);
                // The file's table may have a part of the entries: from now on only the one in memory is believed.
                work.dirty.entry(reservation.table()).or_insert_with(|| {
                    keep = true;
                    Dirty::new(reservation.frame, reservation.places)
                });
            }
        }
        drop(work);
        if !keep {
            self.tables.unpin(reservation.frame);
        }
        writer.changed.notify_all();
        written
    }

    fn enter_later(&self, ticket: u64) -> Result<()> {
        let writer = self.writer()?;
        let mut work = writer.work.lock();
        let reservation = find(&work, ticket)?;
        work.reserved.retain(|r| r.ticket != ticket);
        let outcome = work.check();
        let mut keep = false;
        if outcome.is_ok() {
            self.set_entries(&reservation);
            let dirty = work.dirty.entry(reservation.table()).or_insert_with(|| {
                keep = true; // the reservation's pin goes over to the dirty table
                Dirty::new(reservation.frame, reservation.places)
            });
            reservation.entries(self.header.grain_bytes()).for_each(|(index, _)| dirty.mark(index));
        }
        let full = work.dirty.len() >= writer.dirty_limit;
        drop(work);
        if !keep {
            self.tables.unpin(reservation.frame);
        }
        writer.changed.notify_all();
        outcome?;
        if full { self.publish_dirty() } else { Ok(()) }
    }

    fn set_entries(&self, reservation: &Reservation) {
        for (index, value) in reservation.entries(self.header.grain_bytes()) {
            self.tables.set_entry(reservation.frame, index, value);
        }
    }

    fn write_entries(&self, reservation: &Reservation) -> Result<()> {
        let mut bytes = [0; ENTRIES * 4];
        let mut len = 0;
        let mut first = 0;
        for ((index, value), to) in
            reservation.entries(self.header.grain_bytes()).zip(bytes.as_chunks_mut::<4>().0)
        {
            if len == 0 {
                first = index as u64 * 4;
            }
            *to = value.to_le_bytes();
            len += 4;
        }
        let bytes = bytes.get(..len).unwrap_or_default();
        if !reservation.grant.zeroed {
            // What stood there before must not be found behind the entry after a power loss.
            self.body.storage.flush().context(|| self.body.name.clone())?;
        }
        let Places { primary, redundant } = reservation.places;
        for place in redundant.into_iter().chain([primary]) {
            self.body
                .storage
                .write_at(bytes, place + first)
                .context(|| format!("grain table {} of {}", reservation.table(), self.body.name))?;
        }
        Ok(())
    }

    pub(super) fn give_up(&self, pending: &Pending<'_>) {
        let Some(writer) = &self.writer else { return };
        let mut work = writer.work.lock();
        let Ok(reservation) = find(&work, pending.ticket) else { return };
        work.reserved.retain(|r| r.ticket != pending.ticket);
        work.space.give_back(reservation.grant);
        drop(work);
        self.tables.unpin(reservation.frame);
        writer.changed.notify_all();
    }
}

fn find(work: &Work, ticket: u64) -> Result<Reservation> {
    work.reserved
        .iter()
        .find(|r| r.ticket == ticket)
        .cloned()
        .ok_or_else(|| Error::new(ErrorKind::Internal, format!("no reservation {ticket}")))
}
