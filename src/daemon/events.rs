//! What happened: a bus with a bounded past.
//!
//! A publisher never waits: a subscriber whose queue is full loses the event. Subscribing returns the past
//! and the future under one lock, so that no event falls between them.
//!
//! Source: Docker keeps 256 events and gives a subscriber a queue of 1024.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::http::api::event::{Actor, Event};

const PAST: usize = 256;
const QUEUE: usize = 1024;

/// The event bus.
#[derive(Debug, Default)]
pub struct Bus {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    past: VecDeque<Event>,
    subscribers: Vec<SyncSender<Event>>,
}

impl Bus {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each update is one push or retain: a panic elsewhere cannot leave it half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everyone that `action` happened to the object `id` of `kind`.
    pub fn publish(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let now = jiff::Timestamp::now();
        let is_legacy = matches!(kind, "container" | "image");
        let event = Event {
            status: if is_legacy { action.to_owned() } else { String::new() },
            id: if is_legacy { id.to_owned() } else { String::new() },
            from: if kind == "container" {
                attributes.get("image").cloned().unwrap_or_default()
            } else {
                String::new()
            },
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        };
        let mut inner = self.lock();
        if inner.past.len() == PAST {
            inner.past.pop_front();
        }
        inner.past.push_back(event.clone());
        inner.subscribers.retain(|subscriber| {
            !matches!(subscriber.try_send(event.clone()), Err(TrySendError::Disconnected(_)))
        });
    }

    /// The past, oldest first, and a queue that begins right after it.
    pub fn subscribe(&self) -> (Vec<Event>, Receiver<Event>) {
        let (sender, receiver) = sync_channel(QUEUE);
        let mut inner = self.lock();
        inner.subscribers.push(sender);
        (inner.past.iter().cloned().collect(), receiver)
    }

    /// How many listen. Those that have gone are only noticed at the next event.
    pub fn subscribers(&self) -> usize {
        self.lock().subscribers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_and_the_future_meet_without_a_gap() {
        let bus = Bus::default();
        for number in 0..300 {
            bus.publish("container", "start", &number.to_string(), BTreeMap::new());
        }
        let (past, future) = bus.subscribe();
        bus.publish("container", "die", "300", BTreeMap::new());
        assert_eq!(past.len(), PAST);
        assert_eq!(past[PAST - 1].actor.id, "299");
        assert_eq!(future.try_recv().unwrap().actor.id, "300");
    }

    #[test]
    fn a_full_queue_loses_events_and_a_gone_one_is_forgotten() {
        let bus = Bus::default();
        let (_, slow) = bus.subscribe();
        drop(bus.subscribe());
        for number in 0..QUEUE + 10 {
            bus.publish("image", "tag", &number.to_string(), BTreeMap::new());
        }
        assert_eq!(slow.try_iter().count(), QUEUE);
        assert_eq!(bus.subscribers(), 1);
    }
}
