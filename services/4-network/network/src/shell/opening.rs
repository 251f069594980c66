//! Who opens the way out of a program. Its secrets are looked at first, of which policy is asked: that can take longer than whoever
//! asks for the way out waits, and the next one who asks goes on with what has been done.

use std::{
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use contracts::network::v1 as wire;
use sandbox::fdpass::Channel;
use tokio::{
    io::{AsyncReadExt, unix::AsyncFd},
    net::UnixStream,
    sync::{Mutex, MutexGuard, Semaphore},
};

use super::{
    Network,
    program::{Heard, Program},
    program_wire::{Wire, pass, register},
};
use crate::core::limits::{GREETINGS_OF_PROGRAM_MAX, OPENED_WAITS};

/// Of one program. Whoever has the lock is opening it.
pub(super) struct Opening {
    state: Mutex<State>,
    places: Semaphore,
    /// Somebody looks, after a while, whether anybody has taken it.
    is_looked_after: AtomicBool,
}

enum State {
    /// Nobody has the other end of its channel.
    Closed(Heard),
    Open,
    /// It is not in the table any more.
    Ended,
}

impl Opening {
    pub(super) fn new(heard: Heard) -> Self {
        Self {
            state: Mutex::new(State::Closed(heard)),
            places: Semaphore::new(GREETINGS_OF_PROGRAM_MAX),
            is_looked_after: AtomicBool::new(false),
        }
    }

    #[cfg(test)]
    pub(super) fn heard_for_test(&self) -> Heard {
        match self.state.try_lock().map(|mut state| mem::replace(&mut *state, State::Open)) {
            Ok(State::Closed(heard)) => heard,
            _ => panic!("it is open already"),
        }
    }

    fn somebody_waits(&self) -> bool {
        self.places.available_permits() < GREETINGS_OF_PROGRAM_MAX
    }

    /// When those before are done with it. An error if whoever asks has gone meanwhile, or too many ask.
    async fn turn(&self, stream: &mut UnixStream) -> io::Result<MutexGuard<'_, State>> {
        let _place = self.places.try_acquire().map_err(|_| {
            io::Error::other(format!(
                "{GREETINGS_OF_PROGRAM_MAX} wait for the way out of this program already"
            ))
        })?;
        let mut said = [0; 1];
        tokio::select! {
            biased;
            state = self.state.lock() => Ok(state),
            _ = stream.read(&mut said) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Welcomes whoever asks. What is to be done before is done by the one whose turn it is, whether its asker waits for it or not.
    async fn welcome(
        &self,
        stream: &mut UnixStream,
        prepared: impl Future<Output = io::Result<()>>,
    ) -> io::Result<Welcomed> {
        let mut state = self.turn(stream).await?;
        match &*state {
            State::Closed(_) => {}
            // process_manager has been started again; the program's monitor has its channel.
            State::Open => {
                pass(stream, &wire::ProgramWelcome::default(), None).await?;
                return Ok(Welcomed::AsKnown);
            }
            State::Ended => return Ok(Welcomed::Not),
        }
        let (ours, theirs) = Channel::pair()?;
        ours.set_nonblocking()?;
        let ours = register(ours)?;
        prepared.await?;
        pass(stream, &wire::ProgramWelcome::default(), Some(theirs.into())).await?;
        match mem::replace(&mut *state, State::Open) {
            State::Closed(heard) => Ok(Welcomed::WithChannel(heard, ours)),
            State::Open | State::Ended => Ok(Welcomed::Not),
        }
    }
}

/// What became of a greeting.
enum Welcomed {
    WithChannel(Heard, AsyncFd<Wire>),
    AsKnown,
    /// The program has ended.
    Not,
}

impl Network {
    /// One of those who ask for a program's way out is given the channel. False if the program has ended meanwhile, and another
    /// one may take its place.
    pub(super) async fn open(
        self: &Arc<Self>,
        program: &Arc<Program>,
        stream: &mut UnixStream,
    ) -> io::Result<bool> {
        // Before the program can ask for anything.
        let released = async {
            self.release_secrets(program).await.map_err(|error| io::Error::other(error.to_string()))
        };
        match program.opening.welcome(stream, released).await {
            Ok(Welcomed::WithChannel(heard, ours)) => {
                let (network, served) = (Arc::clone(self), Arc::clone(program));
                tokio::spawn(async move { network.serve_program(served, heard, ours).await });
                Ok(true)
            }
            Ok(Welcomed::AsKnown) => Ok(true),
            Ok(Welcomed::Not) => Ok(false),
            // If nobody has the other end, whoever waits opens another one, or comes soon.
            Err(error) => {
                self.end_if_unopened(program);
                Err(error)
            }
        }
    }

    /// Whoever starts programs asks again at once. If nobody does, there is nobody whom it is for.
    fn end_if_unopened(self: &Arc<Self>, program: &Arc<Program>) {
        if program.opening.is_looked_after.swap(true, Ordering::SeqCst) {
            return;
        }
        let (network, program) = (Arc::clone(self), Arc::clone(program));
        tokio::spawn(async move {
            tokio::time::sleep(OPENED_WAITS).await;
            let mut state = program.opening.state.lock().await;
            program.opening.is_looked_after.store(false, Ordering::SeqCst);
            // Whoever waits for it behind this has it.
            if program.opening.somebody_waits() {
                return;
            }
            match mem::replace(&mut *state, State::Ended) {
                State::Closed(heard) => network.end_program(&program, heard),
                other => *state = other,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::program_wire::hello;
    use kit::way_out::{Asked, ask};
    use std::{
        path::PathBuf,
        sync::atomic::AtomicUsize,
        time::{Duration, Instant},
    };
    use tokio::{
        net::UnixListener,
        sync::{Notify, mpsc},
    };

    const LIMIT: Duration = Duration::from_secs(60);

    fn opening() -> Arc<Opening> {
        Arc::new(Opening::new(mpsc::unbounded_channel().1))
    }

    /// One whose secrets take as long to look at as the test says.
    struct Slow {
        opening: Arc<Opening>,
        path: PathBuf,
        _folder: tempfile::TempDir,
        looks: Arc<AtomicUsize>,
        done: Arc<Notify>,
    }

    impl Slow {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("network.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let slow = Self {
                opening: opening(),
                path,
                _folder: folder,
                looks: Arc::default(),
                done: Arc::new(Notify::new()),
            };
            let (opening, looks, done) =
                (Arc::clone(&slow.opening), Arc::clone(&slow.looks), Arc::clone(&slow.done));
            tokio::spawn(async move {
                // Its channel stays while the test runs, and the first connection with it.
                let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
                while let Ok((mut stream, _)) = listener.accept().await {
                    let (opening, looks, done, kept) =
                        (Arc::clone(&opening), Arc::clone(&looks), Arc::clone(&done), Arc::clone(&kept));
                    tokio::spawn(async move {
                        hello(&mut stream).await.unwrap();
                        let looked = async {
                            // As the secrets that are released already are not looked at once more.
                            if looks.fetch_add(1, Ordering::SeqCst) == 0 {
                                done.notified().await;
                            }
                            Ok(())
                        };
                        let welcomed = opening.welcome(&mut stream, looked).await;
                        kept.lock().unwrap().push((welcomed, stream));
                    });
                }
            });
            slow
        }

        fn ask(&self) -> tokio::task::JoinHandle<Asked> {
            let path = self.path.clone();
            tokio::spawn(
                async move { ask(&path, &wire::ProgramHello::default(), &[]).await.unwrap().unwrap() },
            )
        }

        async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
            let began = Instant::now();
            while !is_so(self) {
                assert!(began.elapsed() < LIMIT, "{what}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }

        fn wait(&self) -> usize {
            GREETINGS_OF_PROGRAM_MAX - self.opening.places.available_permits()
        }
    }

    #[tokio::test]
    async fn who_asks_while_it_is_opened_waits_for_it_and_has_it_if_the_first_has_gone() {
        let slow = Slow::new();
        let first = slow.ask();
        slow.until("nobody looks", |slow| slow.looks.load(Ordering::SeqCst) == 1).await;
        let second = slow.ask();
        slow.until("nobody waits", |slow| slow.wait() == 1).await;
        assert!(!second.is_finished(), "it was answered before there is anything to have");
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        slow.done.notify_one();
        let asked = second.await.unwrap();
        assert!(asked.channel.is_some(), "the channel went to one who has gone");
        assert!(slow.ask().await.unwrap().channel.is_none(), "it was opened twice");
        assert_eq!(slow.looks.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn of_two_who_ask_one_has_the_channel_and_both_are_answered() {
        let slow = Slow::new();
        let first = slow.ask();
        slow.until("nobody looks", |slow| slow.looks.load(Ordering::SeqCst) == 1).await;
        let second = slow.ask();
        slow.until("nobody waits", |slow| slow.wait() == 1).await;
        slow.done.notify_one();
        assert!(first.await.unwrap().channel.is_some());
        assert!(second.await.unwrap().channel.is_none());
        assert_eq!(slow.looks.load(Ordering::SeqCst), 1);
    }

    /// At the limit, and one past it; who has gone gives its place back.
    #[tokio::test]
    async fn those_who_wait_are_counted_until_they_go() {
        let opening = opening();
        let held = opening.state.lock().await;
        let wait = || {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let opening = Arc::clone(&opening);
            (ours, tokio::spawn(async move { opening.turn(&mut theirs).await.map(drop) }))
        };
        let mut waiting: Vec<_> = (0..GREETINGS_OF_PROGRAM_MAX).map(|_| wait()).collect();
        while opening.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let (_ours, one_more) = wait();
        assert!(one_more.await.unwrap().unwrap_err().to_string().contains("already"));
        let (gone, task) = waiting.swap_remove(0);
        drop(gone);
        assert_eq!(task.await.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        waiting.push(wait());
        while opening.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        drop(held);
        for (_ours, task) in waiting {
            task.await.unwrap().unwrap();
        }
    }
}
