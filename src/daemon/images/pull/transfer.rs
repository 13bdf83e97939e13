//! Layers on their way into the store: each once, however many pulls want it, so many at a time, as long as
//! somebody waits for it.
//!
//! ```text
//!   pull A ──join──┐                    ┌── news ──▶ A
//!                  ├─▶ transfer (thread)┤
//!   pull B ──join──┘   slot, fetch, end └── news ──▶ B
//! ```
//!
//! The pull that came first runs the transfer on a thread of its own scope; who leaves last cancels it.

use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::daemon::error::Result;
use crate::daemon::images::Digest;
use crate::http::api::image::JsonMessage;
use crate::http::registry::Cancel;

/// How often somebody who waits for a slot looks whether he is still wanted.
const SLICE: Duration = Duration::from_millis(250);

/// The layer as it is packed, and as it is to be unpacked: who lies about the second spoils nobody else's pull.
pub type Key = (Digest, Digest);

/// What is told of a transfer.
#[derive(Clone, Debug)]
pub enum News {
    Progress(JsonMessage),
    End(Result<()>),
}

/// All transfers under way.
#[derive(Debug, Default)]
pub struct Transfers {
    table: Mutex<HashMap<Key, Arc<Transfer>>>,
    busy: Mutex<usize>,
    freed: Condvar,
}

/// One layer on its way.
#[derive(Debug, Default)]
pub struct Transfer {
    state: Mutex<State>,
    pub cancel: Cancel,
}

#[derive(Debug, Default)]
struct State {
    watchers: Vec<(u64, Sender<(Key, News)>)>,
    next: u64,
    /// For whoever comes later.
    last: Option<JsonMessage>,
    end: Option<Result<()>>,
}

/// One pull's interest in a transfer; given up when dropped.
#[derive(Debug)]
pub struct Interest<'a> {
    transfers: &'a Transfers,
    key: Key,
    transfer: Arc<Transfer>,
    number: u64,
}

/// A permit to be busy with a transfer.
#[derive(Debug)]
pub struct Slot<'a>(&'a Transfers);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Transfers {
    /// Joins the transfer of `key`, whose news go to `sender`. When it is new it is answered too, and the caller
    /// has to run it.
    pub fn join(&self, key: &Key, sender: Sender<(Key, News)>) -> (Interest<'_>, Option<Arc<Transfer>>) {
        let mut table = lock(&self.table);
        let (transfer, is_new) = match table.get(key) {
            Some(transfer) => (Arc::clone(transfer), false),
            None => {
                let transfer = Arc::new(Transfer::default());
                table.insert(key.clone(), Arc::clone(&transfer));
                (transfer, true)
            }
        };
        let mut state = lock(&transfer.state);
        let number = state.next;
        state.next += 1;
        // Whoever hangs up needs no news.
        if let Some(last) = &state.last {
            let _ = sender.send((key.clone(), News::Progress(last.clone())));
        }
        if let Some(end) = &state.end {
            let _ = sender.send((key.clone(), News::End(end.clone())));
        }
        state.watchers.push((number, sender));
        drop(state);
        let interest =
            Interest { transfers: self, key: key.clone(), transfer: Arc::clone(&transfer), number };
        (interest, is_new.then_some(transfer))
    }

    /// Waits for one of `limit` slots; `None` when nobody wants it any more. `wait` is called if it takes waiting.
    pub fn slot(&self, limit: usize, cancel: &Cancel, wait: impl FnOnce()) -> Option<Slot<'_>> {
        let mut busy = lock(&self.busy);
        if *busy >= limit {
            drop(busy);
            wait();
            busy = lock(&self.busy);
        }
        loop {
            if cancel.is_cancelled() {
                return None;
            }
            if *busy < limit {
                *busy += 1;
                return Some(Slot(self));
            }
            busy = self.freed.wait_timeout(busy, SLICE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells everybody how it ended. Who comes later begins anew.
    pub fn end(&self, key: &Key, transfer: &Arc<Transfer>, result: Result<()>) {
        let mut table = lock(&self.table);
        if table.get(key).is_some_and(|known| Arc::ptr_eq(known, transfer)) {
            table.remove(key);
        }
        let mut state = lock(&transfer.state);
        state.end = Some(result.clone());
        for (_, sender) in &state.watchers {
            let _ = sender.send((key.clone(), News::End(result.clone())));
        }
    }
}

impl Transfer {
    /// Tells everybody how far it has come.
    pub fn tell(&self, key: &Key, message: JsonMessage) {
        let mut state = lock(&self.state);
        for (_, sender) in &state.watchers {
            let _ = sender.send((key.clone(), News::Progress(message.clone())));
        }
        state.last = Some(message);
    }
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        let mut table = lock(&self.transfers.table);
        let mut state = lock(&self.transfer.state);
        state.watchers.retain(|(number, _)| *number != self.number);
        if state.watchers.is_empty() {
            self.transfer.cancel.cancel();
            if table.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.transfer)) {
                table.remove(&self.key);
            }
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *lock(&self.0.busy) -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn key(text: &str) -> Key {
        (Digest::of(text.as_bytes()), Digest::of(b"diff"))
    }

    #[test]
    fn who_comes_second_gets_the_last_news_and_the_end() {
        let transfers = Transfers::default();
        let (one, two) = (channel(), channel());
        let (first, new) = transfers.join(&key("a"), one.0);
        let transfer = new.unwrap();
        transfer.tell(&key("a"), JsonMessage::status("half"));
        let (second, new) = transfers.join(&key("a"), two.0);
        assert!(new.is_none());
        drop(first);
        assert!(!transfer.cancel.is_cancelled());
        transfers.end(&key("a"), &transfer, Ok(()));
        let news: Vec<_> = two.1.try_iter().map(|(_, news)| news).collect();
        assert!(
            matches!(&news[..], [News::Progress(last), News::End(Ok(()))] if last.status.as_deref() == Some("half"))
        );
        drop(second);
        // It is over: the next begins anew.
        assert!(transfers.join(&key("a"), channel().0).1.is_some());
    }

    #[test]
    fn who_leaves_last_cancels() {
        let transfers = Transfers::default();
        let (first, new) = transfers.join(&key("a"), channel().0);
        let transfer = new.unwrap();
        let (second, _) = transfers.join(&key("a"), channel().0);
        drop((first, second));
        assert!(transfer.cancel.is_cancelled());
        assert!(transfers.join(&key("a"), channel().0).1.is_some());
    }

    #[test]
    fn slots_are_limited_and_given_back() {
        let transfers = Transfers::default();
        let cancel = Cancel::default();
        let slot = transfers.slot(1, &cancel, || panic!("there is one")).unwrap();
        let cancelled = Cancel::default();
        cancelled.cancel();
        let mut waited = false;
        assert!(transfers.slot(1, &cancelled, || waited = true).is_none());
        assert!(waited);
        drop(slot);
        assert!(transfers.slot(1, &cancel, || panic!("there is one")).is_some());
    }
}
