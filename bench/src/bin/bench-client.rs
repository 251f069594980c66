//! The program that goes out in `bench egress`: the same on every way.
//!
//! `ADDRESS flows N MEBIBYTES` sends so much over N connections and says how many megabytes a second arrived at the other
//! end. `ADDRESS latency N` connects N times, one after the other, waits for one byte each time, and says half of which
//! time they took, in microseconds; if `RECORD_IN` names a file, something is made durable there before each. `ADDRESS connects CLIENTS N` does the same from several threads, and says how many came about in a
//! second. `ADDRESS@PROXY requests CLIENTS N` makes requests of HTTP by a proxy, and says the same; `ADDRESS@PROXY page MEBIBYTES` asks for
//! one large page, and says how many megabytes of it came in a second. `ADDRESS hold CLIENTS N` opens so many connections, says how many came
//! about in a second, and has them until its standard input ends.

use std::{
    error::Error,
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::fs::FileExt,
    process::ExitCode,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

/// What a connection is for: the other end reads everything, or gives one byte.
const TAKE: u8 = b't';
const GIVE: u8 = b'g';
const PIECE_BYTES: usize = 256 * 1024;
/// Sent before the clock starts: windows have grown by then.
const FIRST_PIECES: usize = 64;
const RECORD_IN: &str = "RECORD_IN";
/// Of a decision and the entry that it allows, and of many of them.
const RECORD_BYTES: usize = 750;
const RECORDS_BYTES: usize = 4 * 1024 * 1024;
/// Of one who is told that there are too many at once.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    match run() {
        Ok(figure) => {
            println!("{figure}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench-client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<f64, Box<dyn Error + Send + Sync>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [address, "flows", count, mebibytes] => flows(address.parse()?, count.parse()?, mebibytes.parse()?),
        [address, "latency", count] => Ok(latency(address.parse()?, count.parse()?)?),
        [address, "connects", clients, count] => connects(address.parse()?, clients.parse()?, count.parse()?),
        [to, "requests", clients, count] => {
            let to = ByProxy::parse(to)?;
            let each = count.parse::<usize>()? / clients.parse::<usize>()?.max(1);
            let clients = vec![each; clients.parse()?];
            let all = each * clients.len();
            let seconds = together(clients, |count| to.requests(count))?;
            Ok(all as f64 / seconds)
        }
        [address, "hold", clients, count] => hold(address.parse()?, clients.parse()?, count.parse()?),
        [to, "page", mebibytes] => Ok(ByProxy::parse(to)?.page(mebibytes.parse()?)?),
        _ => Err("usage: ADDRESS flows N MEBIBYTES | ADDRESS latency N | ADDRESS connects CLIENTS N | \
                  ADDRESS hold CLIENTS N | ADDRESS@PROXY requests CLIENTS N | ADDRESS@PROXY page MEBIBYTES"
            .into()),
    }
}

/// Threads that all begin at one time; the seconds from then until the last has ended.
fn together<T: Send>(
    with: Vec<T>,
    each: impl Fn(T) -> io::Result<()> + Sync,
) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let since = Instant::now();
    thread::scope(|scope| {
        let run = |one| scope.spawn(|| each(one));
        let running: Vec<_> = with.into_iter().map(run).collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?.map_err(Into::into))
    })
    .map(|()| since.elapsed().as_secs_f64())
}

fn flows(address: SocketAddr, count: usize, mebibytes: usize) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let piece = vec![b'x'; PIECE_BYTES];
    let pieces = mebibytes * 1024 * 1024 / PIECE_BYTES / count.max(1);
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = TcpStream::connect(address)?;
        connection.write_all(&[TAKE])?;
        for _ in 0..FIRST_PIECES {
            connection.write_all(&piece)?;
        }
        connections.push(connection);
    }
    let seconds = together(connections, |mut connection| {
        (0..pieces).try_for_each(|_| connection.write_all(&piece))?;
        connection.shutdown(Shutdown::Write)?;
        // Said when the last byte was read at the other end.
        connection.read_exact(&mut [0])
    })?;
    Ok((count * pieces * PIECE_BYTES) as f64 / 1e6 / seconds)
}

fn once(address: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect(address)?;
    connection.write_all(&[GIVE])?;
    connection.read_exact(&mut [0])
}

fn latency(address: SocketAddr, count: usize) -> io::Result<f64> {
    let mut times = Vec::new();
    let mut record = std::env::var_os(RECORD_IN).map(Record::in_file).transpose()?;
    for _ in 0..count {
        let since = Instant::now();
        record.as_mut().map_or(Ok(()), Record::add)?;
        once(address)?;
        times.push(since.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times.get(count / 2).copied().ok_or_else(|| io::Error::other("nothing was to be done"))
}

/// The least that a record can be: bytes after those before, in a file that is full of zeros, each time to the disk.
struct Record {
    file: File,
    at: u64,
}

impl Record {
    fn in_file(path: OsString) -> io::Result<Self> {
        let file = File::create(path)?;
        file.write_all_at(&vec![0; RECORDS_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    fn add(&mut self) -> io::Result<()> {
        self.file.write_all_at(&[b'x'; RECORD_BYTES], self.at)?;
        self.at = (self.at + RECORD_BYTES as u64) % (RECORDS_BYTES - RECORD_BYTES) as u64;
        self.file.sync_data()
    }
}

fn connects(address: SocketAddr, clients: usize, count: usize) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let each = count / clients.max(1);
    let seconds = together(vec![each; clients], |count| (0..count).try_for_each(|_| once(address)))?;
    Ok((each * clients) as f64 / seconds)
}

fn hold(address: SocketAddr, clients: usize, count: usize) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let held = Mutex::new(Vec::new());
    let each = count / clients.max(1);
    let seconds = together(vec![each; clients], |count| {
        for _ in 0..count {
            let connection = patiently(address)?;
            held.lock().map_err(|_| io::Error::other("a thread panicked"))?.push(connection);
        }
        Ok(())
    })?;
    let figure = (each * clients) as f64 / seconds;
    println!("{figure}");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(figure)
}

/// As one that is told to try again.
fn patiently(address: SocketAddr) -> io::Result<TcpStream> {
    let since = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && since.elapsed() < PATIENCE => {
                thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

struct ByProxy {
    to: SocketAddr,
    proxy: SocketAddr,
}

impl ByProxy {
    fn parse(text: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let (to, proxy) = text.split_once('@').ok_or("ADDRESS@PROXY")?;
        Ok(Self { to: to.parse()?, proxy: proxy.parse()? })
    }

    /// One after the other, over one connection for as long as the proxy keeps it.
    fn requests(&self, count: usize) -> io::Result<()> {
        let mut kept = None;
        for _ in 0..count {
            // One that was kept can have been closed meanwhile, without a word.
            let again = kept.take().and_then(|connection| self.ask(connection, "").ok());
            let (connection, keeps) = match again {
                Some(answered) => answered,
                None => self.ask(TcpStream::connect(self.proxy)?, "")?,
            };
            kept = Some(connection).filter(|_| keeps);
        }
        Ok(())
    }

    fn page(&self, mebibytes: usize) -> io::Result<f64> {
        let since = Instant::now();
        self.ask(TcpStream::connect(self.proxy)?, &mebibytes.to_string())?;
        Ok((mebibytes * 1024 * 1024) as f64 / 1e6 / since.elapsed().as_secs_f64())
    }

    /// Whether the connection can be used again.
    fn ask(&self, mut connection: TcpStream, path: &str) -> io::Result<(TcpStream, bool)> {
        let to = self.to;
        // In one piece: more of them on a connection that is kept would wait for each other.
        let request = format!("GET http://{to}/{path} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        connection.write_all(request.as_bytes())?;
        let mut buffer = vec![0; PIECE_BYTES];
        let mut heard = Vec::new();
        let end = loop {
            if let Some(at) = heard.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match connection.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => heard.extend(buffer.iter().take(read)),
            }
        };
        let head = String::from_utf8_lossy(heard.get(..end).unwrap_or_default()).to_ascii_lowercase();
        let mut lines = head.lines();
        if lines.next().and_then(|line| line.split(' ').nth(1)) != Some("200") {
            return Err(io::Error::other(head.clone()));
        }
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length = value("content-length:").and_then(|value| value.trim().parse::<usize>().ok());
        let length = length.ok_or_else(|| io::Error::other("an answer of unknown length"))?;
        let mut left = length.saturating_sub(heard.len() - end);
        while left > 0 {
            match connection.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left = left.saturating_sub(read),
            }
        }
        let keeps =
            head.starts_with("http/1.1") && value("connection:").is_none_or(|value| value.trim() != "close");
        Ok((connection, keeps))
    }
}
