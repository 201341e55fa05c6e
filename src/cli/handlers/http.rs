//! `http`: one request; a status of 400 or more is a failed run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, Url};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tail::{LIMIT, clean};

/// How long a request may take that does not say.
const TIMEOUT: Duration = Duration::from_secs(30);

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
}

/// An answer below 400.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    status: u16,
    body: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("{0}")]
    Args(String),
    #[error("no HTTPS is possible here: {0}; on Debian, install ca-certificates and start the service again")]
    Tls(String),
    #[error("{what}: no answer")]
    Request { what: String, source: reqwest::Error },
    #[error("{what}: status {status}{said}")]
    Status { what: String, status: u16, said: String },
}

/// One connection pool for all requests. A machine without any CA certificates can still speak
/// plain HTTP.
#[derive(Debug, Clone)]
pub(super) struct Client(Arc<Clients>);

#[derive(Debug)]
struct Clients {
    secure: Result<reqwest::Client, String>,
    plain: Result<reqwest::Client, String>,
}

impl Client {
    pub(super) fn new() -> Self {
        // Whoever was first has installed the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder =
            || reqwest::Client::builder().user_agent(concat!("callboard/", env!("CARGO_PKG_VERSION")));
        let text = |error: reqwest::Error| crate::task::Failure::from_error(&error).to_string();
        let secure = builder().build().map_err(text);
        let plain = match &secure {
            Ok(client) => Ok(client.clone()),
            Err(_) => builder().tls_certs_only([]).build().map_err(text),
        };
        Self(Arc::new(Clients { secure, plain }))
    }

    fn of(&self, url: &Url) -> Result<&reqwest::Client, HttpError> {
        let client = if url.scheme() == "https" { &self.0.secure } else { &self.0.plain };
        client.as_ref().map_err(|reason| HttpError::Tls(reason.clone()))
    }
}

/// The arguments in the client's types.
struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<String>,
    timeout: Duration,
}

impl HttpArgs {
    pub(super) fn check(&self) -> Result<(), String> {
        self.clone().decode().map(|_| ())
    }

    fn decode(self) -> Result<Request, String> {
        let method = self.method.as_deref().unwrap_or("GET").to_ascii_uppercase();
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("method {method:?} is none; GET and POST are"))?;
        let url = Url::parse(&self.url).map_err(|error| {
            format!("url {:?} is none: {error}; one begins with http:// or https://", self.url)
        })?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
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
        let body = self.body.map(|body| match body {
            Value::String(text) => text,
            json => {
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                json.to_string()
            }
        });
        Ok(Request { method, url, headers, body, timeout: self.timeout.unwrap_or(TIMEOUT) })
    }
}

impl Request {
    /// The request for people, without the parts of the URL that keep secrets.
    fn shown(&self) -> String {
        let mut url = self.url.clone();
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        format!("{} {url}", self.method)
    }
}

/// Sends the request.
pub(super) async fn run(args: HttpArgs, client: Client) -> Result<Answer, HttpError> {
    let request = args.decode().map_err(HttpError::Args)?;
    let what = request.shown();
    let failed =
        |source: reqwest::Error| HttpError::Request { what: what.clone(), source: source.without_url() };
    let mut builder = client
        .of(&request.url)?
        .request(request.method, request.url)
        .headers(request.headers)
        .timeout(request.timeout);
    if let Some(body) = request.body {
        builder = builder.body(body);
    }
    let response = builder.send().await.map_err(failed)?;
    let status = response.status();
    let body = excerpt(response).await.map_err(failed)?;
    if status.is_client_error() || status.is_server_error() {
        let said = match body.trim() {
            "" => String::new(),
            text => format!("; body: {text}"),
        };
        return Err(HttpError::Status { what, status: status.as_u16(), said });
    }
    Ok(Answer { status: status.as_u16(), body })
}

/// The first part of the body; the rest is not even fetched.
async fn excerpt(mut response: Response) -> Result<String, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk[..chunk.len().min(LIMIT - bytes.len())]);
        if bytes.len() == LIMIT {
            break;
        }
    }
    Ok(clean(&bytes))
}
