//! One request to one server, over a connection of its own, with a budget on everything that comes.
//!
//! The budget lies beneath TLS and HTTP: whatever a peer sends instead of an answer, handshakes,
//! interim answers, endless heads or chunks, it is read a little at a time and ends the run when it is
//! too much. Nothing of a run outlives its future.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, crypto};
use tower_service::Service;

use super::tail::LIMIT;

/// How much may come for one request: far more than any head, and the part of a body that is kept.
pub(super) const BUDGET: usize = 512 << 10;

/// The longest head of an answer.
const HEAD: usize = 64 << 10;

/// How often a connection is read before others have their turn, however much there is.
const TURN: u32 = 16;

#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error("no HTTPS is possible here: {0}; on Debian, install ca-certificates and start the service again")]
    Tls(String),
    #[error("{0} is no host")]
    Host(String),
    #[error("the proxy {0} is no HTTP proxy; one that is spoken to over https or SOCKS is not supported")]
    Proxy(String),
    #[error("no connection")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no connection")]
    Handshake(#[source] io::Error),
    #[error("no answer")]
    Exchange(#[from] hyper::Error),
}

/// How servers are spoken to. A machine without any CA certificates can still speak plain HTTP.
#[derive(Clone)]
pub(super) struct Client {
    tls: Result<TlsConnector, String>,
    /// Of the environment: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`.
    proxies: Arc<Matcher>,
}

/// The head of an answer, and what brings its body.
pub(super) struct Answer {
    response: Response<Incoming>,
    connection: Connection,
}

/// Does the work of a connection, for as long as it is waited for.
type Connection = Pin<Box<dyn Future<Output = ()>>>;

impl Client {
    pub(super) fn new() -> Self {
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(BuilderVerifierExt::with_platform_verifier);
        let tls = config.map(|config| {
            let mut config = config.with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(config))
        });
        Self { tls: tls.map_err(|error| error.to_string()), proxies: Arc::new(Matcher::from_env()) }
    }

    /// Sends a request with an absolute address, and waits for the head of its answer.
    pub(super) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, PeerError> {
        let uri = request.uri().clone();
        let secure = uri.scheme_str() == Some("https");
        let authority = uri.authority().map_or("", |authority| authority.as_str()).to_owned();
        let host = HeaderValue::try_from(&authority).map_err(|_| PeerError::Host(authority.clone()))?;
        request.headers_mut().entry(HOST).or_insert(host);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));

        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let proxy = self.proxies.intercept(&uri);
        if let Some(proxy) = &proxy
            && proxy.uri().scheme_str() != Some("http")
        {
            return Err(PeerError::Proxy(proxy.uri().to_string()));
        }
        let connected = match &proxy {
            None => connector.call(uri.clone()).await.map_err(|error| PeerError::Connect(error.into()))?,
            Some(proxy) if secure => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
                if let Some(authorization) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(authorization.clone());
                }
                tunnel.call(uri.clone()).await.map_err(|error| PeerError::Connect(error.into()))?
            }
            Some(proxy) => {
                if let Some(authorization) = proxy.basic_auth() {
                    request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
                }
                connector.call(proxy.uri().clone()).await.map_err(|error| PeerError::Connect(error.into()))?
            }
        };
        let stream = Metered { stream: connected.into_inner(), left: BUDGET, reads: 0 };
        if !secure {
            if proxy.is_none() {
                *request.uri_mut() = origin_form(&uri);
            }
            return exchange(stream, request).await;
        }
        *request.uri_mut() = origin_form(&uri);
        let tls = self.tls.as_ref().map_err(|reason| PeerError::Tls(reason.clone()))?;
        // An address of IPv6 stands in brackets in a URI, and nowhere else.
        let name = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|_| PeerError::Host(authority))?;
        let stream = tls.connect(name, stream).await.map_err(PeerError::Handshake)?;
        exchange(stream, request).await
    }
}

/// The address as a server wants it: without the server.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    path.parse().unwrap_or_else(|_| Uri::from_static("/"))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, PeerError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream)).await?;
    // What goes wrong with it is heard by who waits for the answer.
    let mut connection: Connection = Box::pin(async move { drop(connection.await) }.fuse());
    let response = alongside(&mut connection, sender.send_request(request)).await?;
    Ok(Answer { response, connection })
}

/// Waits for `work`, and has the connection do its part meanwhile.
async fn alongside<T>(connection: &mut Connection, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        // A connection that has ended is never ready again.
        if connection.as_mut().poll(cx).is_ready() { work.as_mut().poll(cx) } else { Poll::Pending }
    })
    .await
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// A field of the head, as far as it is text.
    pub(super) fn header(&self, name: hyper::header::HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The first part of the body, into `kept`; the rest is not even fetched.
    pub(super) async fn excerpt(&mut self, kept: &mut Vec<u8>) -> Result<(), PeerError> {
        let mut ended = false;
        while kept.len() < LIMIT && !ended {
            let frame = {
                let body = self.response.body_mut();
                // A connection that has ended has left what it had.
                alongside(&mut self.connection, body.frame()).await
            };
            match frame.transpose()? {
                None => ended = true,
                Some(frame) => {
                    if let Some(data) = frame.data_ref() {
                        kept.extend_from_slice(&data[..data.len().min(LIMIT - kept.len())]);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A connection from which only so much is read.
struct Metered {
    stream: TcpStream,
    left: usize,
    /// Since others had their turn.
    reads: u32,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads == TURN {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match &read {
            Poll::Pending => self.reads = 0,
            Poll::Ready(_) => self.reads += 1,
        }
        ready!(read)?;
        let count = buffer.filled().len() - before;
        match self.left.checked_sub(count) {
            Some(left) => self.left = left,
            None => {
                let kib = BUDGET >> 10;
                let error =
                    format!("the server sends without end: more than {kib} KiB came, and no whole answer");
                return Poll::Ready(Err(io::Error::other(error)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("tls", &self.tls.is_ok()).finish_non_exhaustive()
    }
}
