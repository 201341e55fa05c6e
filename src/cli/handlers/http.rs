//! `http`: one request; a status of 400 or more is a failed run.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use base64::Engine;
use futures::future::{Either, select};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::{Method, Request as HttpRequest, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

pub(super) use super::peer::Client;
use super::peer::{Answer as Response, PeerError};
use super::tail::clean;
use crate::task::{Failure, TaskContext};
use crate::timer;

/// How long a request may take that does not say.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How many redirections are followed.
const REDIRECTIONS: usize = 10;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpArgs {
    #[serde(default)]
    method: Option<String>,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Text as it is; anything else is sent as JSON.
    #[serde(default)]
    body: Option<Value>,
    #[serde(default, deserialize_with = "super::duration")]
    timeout: Option<Duration>,
    #[serde(default)]
    redirects: Redirects,
}

/// Which redirections are followed. From https to http none is, and the headers and the name and
/// password of a request are given to no other server in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Redirects {
    /// None: a redirection fails the run.
    None,
    /// Those that cannot lose or repeat anything: of GET and HEAD all, of other methods and of what has a
    /// body those that keep both (307, 308) at the same server.
    #[default]
    Safe,
    /// As browsers do: after 301, 302 and 303 other methods than GET and HEAD become a GET without a
    /// body.
    All,
}

/// An answer below 400.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    status: u16,
    body: String,
}

/// The arguments in the client's types.
#[derive(Clone)]
struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl HttpArgs {
    pub(super) fn check(&self) -> Result<(), String> {
        self.decode().map(|_| ())
    }

    fn decode(&self) -> Result<Request, String> {
        let method = self.method.as_deref().unwrap_or("GET").to_ascii_uppercase();
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("method {method:?} is none; GET and POST are"))?;
        let mut url = Url::parse(&self.url).map_err(|error| {
            format!("url {:?} is none: {error}; one begins with http:// or https://", self.url)
        })?;
        if !is_http(&url) {
            return Err(format!("url {:?} must begin with http:// or https:// and a host", self.url));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let name_ok = HeaderName::try_from(name)
                .map_err(|_| format!("headers: {name:?} is no name of a header"))?;
            let value = HeaderValue::try_from(value)
                .map_err(|_| format!("headers: the value of {name:?} has characters a header cannot have"))?;
            headers.insert(name_ok, value);
        }
        if let Some(authorization) = authorization(&url) {
            headers.entry(AUTHORIZATION).or_insert(authorization);
        }
        without_name(&mut url);
        let body = self.body.as_ref().map(|body| match body {
            Value::String(text) => text.clone(),
            json => {
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                json.to_string()
            }
        });
        Ok(Request { method, url, headers, body: body.map(Bytes::from) })
    }
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

/// Takes name and password out of an address. One with a host can do without.
fn without_name(url: &mut Url) {
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
}

/// Name and password of an address, as a header.
fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain =
        [decoded(url.username()), b":".to_vec(), decoded(url.password().unwrap_or_default())].concat();
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain));
    let mut value = HeaderValue::try_from(basic).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The bytes of a part of an address.
fn decoded(part: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let code = others.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    bytes
}

/// An address for people, without the parts that keep secrets.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    without_name(&mut url);
    let more = if url.query().is_some() { "?…" } else { "" };
    url.set_query(None);
    format!("{url}{more}")
}

impl Request {
    fn to_http(&self) -> Result<HttpRequest<Full<Bytes>>, String> {
        let body = Full::new(self.body.clone().unwrap_or_default());
        let mut request = HttpRequest::builder()
            .method(self.method.clone())
            .uri(self.url.as_str())
            .body(body)
            .map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        let agent = HeaderValue::from_static(concat!("callboard/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(agent);
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        Ok(request)
    }

    /// Whether it changes nothing, and so can be sent to another address.
    fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD) && self.body.is_none()
    }

    /// The request that a redirection asks for, or why it is not made.
    fn redirected(&self, status: StatusCode, location: &str, how: Redirects) -> Result<Self, String> {
        let mut url = self.url.join(location).map_err(|error| {
            format!("status {status}, and its location is no address: {error}", status = status.as_u16())
        })?;
        without_name(&mut url);
        let refused = |reason: &str| {
            Err(format!(
                "redirected ({}) to {}, which is not followed: {reason}",
                status.as_u16(),
                shown(&url)
            ))
        };
        if !is_http(&url) {
            return refused("it is no address of http or https");
        }
        if how == Redirects::None {
            return refused("redirects is \"none\"; write that address");
        }
        if self.url.scheme() == "https" && url.scheme() == "http" {
            return refused("that would be read on the way; write that address if it is meant");
        }
        let same_server = self.url.origin() == url.origin();
        let keeps = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !self.is_safe() && how == Redirects::Safe && !(keeps && same_server) {
            return refused(&format!(
                "a {} could be lost or repeated; write that address, or redirects = \"all\"",
                self.method
            ));
        }
        let mut next = Self { url, ..self.clone() };
        if !keeps && !next.is_safe() {
            next.method = Method::GET;
            next.body = None;
            next.headers.remove(CONTENT_TYPE);
        }
        if !same_server {
            let kind = next.headers.get(CONTENT_TYPE).cloned().filter(|_| next.body.is_some());
            next.headers.clear();
            next.headers.extend(kind.map(|kind| (CONTENT_TYPE, kind)));
        }
        Ok(next)
    }
}

/// Sends the request. Nothing of it is left when this is dropped.
pub(super) async fn run(context: TaskContext, args: HttpArgs, client: Client) -> Result<Answer, Failure> {
    let limit = args.timeout.unwrap_or(TIMEOUT);
    let time = pin!(timer::sleep_as_limit(context.clock(), limit));
    // The time first: it is kept also when there is always something to read.
    match select(time, pin!(exchange(&context, &args, client))).await {
        Either::Left(_) => Err(Failure::TimedOut(limit)),
        Either::Right((answer, _)) => answer,
    }
}

async fn exchange(context: &TaskContext, args: &HttpArgs, client: Client) -> Result<Answer, Failure> {
    let mut request = args.decode().map_err(Failure::new)?;
    let what = format!("{} {}", request.method, shown(&request.url));
    let failed = |reason: String| Failure::new(format!("{what}: {reason}"));
    let broken = |error: PeerError| failed(Failure::from_error(&error).to_string());
    for _ in 0..=REDIRECTIONS {
        let mut response = client.send(request.to_http().map_err(&failed)?).await.map_err(broken)?;
        let status = response.status();
        let location = response.header(LOCATION).map(str::to_owned);
        if let Some(location) = location.filter(|_| is_redirection(status)) {
            context.set_output(json!({ "status": status.as_u16() }));
            request = request.redirected(status, &location, args.redirects).map_err(&failed)?;
            continue;
        }
        let mut body = Vec::new();
        read(context, &mut response, &mut body).await.map_err(broken)?;
        if status.is_client_error() || status.is_server_error() {
            return Err(failed(format!("status {}", status.as_u16())));
        }
        return Ok(Answer { status: status.as_u16(), body: clean(&body) });
    }
    Err(failed(format!("redirected more than {REDIRECTIONS} times, lately to {}", shown(&request.url))))
}

/// Reads the first part of a body; what there is of an answer is kept whatever becomes of the run.
async fn read(context: &TaskContext, response: &mut Response, body: &mut Vec<u8>) -> Result<(), PeerError> {
    let status = response.status().as_u16();
    let keep = |body: &[u8]| context.set_output(json!({ "status": status, "body": clean(body) }));
    keep(body);
    let read = response.excerpt(body).await;
    keep(body);
    read
}

fn is_redirection(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, url: &str, body: Option<&str>) -> Request {
        let args = json!({ "method": method, "url": url, "body": body, "headers": { "x-key": "s", "authorization": "s" } });
        HttpArgs::deserialize(args).unwrap().decode().unwrap()
    }

    /// The whole table: method, status, where to, and what becomes of it.
    #[test]
    fn nothing_is_lost_repeated_or_betrayed_by_a_redirection() {
        let from = "https://a.example/x";
        for (method, body) in [
            ("GET", None),
            ("HEAD", None),
            ("POST", Some("b")),
            ("POST", None),
            ("PUT", Some("b")),
            ("DELETE", None),
            ("GET", Some("b")),
        ] {
            for status in [301, 302, 303, 307, 308] {
                for to in [
                    "/y",
                    "https://a.example:443/y",
                    "https://b.example/y",
                    "https://a.example:444/y",
                    "//b.example/y",
                    "http://a.example/y",
                    "https://u:p@b.example/y",
                    "ftp://a.example/",
                ] {
                    for how in [Redirects::None, Redirects::Safe, Redirects::All] {
                        let case = format!("{method} {body:?} {status} {to} {how:?}");
                        let code = StatusCode::from_u16(status).unwrap();
                        let next = request(method, from, body).redirected(code, to, how);
                        let same = to == "/y" || to.contains(":443");
                        let safe = matches!(method, "GET" | "HEAD") && body.is_none();
                        let keeps = status >= 307;
                        let follows = !to.starts_with("http:")
                            && !to.starts_with("ftp")
                            && match how {
                                Redirects::None => false,
                                Redirects::Safe => safe || (keeps && same),
                                Redirects::All => true,
                            };
                        let Ok(next) = next else {
                            assert!(!follows, "{case}");
                            let told = request(method, from, body).redirected(code, to, how).err().unwrap();
                            assert!(told.contains(".example") && !told.contains("u:p"), "{told}");
                            continue;
                        };
                        assert!(follows, "{case}");
                        assert_eq!(next.headers.contains_key("x-key"), same, "{case}");
                        assert_eq!(next.headers.contains_key(AUTHORIZATION), same, "{case}");
                        assert!(next.url.username().is_empty() && next.url.password().is_none(), "{case}");
                        let kept = keeps || safe;
                        assert_eq!(next.method.as_str(), if kept { method } else { "GET" }, "{case}");
                        assert_eq!(next.body.is_some(), body.is_some() && kept, "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn name_and_password_of_an_address_become_a_header() {
        let args = json!({ "url": "http://us%40er:p%c3%a4ss@h/x?token=t#f" });
        let request = HttpArgs::deserialize(args).unwrap().decode().unwrap();
        assert_eq!(request.headers[AUTHORIZATION], "Basic dXNAZXI6cMOkc3M=");
        assert_eq!(request.url.as_str(), "http://h/x?token=t");
        assert_eq!(shown(&request.url), "http://h/x?…");
        assert_eq!(decoded("%4"), b"%4");
        assert_eq!(decoded("a%zz"), b"a%zz");
    }
}
