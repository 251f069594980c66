//! Durable entries per second: our store beside a bare loop that writes the same bytes, with and without the same hashes,
//! and (feature `peers`) beside redb and SQLite. Rounds are interleaved, the table shows medians.

use std::{
    os::unix::fs::FileExt,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use axiom::store::{Committed, CommitterThread, Layout, Opened, Space, Store, StoreError, StoreOptions};
use base::{AxiomRef, AxiomTime, Hash, Sequence};
use chain::{ChainPoint, Entry, EntryType, GROUP_HEADER_BYTES, GroupBuilder};
use durable::{Disk, DiskFile, RealDisk};

/// Payload of each entry; header and record add 97 bytes.
const PAYLOAD_BYTES: usize = 203;
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];
/// From here on half of the entries in flight are hashed while the other half is written.
const PIPELINED_FROM: usize = 256;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
}

impl Plan {
    pub(crate) const FULL: Self = Self { rounds: 7, round: Duration::from_millis(700) };
    pub(crate) const QUICK: Self = Self { rounds: 3, round: Duration::from_millis(200) };
}

/// One way to make entries durable.
trait Subject {
    fn name(&self) -> &'static str;
    /// Makes entries durable, `in_flight` at a time, until the time is over. Returns how many.
    fn run(&mut self, in_flight: usize, time: Duration) -> Result<u64, Box<dyn std::error::Error>>;
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) subject: &'static str,
    pub(crate) in_flight: usize,
    /// Median over the rounds.
    pub(crate) entries_per_second: f64,
    /// Of the bare loop that computes the same hashes.
    pub(crate) ratio: f64,
}

/// Runs all subjects in `folder`, which must be on the disk that is to be measured.
pub(crate) fn run(folder: &Path, plan: Plan) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let mut subjects: Vec<Box<dyn Subject>> = vec![
        Box::new(Bare::new(folder, "bare write+fdatasync", false)?),
        Box::new(Bare::new(folder, "bare with the same hashes", true)?),
        Box::new(Ours::new(folder)?),
    ];
    subjects.extend(peers(folder)?);
    let mut rows = Vec::new();
    for in_flight in IN_FLIGHT {
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); subjects.len()];
        for round in 0..=plan.rounds {
            for (subject, rates) in subjects.iter_mut().zip(&mut rates) {
                let start = Instant::now();
                let entries = subject.run(in_flight, plan.round)?;
                // The first round warms up.
                if round > 0 {
                    rates.push(entries as f64 / start.elapsed().as_secs_f64());
                }
            }
        }
        let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
        let floor = medians.get(1).copied().unwrap_or(f64::NAN);
        rows.extend(subjects.iter().zip(medians).map(|(subject, entries_per_second)| Row {
            subject: subject.name(),
            in_flight,
            entries_per_second,
            ratio: entries_per_second / floor,
        }));
    }
    Ok(rows)
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Entries that follow `point`, hashed as the sequencer does.
fn entries(point: ChainPoint, count: usize) -> Result<(Vec<(Entry, Hash)>, ChainPoint), StoreError> {
    let mut point = point;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let sequence = point.next_sequence;
        let payload = payload(sequence.0);
        let made = Entry::next(sequence, point.last_hash, AxiomTime(sequence.0), EntryType::Receipt, payload);
        let (entry, hash) = made.map_err(|_| StoreError::Layout)?;
        point = ChainPoint::after(AxiomRef { sequence, hash });
        entries.push((entry, hash));
    }
    Ok((entries, point))
}

fn payload(n: u64) -> Vec<u8> {
    let mut payload = vec![0x5a; PAYLOAD_BYTES];
    payload.iter_mut().zip(n.to_le_bytes()).for_each(|(byte, n)| *byte = n);
    payload
}

/// One file of zeros, one loop, nothing else. Wraps around at the end of the file.
struct Bare {
    name: &'static str,
    file: std::fs::File,
    size_bytes: u64,
    at: u64,
    hashes: bool,
    point: ChainPoint,
    buffer: Vec<u8>,
}

impl Bare {
    fn new(folder: &Path, name: &'static str, hashes: bool) -> Result<Self, Box<dyn std::error::Error>> {
        let disk = RealDisk::open(folder.join(if hashes { "hashed" } else { "plain" }))?;
        let size_bytes = axiom::store::SEGMENT_BYTES_DEFAULT * 2;
        disk.create("file")?.zero(size_bytes)?;
        let path = folder.join(if hashes { "hashed/file" } else { "plain/file" });
        let file = std::fs::OpenOptions::new().write(true).open(path)?;
        Ok(Self { name, file, size_bytes, at: 0, hashes, point: ChainPoint::GENESIS, buffer: Vec::new() })
    }

    fn group(&mut self, count: usize) -> Result<(), StoreError> {
        if self.hashes {
            let (entries, point) = entries(self.point, count)?;
            let mut group = GroupBuilder::new(std::mem::take(&mut self.buffer), self.point.next_sequence);
            for (entry, hash) in &entries {
                group.push(entry, hash)?;
            }
            self.buffer = group.finish(&[0; 16])?;
            self.point = point;
        } else {
            self.buffer.resize(GROUP_HEADER_BYTES, 0x5a);
            for n in 0..count {
                self.buffer.extend_from_slice(&[0x11; 97]);
                self.buffer.extend_from_slice(&payload(n as u64));
            }
        }
        Ok(())
    }
}

impl Subject for Bare {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, in_flight: usize, time: Duration) -> Result<u64, Box<dyn std::error::Error>> {
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < time {
            self.buffer.clear();
            self.group(in_flight)?;
            if self.at + self.buffer.len() as u64 > self.size_bytes {
                self.at = 0;
            }
            self.file.write_all_at(&self.buffer, self.at)?;
            self.file.sync_data()?;
            self.at += self.buffer.len() as u64;
            done += in_flight as u64;
        }
        Ok(done)
    }
}

/// The store as the sequencer uses it, with head, index and readers.
struct Ours {
    layout: Layout<RealDisk>,
    committer: CommitterThread<RealDisk>,
    done: mpsc::Receiver<Result<Committed, StoreError>>,
    sender: mpsc::Sender<Result<Committed, StoreError>>,
}

impl Ours {
    fn new(folder: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let (disk, head_disk) = (RealDisk::open(folder.join("store"))?, RealDisk::open(folder.join("head"))?);
        let options = StoreOptions::new([1; 32]);
        let genesis =
            || Entry::next(Sequence(0), Hash::ZERO, AxiomTime(0), EntryType::Genesis, b"bench".to_vec()).ok();
        let store = Store { disk: &disk, head_disk: &head_disk, options };
        let Opened { layout, committer, .. } = store.open(genesis, |_| {})?;
        let (sender, done) = mpsc::channel();
        Ok(Self { layout, committer: CommitterThread::start(committer)?, done, sender })
    }

    fn prepare(&mut self, count: usize) -> Result<axiom::store::PreparedGroup<RealDisk>, StoreError> {
        if self.layout.space((count * (PAYLOAD_BYTES + 97)) as u64) == Space::Full {
            return Err(StoreError::Full);
        }
        let (entries, _) = entries(self.layout.point(), count)?;
        self.layout.prepare(entries)
    }

    fn one_group_at_a_time(&mut self, count: usize, time: Duration) -> Result<u64, StoreError> {
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < time {
            let group = self.prepare(count)?;
            let committed = self.committer.commit_here(group)?;
            self.layout.recycle(committed.buffer);
            done += count as u64;
        }
        Ok(done)
    }

    /// Half of the entries in flight are on their way to the disk while the other half is hashed.
    fn pipelined(&mut self, count: usize, time: Duration) -> Result<u64, StoreError> {
        let start = Instant::now();
        let mut done = 0;
        let mut under_way = 0;
        loop {
            let ending = start.elapsed() >= time;
            if !ending {
                let group = self.prepare(count / 2)?;
                let sender = self.sender.clone();
                under_way += 1;
                self.committer.submit(group, move |result| {
                    // The receiver lives as long as the subject.
                    let _ = sender.send(result);
                });
            }
            while under_way > usize::from(!ending) {
                let committed = self.done.recv().map_err(|_| StoreError::Stopped)??;
                self.layout.recycle(committed.buffer);
                under_way -= 1;
                done += (count / 2) as u64;
            }
            if ending {
                return Ok(done);
            }
        }
    }
}

impl Subject for Ours {
    fn name(&self) -> &'static str {
        "axiom store"
    }

    fn run(&mut self, in_flight: usize, time: Duration) -> Result<u64, Box<dyn std::error::Error>> {
        if in_flight >= PIPELINED_FROM {
            Ok(self.pipelined(in_flight, time)?)
        } else {
            Ok(self.one_group_at_a_time(in_flight, time)?)
        }
    }
}

#[cfg(not(feature = "peers"))]
fn peers(_folder: &Path) -> std::io::Result<Vec<Box<dyn Subject>>> {
    Ok(Vec::new())
}

#[cfg(feature = "peers")]
fn peers(folder: &Path) -> Result<Vec<Box<dyn Subject>>, Box<dyn std::error::Error>> {
    Ok(vec![Box::new(peer::Redb::new(folder)?), Box::new(peer::Sqlite::new(folder)?)])
}

#[cfg(feature = "peers")]
mod peer {
    use std::{
        path::Path,
        time::{Duration, Instant},
    };

    use super::{PAYLOAD_BYTES, Subject, payload};

    type Error = Box<dyn std::error::Error>;
    const TABLE: redb::TableDefinition<'static, u64, &'static [u8]> = redb::TableDefinition::new("log");

    /// Payload and as many bytes as our header takes.
    fn value(n: u64) -> Vec<u8> {
        let mut value = payload(n);
        value.resize(PAYLOAD_BYTES + 97, 0x11);
        value
    }

    pub(super) struct Redb {
        database: redb::Database,
        next: u64,
    }

    impl Redb {
        pub(super) fn new(folder: &Path) -> Result<Self, Error> {
            Ok(Self { database: redb::Database::create(folder.join("peer.redb"))?, next: 0 })
        }
    }

    impl Subject for Redb {
        fn name(&self) -> &'static str {
            "redb, durable commits"
        }

        fn run(&mut self, in_flight: usize, time: Duration) -> Result<u64, Error> {
            let start = Instant::now();
            let from = self.next;
            while start.elapsed() < time {
                let mut write = self.database.begin_write()?;
                write.set_durability(redb::Durability::Immediate)?;
                {
                    let mut table = write.open_table(TABLE)?;
                    for _ in 0..in_flight {
                        table.insert(self.next, value(self.next).as_slice())?;
                        self.next += 1;
                    }
                }
                write.commit()?;
            }
            Ok(self.next - from)
        }
    }

    pub(super) struct Sqlite {
        connection: rusqlite::Connection,
        next: u64,
    }

    impl Sqlite {
        pub(super) fn new(folder: &Path) -> Result<Self, Error> {
            let connection = rusqlite::Connection::open(folder.join("peer.sqlite"))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.execute("CREATE TABLE log (sequence INTEGER PRIMARY KEY, entry BLOB NOT NULL)", ())?;
            Ok(Self { connection, next: 0 })
        }
    }

    impl Subject for Sqlite {
        fn name(&self) -> &'static str {
            "SQLite WAL FULL"
        }

        fn run(&mut self, in_flight: usize, time: Duration) -> Result<u64, Error> {
            let start = Instant::now();
            let from = self.next;
            while start.elapsed() < time {
                let transaction = self.connection.transaction()?;
                {
                    let mut insert = transaction.prepare_cached("INSERT INTO log VALUES (?1, ?2)")?;
                    for _ in 0..in_flight {
                        insert.execute((i64::try_from(self.next)?, value(self.next)))?;
                        self.next += 1;
                    }
                }
                transaction.commit()?;
            }
            Ok(self.next - from)
        }
    }
}
