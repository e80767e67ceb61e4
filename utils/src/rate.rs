//! Rate limits: token buckets with a rate per second and a burst.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A token bucket: fills with `rate` tokens per second up to `burst`.
///
/// Callers pass the time, which keeps state machines such as the gateway's protocol deterministic. A bucket takes 40 bytes; each
/// connection has one.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// Tokens per second.
    rate: f64,
    /// Most tokens.
    burst: f64,
    /// Tokens at `filled_at`.
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket. Both limits are at least 1, so that every wait ends.
    pub fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let (rate, burst) = (f64::from(rate.max(1)), f64::from(burst.max(1)));
        Self { rate, burst, tokens: burst, filled_at: now }
    }

    /// Takes `n` tokens, or the whole burst if `n` is larger.
    ///
    /// # Errors
    /// Too few tokens: returns the time until there are enough, and takes none.
    pub fn try_take(&mut self, n: u32, now: Instant) -> Result<(), Duration> {
        self.tokens = self.tokens_at(now);
        self.filled_at = self.filled_at.max(now);
        let wanted = f64::from(n).min(self.burst);
        if wanted <= self.tokens {
            self.tokens -= wanted;
            return Ok(());
        }
        Err(Duration::from_secs_f64((wanted - self.tokens) / self.rate))
    }

    /// Whether the bucket is full, and so equal to a new one.
    pub fn is_full(&self, now: Instant) -> bool {
        self.tokens_at(now) >= self.burst
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let filled = now.saturating_duration_since(self.filled_at).as_secs_f64() * self.rate;
        (self.tokens + filled).min(self.burst)
    }
}

/// One bucket per key, at most `capacity` of them. Full buckets are removed.
#[derive(Debug)]
pub struct KeyedLimiter<K> {
    rate: u32,
    burst: u32,
    capacity: usize,
    buckets: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    by_key: HashMap<K, TokenBucket>,
    swept_at: Instant,
}

/// Minimum time between two removals of full buckets.
const SWEEP: Duration = Duration::from_secs(1);

impl<K: Eq + Hash + Clone> KeyedLimiter<K> {
    /// Each key may take `rate` tokens per second and `burst` at once. If more than `capacity` keys are active, some
    /// buckets are evicted and start full again: bounded memory is more important than an exact limit.
    pub fn new(rate: u32, burst: u32, capacity: usize) -> Self {
        let buckets = Buckets { by_key: HashMap::new(), swept_at: Instant::now() };
        Self { rate, burst, capacity: capacity.max(1), buckets: Mutex::new(buckets) }
    }

    /// Takes `n` tokens from the bucket of a key.
    ///
    /// # Errors
    /// Too few tokens: returns how long this key must wait.
    pub fn try_take(&self, key: &K, n: u32, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.by_key.get_mut(key) {
            return bucket.try_take(n, now);
        }
        buckets.make_room(self.capacity, now);
        let mut bucket = TokenBucket::new(self.rate, self.burst, now);
        let taken = bucket.try_take(n, now);
        buckets.by_key.insert(key.clone(), bucket);
        taken
    }

    /// Number of keys with a bucket.
    pub fn len(&self) -> usize {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).by_key.len()
    }

    /// Whether no key has a bucket.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    fn make_room(&mut self, capacity: usize, now: Instant) {
        if now.saturating_duration_since(self.swept_at) >= SWEEP {
            self.swept_at = now;
            self.by_key.retain(|_, bucket| !bucket.is_full(now));
        }
        while self.by_key.len() >= capacity {
            let Some(any) = self.by_key.keys().next().cloned() else { return };
            self.by_key.remove(&any);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p8_a_bucket_allows_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 5, start);
        for _ in 0..5 {
            bucket.try_take(1, start).unwrap();
        }
        assert_eq!(bucket.try_take(1, start), Err(Duration::from_millis(100)));
        let later = start + Duration::from_millis(100);
        bucket.try_take(1, later).unwrap();
        bucket.try_take(1, later).unwrap_err();
        bucket.try_take(1, start).unwrap_err();
        assert!(!bucket.is_full(later));
        assert!(bucket.is_full(later + Duration::from_secs(1)));
    }

    #[test]
    fn a_full_bucket_allows_a_request_larger_than_the_burst() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1, 2, start);
        bucket.try_take(100, start).unwrap();
        assert_eq!(bucket.try_take(100, start), Err(Duration::from_secs(2)));
    }

    #[test]
    fn keys_have_separate_buckets() {
        let start = Instant::now();
        let limiter = KeyedLimiter::new(1, 1, 10);
        limiter.try_take(&"a", 1, start).unwrap();
        limiter.try_take(&"a", 1, start).unwrap_err();
        limiter.try_take(&"b", 1, start).unwrap();
    }

    #[test]
    fn p7_full_buckets_are_removed_and_the_number_of_keys_is_bounded() {
        let start = Instant::now();
        let limiter = KeyedLimiter::new(1, 1, 100);
        for key in 0..1_000 {
            limiter.try_take(&key, 1, start).unwrap();
        }
        assert_eq!(limiter.len(), 100);
        limiter.try_take(&1_000, 1, start + Duration::from_secs(10)).unwrap();
        assert_eq!(limiter.len(), 1);
    }
}
