//! A client of the hub: management calls, chat, and streams that remember what they got.
//!
//! The official clients are run as programs ([`crate::programs`]); this one shows statuses, headers
//! and events exactly as they came, also from a stream whose hub was killed under it.

mod chat_stream;

use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::time::timeout;

pub use chat_stream::{ChatStream, Ending, Seen};

/// No single request of a test takes longer; a stream may, its reads are bounded one by one.
const REQUEST_BOUND: Duration = Duration::from_mins(1);

/// A client with one key.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    headers: HeaderMap,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// The body as JSON; `null` if it is not.
    pub json: Value,
}

/// A model that [`Client::serve_model`] has set up.
#[derive(Debug, Clone)]
pub struct ServedModel {
    /// The id of its provider.
    pub provider_id: String,
    /// The id of the model's own record.
    pub id: String,
}

impl Client {
    /// A client of the hub at `base` (`http://host:port`), without a key.
    ///
    /// # Errors
    ///
    /// When the TLS library cannot be set up.
    pub fn new(base: &str) -> Result<Self> {
        Ok(Self {
            http: http()?,
            base: base.to_owned(),
            headers: HeaderMap::new(),
        })
    }

    /// The same client with a bearer key.
    ///
    /// # Errors
    ///
    /// When the key cannot stand in a header.
    pub fn with_key(&self, key: &str) -> Result<Self> {
        self.with_header("authorization", &format!("Bearer {key}"))
    }

    /// The same client, with the same key, of the hub that `other` asks.
    #[must_use]
    pub fn at(&self, other: &Self) -> Self {
        Self {
            base: other.base.clone(),
            ..self.clone()
        }
    }

    /// The same client with a header field in each request, replacing one of that name.
    ///
    /// # Errors
    ///
    /// When name or value cannot stand in a header.
    pub fn with_header(&self, name: &str, value: &str) -> Result<Self> {
        let mut client = self.clone();
        let name: HeaderName = name.parse().context("a strange header name")?;
        client.headers.insert(
            name,
            HeaderValue::from_str(value).context("a strange header")?,
        );
        Ok(client)
    }

    /// `GET path`.
    ///
    /// # Errors
    ///
    /// When there is no answer; an answer of any status is not an error.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::GET, path), path).await
    }

    /// `DELETE path`.
    ///
    /// # Errors
    ///
    /// When there is no answer; an answer of any status is not an error.
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::DELETE, path), path).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    ///
    /// When there is no answer; an answer of any status is not an error.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.post_bytes(path, body.to_string()).await
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    ///
    /// When there is no answer; an answer of any status is not an error.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        let request = self.request(Method::PUT, path).body(body.to_string());
        self.send(request.header("content-type", "application/json"), path)
            .await
    }

    /// `POST path` with a body of any bytes, declared as JSON.
    ///
    /// # Errors
    ///
    /// When there is no answer; an answer of any status is not an error.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
        let request = self.request(Method::POST, path).body(body.into());
        self.send(request.header("content-type", "application/json"), path)
            .await
    }

    /// A request with the client's headers, for what the verbs above do not offer.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .headers(self.headers.clone())
    }

    /// A chat completion that is not streamed.
    ///
    /// # Errors
    ///
    /// When there is no answer; an answer of any status is not an error.
    pub async fn chat(&self, body: &Value) -> Result<Answer> {
        self.post("/v1/chat/completions", body).await
    }

    /// A streamed chat completion; `"stream": true` is set.
    ///
    /// # Errors
    ///
    /// When there is no answer; an answer of any status is not an error, but a stream that
    /// [`Ending::Refused`] ended.
    pub async fn chat_stream(&self, body: &Value) -> Result<ChatStream> {
        let mut body = body.clone();
        if let Some(fields) = body.as_object_mut() {
            fields.insert("stream".to_owned(), Value::Bool(true));
        }
        let path = "/v1/chat/completions";
        let request = self.request(Method::POST, path).body(body.to_string());
        let sent = request.header("content-type", "application/json").send();
        // Only the head is waited for so long; a stream may take its time.
        let answer = timeout(REQUEST_BOUND, sent)
            .await
            .with_context(|| format!("no answer to POST {path} in {REQUEST_BOUND:?}"))?
            .with_context(|| format!("no answer to POST {path}"))?;
        Ok(ChatStream::read(answer))
    }

    /// A stream of events that is asked for with `GET path`.
    ///
    /// # Errors
    ///
    /// When there is no answer; an answer of any status is not an error, but a stream that
    /// [`Ending::Refused`] ended.
    pub async fn events(&self, path: &str) -> Result<ChatStream> {
        let answer = timeout(REQUEST_BOUND, self.request(Method::GET, path).send())
            .await
            .with_context(|| format!("no answer to GET {path} in {REQUEST_BOUND:?}"))?
            .with_context(|| format!("no answer to GET {path}"))?;
        Ok(ChatStream::read(answer))
    }

    /// Sets up a provider at `base_url` (with its key `upstream-secret`) and a model on it.
    ///
    /// # Errors
    ///
    /// When the hub does not take them.
    pub async fn serve_model(&self, model: &str, base_url: &str) -> Result<ServedModel> {
        let provider = json!({
            "name": format!("provider-of-{model}"),
            "kind": "openai",
            "server_url": base_url,
            "server_key": "upstream-secret",
        });
        self.serve(&provider, json!({"model_name": model})).await
    }

    /// Sets up a provider and a model on it, from the bodies of the management API; the model's
    /// needs no `provider_id`.
    ///
    /// # Errors
    ///
    /// When the hub does not take them.
    pub async fn serve(&self, provider: &Value, mut model: Value) -> Result<ServedModel> {
        let provider = self.post("/providers", provider).await?.expect(201)?;
        let provider_id = provider.id()?;
        if let Some(model) = model.as_object_mut() {
            model.insert("provider_id".to_owned(), Value::from(&*provider_id));
        }
        let model = self.post("/provider_models", &model).await?.expect(201)?;
        let id = model.id()?;
        Ok(ServedModel { provider_id, id })
    }

    /// Creates a key with this role and returns a client that uses it.
    ///
    /// # Errors
    ///
    /// When the hub does not create it.
    pub async fn with_new_key(&self, name: &str, role: &str) -> Result<Self> {
        let body = json!({"name": name, "role": role});
        let created = self.post("/keys", &body).await?.expect(201)?;
        let key = created.json.get("key").and_then(Value::as_str);
        self.with_key(key.context("the answer to POST /keys has no `key`")?)
    }

    async fn send(&self, request: reqwest::RequestBuilder, path: &str) -> Result<Answer> {
        let answer = request
            .timeout(REQUEST_BOUND)
            .send()
            .await
            .with_context(|| format!("no answer from {path}"))?;
        Answer::read(answer)
            .await
            .with_context(|| format!("half an answer from {path}"))
    }
}

impl Answer {
    /// Reads an answer to its end; for requests that were built by hand.
    ///
    /// # Errors
    ///
    /// When the connection breaks in the middle of the body.
    pub async fn read(answer: reqwest::Response) -> Result<Self> {
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let body = answer.bytes().await?;
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Self {
            status,
            headers,
            body,
            json,
        })
    }

    /// This answer, if it has the status that the test expects.
    ///
    /// # Errors
    ///
    /// When it has another; with the body.
    pub fn expect(self, status: u16) -> Result<Self> {
        ensure!(
            self.status == status,
            "answered {} instead of {status}: {}",
            self.status,
            self.text()
        );
        Ok(self)
    }

    /// The `id` of the resource in the body.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn id(&self) -> Result<String> {
        let id = self.json.get("id").and_then(Value::as_str);
        Ok(id
            .with_context(|| format!("no `id` in {}", self.text()))?
            .to_owned())
    }

    /// A header field as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of one series in a Prometheus text, labels included as they are printed.
    ///
    /// For example `nexus_requests_total{status="200"}`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.text();
        let of_series = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(of_series)
    }

    /// The text of the first choice of a chat completion, empty if it is none.
    pub fn content(&self) -> &str {
        let content = self.json.pointer("/choices/0/message/content");
        content.and_then(Value::as_str).unwrap_or_default()
    }

    /// The `error.code` of an OpenAI error object, empty if it is none.
    pub fn error_code(&self) -> &str {
        self.json
            .pointer("/error/code")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// The HTTP client of the harness: loopback only, no proxy, no redirects followed.
///
/// # Errors
///
/// When the TLS library cannot be set up.
pub fn http() -> Result<reqwest::Client> {
    // The provider is set once for the process; a second attempt would only report that.
    static TLS: Once = Once::new();
    TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("failed to build an HTTP client")
}

#[cfg(test)]
mod tests;
