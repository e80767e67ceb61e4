//! The memory of queued frames and of answers in progress, over all connections of a gateway.

use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Counts bytes against a limit.
#[derive(Debug)]
pub struct Memory {
    used: AtomicUsize,
    max: usize,
}

impl Memory {
    /// Nothing is used yet. `max` is in bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Whether more than the limit is in use.
    pub fn is_over(&self) -> bool {
        self.used() > self.max
    }

    /// Counts bytes, also beyond the limit.
    pub(crate) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends the count of bytes that were added.
    pub(crate) fn remove(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Reserves bytes until the reservation is dropped. `None` if that would exceed the limit.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.max);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Reservation { memory: self.clone(), bytes })
    }

    /// Bytes that several connections share. They count once, until the last copy is dropped.
    pub(crate) fn share(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let length = bytes.len();
        self.add(length);
        Reservation { memory: self.clone(), bytes: length }.hold(bytes)
    }
}

/// Bytes that count as used until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Reservation {
    /// Keeps the reservation until the last copy of `bytes` is dropped.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Shared { bytes, _counted: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.remove(self.bytes);
    }
}

struct Shared {
    bytes: Bytes,
    _counted: Reservation,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_reservations_stay_within_the_limit() {
        let memory = Memory::new(100);
        let first = memory.reserve(60).unwrap();
        assert!(memory.reserve(41).is_none());
        let second = memory.reserve(40).unwrap();
        assert_eq!((memory.used(), memory.is_over()), (100, false));
        drop((first, second));
        assert!(memory.reserve(usize::MAX).is_none());
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn p7_shared_bytes_count_once_until_the_last_copy_is_dropped() {
        let memory = Memory::new(100);
        let shared = memory.share(Bytes::from(vec![7; 30]));
        let copy = shared.clone();
        assert_eq!((memory.used(), &shared[..]), (30, &[7; 30][..]));
        drop(shared);
        assert_eq!(memory.used(), 30);
        drop(copy);
        assert_eq!(memory.used(), 0);
    }
}
