//! What is asked of the host's file systems before a launch: images, variables, secrets, folders.
//!
//! A network file system that has died answers nobody, and nothing ends the thread that asks it. So each such question has a
//! time limit after which its launch fails by name, its thread is written off, and the next one goes on beside it. A service
//! has one thread written off at most: it is asked for nothing more until that one comes back.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;

/// For everything that one launch reads: hashing the largest images takes seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// At a time; more would only take turns at the processor and the disk.
const AT_ONCE_MAX: usize = 4;
/// Threads that wait for file systems which do not answer.
const HUNG_MAX: usize = 32;
/// Threads of the supervisor for all of this, and for the few other questions.
pub(super) const BLOCKING_THREADS_MAX: usize = 2 * AT_ONCE_MAX + HUNG_MAX;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Preparations {
    turns: Arc<Semaphore>,
    /// Services whose last question was never answered.
    hung: Arc<Mutex<BTreeSet<String>>>,
    timeout: Duration,
}

impl Default for Preparations {
    fn default() -> Self {
        Self::new(TIMEOUT)
    }
}

impl Preparations {
    fn new(timeout: Duration) -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE_MAX)), hung: Arc::default(), timeout }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.hung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, service: &str) -> Option<String> {
        let hung = self.lock();
        if hung.contains(service) {
            return Some(format!(
                "a file system of the host still has not answered its last start; see to it (`mount`, `ls` on the \
                 paths that the manifest of {service} names), then `bailiwick service start {service}`"
            ));
        }
        (hung.len() >= HUNG_MAX).then(|| {
            format!(
                "{HUNG_MAX} starts wait for file systems of the host that do not answer; see to those first"
            )
        })
    }

    /// The answer of `work`, or why there is none. `asks` says what it asks of the host.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        service: &str,
        asks: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        if let Some(why) = self.refusal(service) {
            return Err(why);
        }
        let turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
        let mut working = tokio::task::spawn_blocking(work);
        match tokio::time::timeout(self.timeout, &mut working).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => {
                drop(turn);
                self.lock().insert(service.to_owned());
                let (hung, name) = (Arc::clone(&self.hung), service.to_owned());
                tokio::spawn(async move {
                    // Whenever that is; what it has found out is of no use any more.
                    let _ = working.await;
                    hung.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                });
                let limit = self.timeout.as_millis();
                Err(format!(
                    "the host did not answer within {limit} ms when it was asked for {asks}, or for a file or folder that \
                     the manifest names: a file system that is gone?"
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Held up until its sender goes.
    fn hangs() -> (mpsc::Sender<()>, impl FnOnce() -> u8 + Send + 'static) {
        let (release, held) = mpsc::channel::<()>();
        let work = move || {
            let _ = held.recv();
            1
        };
        (release, work)
    }

    #[tokio::test]
    async fn who_asks_a_dead_file_system_fails_by_name_and_holds_up_nobody() {
        let preparations = Preparations::new(Duration::from_millis(20));
        let mut dead = Vec::new();
        for number in 0..AT_ONCE_MAX + 2 {
            let (release, work) = hangs();
            dead.push(release);
            let failed = preparations.run(&format!("s{number}"), "/nfs/x", work).await.unwrap_err();
            assert!(failed.contains("within 20 ms") && failed.contains("/nfs/x"), "{failed}");
        }
        assert_eq!(preparations.run("other", "/x", || 7).await, Ok(7));
        let again = preparations.run("s0", "/nfs/x", || 7).await.unwrap_err();
        assert!(again.contains("its last start") && again.contains("service start s0"), "{again}");
        dead.clear();
        let is_back = async {
            while preparations.run("s0", "/nfs/x", || 7).await != Ok(7) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), is_back).await.unwrap();
    }

    #[tokio::test]
    async fn threads_that_are_written_off_have_a_limit() {
        let preparations = Preparations::new(Duration::from_secs(10));
        for number in 0..HUNG_MAX - 1 {
            preparations.lock().insert(format!("s{number}"));
        }
        assert_eq!(preparations.run("last", "/x", || 7).await, Ok(7));
        preparations.lock().insert("one more".to_owned());
        let refused = preparations.run("last", "/x", || 7).await.unwrap_err();
        assert!(refused.starts_with("32 starts wait"), "{refused}");
    }
}
