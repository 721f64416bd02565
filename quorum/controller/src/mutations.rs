//! The quota on changes to topics and partitions (KIP-599): a token bucket for each of those who share
//! a quota, and what one request may take from it.
//!
//! Separate from what is decided, which only asks whether so many partitions may change. Invariant:
//! tokens never exceed the burst; below zero nobody strict gets any.

use crate::client_quotas::{CONTROLLER_MUTATION_RATE, client_quota};
use crate::error::{ApiError, ErrorKind};
use alloc::collections::BTreeMap;
use core::time::Duration;
use flowstone_metadata::{Image, QuotaEntity};
use flowstone_types::Instant;

/// How many partitions may be created and deleted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MutationRate {
    /// Each second: the `controller_mutation_rate` of [`client_quota`](crate::client_quota).
    pub per_second: f64,
    /// How long the rate adds up while it is not used: `controller.quota.window.num` windows of
    /// `controller.quota.window.size.seconds`.
    pub window: Duration,
}

impl MutationRate {
    fn burst(self) -> f64 {
        self.per_second * self.window.as_secs_f64()
    }
}

/// How a request is held to its quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enforcement {
    /// It is refused once the quota is used up, and never slowed down.
    Strict,
    /// It is never refused, but slowed down: its version knows no such refusal.
    Permissive,
}

impl Enforcement {
    /// How a request of `version` is held: CreateTopics from 6, CreatePartitions from 3, DeleteTopics
    /// from 5 on strictly.
    pub const fn since(strict: i16, version: i16) -> Self {
        if version >= strict { Self::Strict } else { Self::Permissive }
    }
}

/// What is left of a quota.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MutationQuota {
    tokens: f64,
    updated: Instant,
}

impl MutationQuota {
    /// A quota that was not used yet.
    pub fn new(rate: MutationRate, now: Instant) -> Self {
        Self { tokens: rate.burst(), updated: now }
    }

    /// Whether it is as if it was never used, so that nobody need remember it.
    pub fn is_whole(&self, rate: MutationRate, now: Instant) -> bool {
        let mut whole = *self;
        whole.refill(rate, now);
        whole.tokens >= rate.burst()
    }

    /// Takes `partitions`, or where it is held strictly and nothing is left, nothing. Returns how long
    /// the client is to wait; the error is how long until there is something again.
    ///
    /// What is left may be overdrawn by any one request: a topic of 1000 partitions is created under a
    /// rate of 5, and is all for the next 200 s.
    pub fn take(
        &mut self,
        rate: MutationRate,
        enforcement: Enforcement,
        partitions: usize,
        now: Instant,
    ) -> Result<Duration, Duration> {
        self.refill(rate, now);
        if enforcement == Enforcement::Strict && self.tokens < 0.0 {
            return Err(self.until_whole(rate));
        }
        self.tokens -= partitions as f64;
        match enforcement {
            Enforcement::Permissive if self.tokens < 0.0 => Ok(self.until_whole(rate)),
            Enforcement::Strict | Enforcement::Permissive => Ok(Duration::ZERO),
        }
    }

    fn refill(&mut self, rate: MutationRate, now: Instant) {
        let gained = rate.per_second * now.since(self.updated).as_secs_f64();
        self.tokens = rate.burst().min(self.tokens + gained);
        self.updated = self.updated.max(now);
    }

    /// Until what is overdrawn is made up for, to the millisecond.
    fn until_whole(&self, rate: MutationRate) -> Duration {
        let ms = -self.tokens / rate.per_second * 1000.0;
        let rounded = (ms + 0.5) as u64; // Saturates, as casts do.
        Duration::from_millis(rounded.min(THROTTLE_MS_MAX))
    }
}

/// What ThrottleTimeMs can tell.
const THROTTLE_MS_MAX: u64 = i32::MAX as u64;

/// What is left to everybody. Lives with the controller's leadership: who leads anew starts whole.
#[derive(Debug)]
pub struct MutationQuotas {
    quotas: BTreeMap<QuotaEntity, (MutationQuota, MutationRate)>,
    /// How many there may be before those that are whole again are forgotten.
    sweep_at: usize,
}

/// So few are not worth going through.
const SWEEP_AT_MIN: usize = 1024;

impl Default for MutationQuotas {
    fn default() -> Self {
        Self { quotas: BTreeMap::new(), sweep_at: SWEEP_AT_MIN }
    }
}

impl MutationQuotas {
    /// What a request of this user's client may change; `window` as in [`MutationRate`].
    pub fn allowance(
        &mut self,
        image: &Image,
        (user, client_id): (&str, &str),
        window: Duration,
        enforcement: Enforcement,
        now: Instant,
    ) -> Allowance<'_> {
        let quota = client_quota(image, user, client_id, CONTROLLER_MUTATION_RATE);
        let Some((sharers, per_second)) = quota else { return Allowance::unbounded() };
        if self.quotas.len() >= self.sweep_at {
            // Client ids are free: whoever makes them up holds no more than what is being made up for.
            self.quotas.retain(|_, (quota, rate)| !quota.is_whole(*rate, now));
            self.sweep_at = SWEEP_AT_MIN.max(2 * self.quotas.len());
        }
        let rate = MutationRate { per_second, window };
        let whole = || (MutationQuota::new(rate, now), rate);
        let (quota, known_rate) = self.quotas.entry(sharers).or_insert_with(whole);
        *known_rate = rate;
        Allowance::of(quota, rate, enforcement, now)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.quotas.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.quotas.is_empty()
    }
}

/// What one request may change, and how long its client is to wait by the end of it.
#[derive(Debug)]
pub struct Allowance<'a> {
    quota: Option<(&'a mut MutationQuota, MutationRate, Enforcement)>,
    now: Instant,
    throttle: Duration,
}

impl<'a> Allowance<'a> {
    /// As much as it likes.
    pub const fn unbounded() -> Self {
        Self { quota: None, now: Instant(0), throttle: Duration::ZERO }
    }

    /// What the quota leaves.
    pub const fn of(
        quota: &'a mut MutationQuota,
        rate: MutationRate,
        enforcement: Enforcement,
        now: Instant,
    ) -> Self {
        Self { quota: Some((quota, rate, enforcement)), now, throttle: Duration::ZERO }
    }

    /// How long the client is to wait (ThrottleTimeMs).
    pub const fn throttle(&self) -> Duration {
        self.throttle
    }

    /// Takes for a topic; refused where nothing is left.
    pub(crate) fn take(&mut self, partitions: usize) -> Result<(), ApiError> {
        let Some((quota, rate, enforcement)) = &mut self.quota else { return Ok(()) };
        let taken = quota.take(*rate, *enforcement, partitions, self.now);
        let (Ok(throttle) | Err(throttle)) = taken;
        self.throttle = self.throttle.max(throttle);
        taken.map(drop).map_err(|_| ErrorKind::ThrottlingQuotaExceeded.into())
    }
}
