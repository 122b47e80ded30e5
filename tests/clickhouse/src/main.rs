//! `clickhouse-embedded-http LIBRARY DATA ADDRESS`: the ClickHouse engine in this process, HTTP interface by us.
//! It refuses what it does not have (params, sessions) instead of answering something else. Ends when stdin ends.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

mod engine;
mod frames;
mod http;
mod request;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(library), Some(data), Some(address)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: clickhouse-embedded-http LIBRARY DATA ADDRESS".into());
    };
    let password = std::env::var("CLICKHOUSE_PASSWORD").ok();
    let engine = Arc::new(engine::Engine::load(&library, &data)?);
    // Held open so that the engine keeps its caches between requests.
    let _keep = engine.connect()?;
    let listener = TcpListener::bind(address)?;
    println!("listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let busy = Arc::new(AtomicU32::new(0));
    let front = Front { engine: Arc::clone(&engine), busy: Arc::clone(&busy), password };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let front = front.clone();
            std::thread::spawn(move || front.serve(stream));
        }
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    // Requests in flight get a moment; what is not answered was not confirmed.
    let deadline = Instant::now() + Duration::from_secs(2);
    while busy.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    engine.exit()
}

#[derive(Clone)]
struct Front {
    engine: Arc<engine::Engine>,
    busy: Arc<AtomicU32>,
    password: Option<String>,
}

impl Front {
    /// Answers the requests of one connection, one after the other.
    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Ok(mut out) = stream.try_clone() else { return };
        let mut reader = std::io::BufReader::new(stream);
        while let Ok(Some(request)) = http::read(&mut reader) {
            self.busy.fetch_add(1, Ordering::AcqRel);
            let reply = request::answer(&self.engine, &request, self.password.as_deref());
            let sent = http::write(&mut out, &reply);
            self.busy.fetch_sub(1, Ordering::AcqRel);
            if sent.is_err() {
                return;
            }
        }
    }
}
