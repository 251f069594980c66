//! redb and SQLite with as many bytes in as many durable commits.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{FRAMING_BYTES, PAYLOAD_BYTES, Subject, payload};

const TABLE: redb::TableDefinition<'static, u64, &'static [u8]> = redb::TableDefinition::new("log");

/// Payload and as many bytes as our header takes.
fn value(n: u64) -> Vec<u8> {
    let mut value = payload(n);
    value.resize(PAYLOAD_BYTES + FRAMING_BYTES, 0x11);
    value
}

pub(super) struct Redb {
    database: redb::Database,
    next: u64,
}

impl Redb {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        Ok(Self { database: redb::Database::create(folder.join("peer.redb"))?, next: 0 })
    }
}

impl Subject for Redb {
    fn name(&self) -> &'static str {
        "redb, durable commits"
    }

    fn run(&mut self, in_flight: usize, time: Duration) -> Result<(u64, Duration)> {
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
        Ok((self.next - from, start.elapsed()))
    }
}

pub(super) struct Sqlite {
    connection: rusqlite::Connection,
    next: u64,
}

impl Sqlite {
    pub(super) fn new(folder: &Path) -> Result<Self> {
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

    fn run(&mut self, in_flight: usize, time: Duration) -> Result<(u64, Duration)> {
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
        Ok((self.next - from, start.elapsed()))
    }
}
