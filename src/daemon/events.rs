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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::bell::Bell;
use super::error::Result;
use crate::http::api::event::{Actor, Event};

const PAST: usize = 256;
const QUEUE: usize = 1024;

/// The event bus.
#[derive(Debug, Default)]
pub struct Bus {
    inner: Mutex<Inner>,
    published: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    past: VecDeque<Arc<Event>>,
    subscribers: Vec<Weak<Subscription>>,
}

/// A queue of what happens from now on.
#[derive(Debug)]
pub struct Subscription {
    queue: Mutex<VecDeque<Arc<Event>>>,
    /// Rings while there is something to take.
    pub bell: Bell,
}

impl Subscription {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        // A queue is whole between any two of its operations.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: &Arc<Event>) {
        let mut queue = self.lock();
        if queue.len() < QUEUE {
            queue.push_back(Arc::clone(event));
            self.bell.ring();
        }
    }

    /// The next event, if there is one now.
    pub fn take(&self) -> Option<Arc<Event>> {
        let mut queue = self.lock();
        let event = queue.pop_front();
        if queue.is_empty() {
            self.bell.silence();
        }
        event
    }
}

impl Bus {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each update is one push or removal: a panic elsewhere cannot leave it half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
        self.published.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        // Under the lock, so that the past is in the order of its times.
        let now = jiff::Timestamp::now();
        event.time = now.as_second();
        event.time_nano = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let event = Arc::new(event);
        if inner.past.len() == PAST {
            inner.past.pop_front();
        }
        inner.past.push_back(Arc::clone(&event));
        inner.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(subscriber) => {
                subscriber.push(&event);
                true
            }
            None => false,
        });
    }

    /// The past, oldest first, and a queue that begins right after it.
    ///
    /// # Errors
    /// System, when there are no descriptors left.
    pub fn subscribe(&self) -> Result<(Vec<Arc<Event>>, Arc<Subscription>)> {
        let subscription = Arc::new(Subscription { queue: Mutex::default(), bell: Bell::new()? });
        let mut inner = self.lock();
        inner.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        inner.subscribers.push(Arc::downgrade(&subscription));
        Ok((inner.past.iter().cloned().collect(), subscription))
    }

    /// How many events there were.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// How many listen.
    pub fn subscribers(&self) -> usize {
        self.lock().subscribers.iter().filter(|subscriber| subscriber.strong_count() > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there already.
    fn drain(subscription: &Subscription) -> Vec<Arc<Event>> {
        std::iter::from_fn(|| subscription.take()).collect()
    }

    #[test]
    fn the_past_and_the_future_meet_without_a_gap() {
        let bus = Bus::default();
        for number in 0..300 {
            bus.publish("container", "start", &number.to_string(), BTreeMap::new());
        }
        let (past, future) = bus.subscribe().unwrap();
        bus.publish("container", "die", "300", BTreeMap::new());
        assert_eq!(past.len(), PAST);
        assert_eq!(bus.published(), 301);
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
                    let (mut seen, future) = bus.subscribe().unwrap();
                    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
                    while seen.len() < PUBLISHERS * EACH {
                        assert!(std::time::Instant::now() < deadline, "an event is missing");
                        seen.extend(future.take());
                        std::thread::yield_now();
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
        let (_, slow) = bus.subscribe().unwrap();
        drop(bus.subscribe().unwrap());
        assert_eq!(bus.subscribers(), 1);
        for number in 0..QUEUE + 10 {
            bus.publish("image", "tag", &number.to_string(), BTreeMap::new());
        }
        assert_eq!(drain(&slow).len(), QUEUE);
    }
}
