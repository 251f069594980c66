//! What a monitor costs. Not run by itself: `cargo nextest run -p process_manager --run-ignored only cost --no-capture`.
//! On a shared machine read the ratios.

use std::time::{Duration, Instant};

use process_manager::monitor::protocol::{Reply, Request, Stream};

use crate::common::{House, keepers};

const ROUNDS: u64 = 60;
/// Opening calls of one program, each shown to its monitor when calls are noticed.
const OPENS: u32 = 20_000;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn cost_of_a_spawn_and_of_a_noticed_call() {
    for who in keepers() {
        for notice in [false, true] {
            let mut house = House::new(*who);
            let (mut held, mut started, mut ended) = (Vec::new(), Vec::new(), Vec::new());
            let image = std::fs::read("/bin/true").unwrap();
            for id in 1..=ROUNDS {
                let mut request = house.request(&image, "/usr/bin/true", &[]);
                request.notice_refused = notice;
                let start = Instant::now();
                let monitor = house.hold(id, request);
                let mut control = monitor.connect();
                control.status();
                held.push(start.elapsed());
                assert_eq!(control.call(&Request::Release), Reply::Started);
                started.push(start.elapsed());
                control.wait();
                ended.push(start.elapsed());
                control.call(&Request::Acknowledge);
                house.client().receive().unwrap();
                house.acknowledge(id);
            }
            let text = format!(
                "import os, time\nt = time.monotonic()\nfor n in range({OPENS}): os.close(os.open('/usr/bin/env', 0))\n\
                 print((time.monotonic() - t) / {OPENS} * 1e6)"
            );
            let mut request = house.request(format!("#!/usr/bin/python3\n{text}\n").as_bytes(), "opens", &[]);
            request.notice_refused = notice;
            let mut control = house.hold(ROUNDS + 1, request).connect();
            control.call(&Request::Release);
            let open_us = control.read_all(Stream::Stdout);
            println!(
                "{who:?} notice={notice}: held {:?}, executing {:?}, ended {:?}, one open {} µs",
                median(held),
                median(started),
                median(ended),
                open_us.trim()
            );
        }
    }
}
