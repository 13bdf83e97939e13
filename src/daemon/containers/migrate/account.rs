//! What a move has sent, counted, and told to its user.

use std::time::{Duration, Instant};

use super::wire::Sender;
use crate::http::api::image::{JsonMessage, ProgressDetail};
use crate::http::api::migrate::{Counted, Doing, Moving};

/// How often it is told, at most.
const PACE: Duration = Duration::from_millis(100);

/// What a migration has sent, and tells its user of that.
pub struct Account<'a> {
    sender: &'a Sender,
    pub began: Instant,
    /// Of everything.
    pub bytes: u64,
    doing: Doing,
    /// When that began, and what had been sent by then.
    since: (Instant, u64),
    told: Instant,
}

impl Account<'_> {
    pub fn begin(sender: &Sender) -> Account<'_> {
        let began = Instant::now();
        Account { sender, began, bytes: 0, doing: Doing::Offering, since: (began, 0), told: began }
    }

    /// Begins with something else, in words for its user.
    pub fn enter(&mut self, doing: Doing, text: &str) {
        (self.doing, self.since) = (doing, (Instant::now(), self.bytes));
        self.sender.progress(&JsonMessage::status(text));
        self.count(0);
    }

    /// Counts, and tells now and then: `so_far` of `total` of the like, with these bytes.
    pub fn sent(&mut self, bytes: u64, what: &str, total: Option<u64>, so_far: &mut u64) {
        self.bytes += bytes;
        *so_far += bytes;
        if self.told.elapsed() >= PACE {
            self.told = Instant::now();
            let detail = ProgressDetail {
                current: i64::try_from(*so_far).ok().unwrap_or(i64::MAX),
                total: total.and_then(|total| i64::try_from(total).ok()).unwrap_or(0),
                ..ProgressDetail::default()
            };
            self.sender.progress(&JsonMessage::progress(what, "Sending", detail));
            self.count(total.map_or(0, |total| self.bytes.saturating_sub(*so_far).saturating_add(total)));
        }
    }

    /// Tells it in numbers.
    fn count(&self, total: u64) {
        let (began, before) = self.since;
        let here = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let counted = Counted {
            doing: self.doing,
            bytes: self.bytes,
            total,
            bytes_per_second: (self.bytes - before).saturating_mul(1000) / here,
            milliseconds: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let aux = serde_json::to_value(Moving { moving: counted }).ok();
        self.sender.progress(&JsonMessage { aux, ..JsonMessage::default() });
    }
}
