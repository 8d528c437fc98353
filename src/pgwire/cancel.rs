//! Cancelling a session's statement from outside: by process id and secret, over a connection of its own.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::world;

/// The sessions that can be cancelled.
#[derive(Clone, Default)]
pub struct CancelRegistry(Arc<Mutex<Sessions>>);

#[derive(Default)]
struct Sessions {
    last_pid: i32,
    by_pid: HashMap<i32, Entry>,
}

struct Entry {
    secret: Bytes,
    cancel: Box<dyn Fn() + Send>,
}

impl CancelRegistry {
    /// Enters a session, which `cancel` stops in what it is doing; it leaves when the key is dropped.
    pub fn enter(&self, cancel: impl Fn() + Send + 'static) -> CancelKey {
        let mut sessions = self.0.lock();
        let mut pid = sessions.last_pid;
        loop {
            pid = if pid == i32::MAX { 1 } else { pid + 1 };
            if !sessions.by_pid.contains_key(&pid) {
                break;
            }
        }
        sessions.last_pid = pid;
        // Four bytes, all random in a version 4 UUID: what every client of protocol 3.0 can keep.
        let secret = Bytes::copy_from_slice(&world::uuid().as_bytes()[..4]);
        sessions.by_pid.insert(pid, Entry { secret: secret.clone(), cancel: Box::new(cancel) });
        CancelKey { registry: self.clone(), pid, secret }
    }

    /// Cancels what the session is doing, if the secret is right; nobody is told whether it was.
    pub fn cancel(&self, pid: i32, secret: &[u8]) {
        if let Some(entry) = self.0.lock().by_pid.get(&pid)
            && entry.secret.as_ref() == secret
        {
            (entry.cancel)();
        }
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.0.lock().by_pid.len()
    }
}

impl fmt::Debug for CancelRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelRegistry").field("sessions", &self.sessions()).finish()
    }
}

/// A session's entry in the registry.
#[derive(Debug)]
pub struct CancelKey {
    registry: CancelRegistry,
    /// What the client calls the session.
    pub pid: i32,
    /// What the client must show.
    pub secret: Bytes,
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        self.registry.0.lock().by_pid.remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn only_the_right_secret_cancels_and_only_its_own_session() {
        let registry = CancelRegistry::default();
        let enter = || {
            let cancelled = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&cancelled);
            let key = registry.enter(move || {
                count.fetch_add(1, Ordering::SeqCst);
            });
            (key, cancelled)
        };
        let ((a, a_cancelled), (b, b_cancelled)) = (enter(), enter());
        assert_ne!(a.pid, b.pid);
        registry.cancel(a.pid, b"nope");
        registry.cancel(b.pid, &a.secret);
        assert_eq!((a_cancelled.load(Ordering::SeqCst), b_cancelled.load(Ordering::SeqCst)), (0, 0));
        registry.cancel(a.pid, &a.secret);
        assert_eq!((a_cancelled.load(Ordering::SeqCst), b_cancelled.load(Ordering::SeqCst)), (1, 0));
        let (pid, secret) = (a.pid, a.secret.clone());
        drop(a);
        registry.cancel(pid, &secret);
        assert_eq!(a_cancelled.load(Ordering::SeqCst), 1, "a session that has left is cancelled no more");
        assert_eq!(registry.sessions(), 1);
    }
}
