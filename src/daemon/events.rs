//! What happened: a bus with a bounded past.
//!
//! A publisher never waits: a subscriber whose queue is full loses the event. Subscribing returns the past
//! and the future under one lock, so that no event falls between them. A subscription that is dropped is
//! forgotten at once.
//!
//! Not here: what of it a client wants (`event_stream`).
//!
//! Source: Docker keeps 256 events and gives a subscriber a queue of 1024.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::http::api::event::{Actor, Event};

const PAST: usize = 256;
const QUEUE: usize = 1024;

/// The event bus.
#[derive(Debug, Default)]
pub struct Bus {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    past: VecDeque<Arc<Event>>,
    subscribers: Vec<(u64, SyncSender<Arc<Event>>)>,
    next: u64,
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    // Each update is one push or removal: a panic elsewhere cannot leave it half done.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Events from now on.
#[derive(Debug)]
pub struct Subscription {
    receiver: Receiver<Arc<Event>>,
    number: u64,
    bus: Arc<Mutex<Inner>>,
}

impl Subscription {
    /// The next event; blocks at most `timeout`.
    pub fn next(&self, timeout: Duration) -> Option<Arc<Event>> {
        // The bus has our sender for as long as we are: only the time can be up.
        self.receiver.recv_timeout(timeout).ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.bus).subscribers.retain(|(number, _)| *number != self.number);
    }
}

impl Bus {
    /// Tells everyone that `action` happened to the object `id` of `kind`.
    pub fn publish(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let is_legacy = matches!(kind, "container" | "image");
        let mut event = Event {
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
            ..Event::default()
        };
        let mut inner = lock(&self.inner);
        // Under the lock, so that the past is in the order of its times.
        let now = jiff::Timestamp::now();
        event.time = now.as_second();
        event.time_nano = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let event = Arc::new(event);
        if inner.past.len() == PAST {
            inner.past.pop_front();
        }
        inner.past.push_back(Arc::clone(&event));
        for (_, subscriber) in &inner.subscribers {
            // A full queue loses it.
            let _ = subscriber.try_send(Arc::clone(&event));
        }
    }

    /// The past, oldest first, and what begins right after it.
    pub fn subscribe(&self) -> (Vec<Arc<Event>>, Subscription) {
        let (sender, receiver) = sync_channel(QUEUE);
        let mut inner = lock(&self.inner);
        let number = inner.next;
        inner.next += 1;
        inner.subscribers.push((number, sender));
        let past = inner.past.iter().cloned().collect();
        (past, Subscription { receiver, number, bus: Arc::clone(&self.inner) })
    }

    /// How many listen.
    pub fn subscribers(&self) -> usize {
        lock(&self.inner).subscribers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there already.
    fn drain(subscription: &Subscription) -> Vec<Arc<Event>> {
        std::iter::from_fn(|| subscription.next(Duration::ZERO)).collect()
    }

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
        assert_eq!(drain(&future)[0].actor.id, "300");
    }

    /// Whoever subscribes in the middle of a storm has each publisher's events in order, none missing and
    /// none twice, and their times never go back.
    #[test]
    fn a_storm_leaves_no_gap_between_past_and_future() {
        const PUBLISHERS: usize = 4;
        const EACH: usize = 60;
        let bus = Bus::default();
        std::thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let bus = &bus;
                scope.spawn(move || {
                    for number in 0..EACH {
                        bus.publish("image", &number.to_string(), &publisher.to_string(), BTreeMap::new());
                    }
                });
            }
            for _ in 0..8 {
                scope.spawn(|| {
                    let (mut seen, future) = bus.subscribe();
                    while seen.len() < PUBLISHERS * EACH {
                        seen.push(future.next(Duration::from_secs(20)).expect("an event is missing"));
                    }
                    assert!(seen.is_sorted_by_key(|event| event.time_nano));
                    for publisher in 0..PUBLISHERS {
                        let id = publisher.to_string();
                        let of_one = seen.iter().filter(|event| event.actor.id == id);
                        let numbers: Vec<usize> = of_one.map(|event| event.action.parse().unwrap()).collect();
                        assert!(numbers.iter().copied().eq(0..EACH), "{numbers:?}");
                    }
                });
            }
        });
        assert_eq!(bus.subscribers(), 0);
    }

    #[test]
    fn a_full_queue_loses_events_and_a_gone_one_is_forgotten_at_once() {
        let bus = Bus::default();
        let (_, slow) = bus.subscribe();
        drop(bus.subscribe());
        assert_eq!(bus.subscribers(), 1);
        for number in 0..QUEUE + 10 {
            bus.publish("image", "tag", &number.to_string(), BTreeMap::new());
        }
        assert_eq!(drain(&slow).len(), QUEUE);
    }
}
