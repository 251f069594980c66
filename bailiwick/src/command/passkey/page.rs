//! The page on which a browser of this machine makes or uses a passkey: four answers on loopback, for whoever knows the path.
//!
//! Promises: listens on 127.0.0.1 and ::1 alone, so that no other program gets what a browser sends to `localhost`; answers
//! only requests that name this very page as host and, where they change something, as origin. Never does: serve another
//! file, be cached or framed, or outlive its command.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use base::Hash;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

/// An answer with everything at its limit, in base64 and with room for names.
pub const ANSWER_BYTES_MAX: usize = 32_768;
/// Of a browser, which opens a few.
const CONNECTIONS_MAX: usize = 16;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What the last reply is given on its way to the browser before the command ends.
const LAST_REPLY_TIME: Duration = Duration::from_millis(250);
/// Where the kernel has no descriptor for a connection, it is asked again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Ports that are tried where any will do: one may be free on one family alone.
const PORT_TRIES: usize = 8;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

const HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "publickey-credentials-create=(self), publickey-credentials-get=(self)"),
];

/// What the page asks the command for; each is answered with JSON, or with why not.
#[derive(Debug)]
pub enum Ask {
    Challenge,
    Answer(Bytes),
}

pub type Asked = (Ask, oneshot::Sender<Result<String, String>>);

pub struct Page {
    listeners: Vec<TcpListener>,
    rules: Rules,
}

/// Who is answered.
struct Rules {
    host: String,
    origin: String,
    /// `/`, and 64 hexadecimal digits that nobody else knows.
    folder: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Route {
    Page,
    Script,
    Challenge,
    Answer,
    Refused(StatusCode),
}

impl Rules {
    fn new(port: u16, secret: &str) -> Self {
        let host = match port {
            80 => "localhost".to_owned(),
            port => format!("localhost:{port}"),
        };
        Self { origin: format!("http://{host}"), host, folder: format!("/{secret}") }
    }

    fn route<T>(&self, request: &Request<T>) -> Route {
        let one = |name| {
            let mut all = request.headers().get_all(name).iter();
            let first = all.next().and_then(|value| value.to_str().ok());
            if all.next().is_some() { None } else { first }
        };
        // A name that resolves to this machine (DNS rebinding) is not this page.
        if one(header::HOST) != Some(self.host.as_str()) {
            return Route::Refused(StatusCode::MISDIRECTED_REQUEST);
        }
        let Some(file) = request.uri().path().strip_prefix(&self.folder) else {
            return Route::Refused(StatusCode::NOT_FOUND);
        };
        let changes = match (request.method(), file) {
            (&Method::GET, "/") => return Route::Page,
            (&Method::GET, "/page.js") => return Route::Script,
            (&Method::POST, "/challenge") => Route::Challenge,
            (&Method::POST, "/answer") => Route::Answer,
            (_, "/" | "/page.js" | "/challenge" | "/answer") => {
                return Route::Refused(StatusCode::METHOD_NOT_ALLOWED);
            }
            _ => return Route::Refused(StatusCode::NOT_FOUND),
        };
        if one(header::ORIGIN) != Some(self.origin.as_str()) {
            return Route::Refused(StatusCode::FORBIDDEN);
        }
        // No form can say this, and no other page without asking first.
        if one(header::CONTENT_TYPE) != Some(JSON) {
            return Route::Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        changes
    }
}

fn response(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Result<Response<Full<Bytes>>> {
    let mut builder = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    for (name, value) in HEADERS {
        builder = builder.header(name, value);
    }
    Ok(builder.body(Full::new(body.into()))?)
}

async fn answer(
    rules: &Rules,
    asks: &mpsc::Sender<Asked>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>> {
    let ask = match rules.route(&request) {
        Route::Page => return response(StatusCode::OK, HTML, PAGE),
        Route::Script => return response(StatusCode::OK, JAVASCRIPT, SCRIPT),
        Route::Refused(status) => return response(status, TEXT, status.as_str().to_owned()),
        Route::Challenge => Ask::Challenge,
        Route::Answer => match Limited::new(request.into_body(), ANSWER_BYTES_MAX).collect().await {
            Ok(body) => Ask::Answer(body.to_bytes()),
            Err(_) => {
                let text = format!("an answer has at most {ANSWER_BYTES_MAX} bytes");
                return response(StatusCode::PAYLOAD_TOO_LARGE, TEXT, text);
            }
        },
    };
    let (reply, replied) = oneshot::channel();
    let asked = asks.send((ask, reply)).await;
    match (asked, replied.await) {
        (Ok(()), Ok(Ok(json))) => response(StatusCode::OK, JSON, json),
        (Ok(()), Ok(Err(text))) => response(StatusCode::CONFLICT, TEXT, text),
        _ => response(StatusCode::GONE, TEXT, "the command has ended"),
    }
}

impl Page {
    pub async fn open(port: u16) -> Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).context("the kernel's random source")?;
        for _ in 0..PORT_TRIES {
            let four = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
            let four = four.with_context(|| format!("port {port} of 127.0.0.1"))?;
            let bound = four.local_addr()?.port();
            let six = TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, bound))).await;
            let listeners = match six {
                Ok(six) => vec![four, six],
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && port == 0 => continue,
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    return Err(error).with_context(|| format!("port {port} of ::1"));
                }
                // No IPv6 here, so nobody else listens there either.
                Err(_) => vec![four],
            };
            return Ok(Self { listeners, rules: Rules::new(bound, &Hash(secret).to_hex()) });
        }
        bail!("no port is free on both 127.0.0.1 and ::1")
    }

    pub fn origin(&self) -> &str {
        &self.rules.origin
    }

    pub fn url(&self) -> String {
        format!("{}{}/", self.rules.origin, self.rules.folder)
    }

    /// Serves until `command` has ended, which gets what the page asks.
    pub async fn serve<T>(self, command: impl AsyncFnOnce(mpsc::Receiver<Asked>) -> T) -> T {
        let (asks, asked) = mpsc::channel(CONNECTIONS_MAX);
        let rules = Arc::new(self.rules);
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(accept(listener, Arc::clone(&rules), asks.clone()));
        }
        let result = command(asked).await;
        accepting.shutdown().await;
        result
    }
}

async fn accept(listener: TcpListener, rules: Arc<Rules>, asks: mpsc::Sender<Asked>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let (rules, asks) = (Arc::clone(&rules), asks.clone());
        connections.spawn(async move {
            let service = service_fn(|request| answer(&rules, &asks, request));
            let mut builder = http1::Builder::new();
            builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Leaves the browser time to hear the end.
pub async fn say_last(reply: oneshot::Sender<Result<String, String>>, text: Result<String, String>) {
    let _ = reply.send(text);
    tokio::time::sleep(LAST_REPLY_TIME).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    const HOST: (&str, &str) = ("host", "localhost:7443");
    const ORIGIN: (&str, &str) = ("origin", "http://localhost:7443");
    const KIND: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn only_this_page_is_answered_and_only_whoever_knows_its_path() {
        use StatusCode as S;
        let rules = Rules::new(7443, "secret");
        for (method, path, headers, expected) in [
            (Method::GET, "/secret/", vec![HOST], Route::Page),
            (Method::GET, "/secret/page.js", vec![HOST], Route::Script),
            (Method::POST, "/secret/challenge", vec![HOST, ORIGIN, KIND], Route::Challenge),
            (Method::POST, "/secret/answer", vec![HOST, ORIGIN, KIND], Route::Answer),
            (Method::GET, "/", vec![HOST], Route::Refused(S::NOT_FOUND)),
            (Method::GET, "/secre/", vec![HOST], Route::Refused(S::NOT_FOUND)),
            (Method::GET, "/secret/../etc", vec![HOST], Route::Refused(S::NOT_FOUND)),
            (Method::GET, "/secret/answer", vec![HOST], Route::Refused(S::METHOD_NOT_ALLOWED)),
            (Method::POST, "/secret/", vec![HOST, ORIGIN, KIND], Route::Refused(S::METHOD_NOT_ALLOWED)),
            (Method::GET, "/secret/", vec![], Route::Refused(S::MISDIRECTED_REQUEST)),
            (
                Method::GET,
                "/secret/",
                vec![("host", "evil.example:7443")],
                Route::Refused(S::MISDIRECTED_REQUEST),
            ),
            (
                Method::GET,
                "/secret/",
                vec![("host", "127.0.0.1:7443")],
                Route::Refused(S::MISDIRECTED_REQUEST),
            ),
            (Method::GET, "/secret/", vec![HOST, HOST], Route::Refused(S::MISDIRECTED_REQUEST)),
            (Method::POST, "/secret/answer", vec![HOST, KIND], Route::Refused(S::FORBIDDEN)),
            (
                Method::POST,
                "/secret/answer",
                vec![HOST, KIND, ("origin", "http://localhost:7444")],
                Route::Refused(S::FORBIDDEN),
            ),
            (Method::POST, "/secret/answer", vec![HOST, ORIGIN], Route::Refused(S::UNSUPPORTED_MEDIA_TYPE)),
            (
                Method::POST,
                "/secret/answer",
                vec![HOST, ORIGIN, ("content-type", "text/plain")],
                Route::Refused(S::UNSUPPORTED_MEDIA_TYPE),
            ),
        ] {
            assert_eq!(
                rules.route(&request(method.clone(), path, &headers)),
                expected,
                "{method} {path} {headers:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_page_has_both_loopbacks_or_none() {
        let page = Page::open(0).await.unwrap();
        let port: u16 = page.origin().rsplit(':').next().unwrap().parse().unwrap();
        assert!(Page::open(port).await.is_err(), "taken");
        assert_eq!(page.url().len(), page.origin().len() + 66, "a path of 256 random bits");
        drop(page);
        if let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
            assert!(Page::open(port).await.is_err(), "another has a half of localhost");
            drop(other);
        }
    }
}
