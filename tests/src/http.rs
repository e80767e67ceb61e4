//! HTTP requests, each over a connection of its own.

use crate::PATIENCE;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// A complete HTTP response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// The value of a header, by its name in lower case; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("{} is not JSON: {}", self.status, self.body))
    }

    /// The error code of a problem document. Checks that the response is one and that its status is the response's.
    ///
    /// # Errors
    /// If it is not a complete problem document (RFC 9457).
    pub fn problem(&self) -> Result<String> {
        let document = self.json()?;
        if self.header("content-type") != "application/problem+json" {
            bail!("content type {:?} of a problem: {self:?}", self.header("content-type"));
        }
        for member in ["type", "title", "detail"] {
            if document[member].as_str().is_none_or(str::is_empty) {
                bail!("the problem document has no {member}: {self:?}");
            }
        }
        if document["status"] != self.status {
            bail!("the problem document's status is not the answer's: {self:?}");
        }
        Ok(document["code"].as_str().context("the problem document has no code")?.to_owned())
    }
}

/// Sends a request with an optional JSON body and reads the response.
///
/// # Errors
/// If there is no complete response.
pub async fn request(
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&str>,
) -> Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    if let Some(token) = token {
        head.push_str(&format!("authorization: Bearer {token}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
    }
    raw(address, format!("{head}\r\n{}", body.unwrap_or("")).as_bytes()).await
}

/// Sends raw bytes and reads the response to the end of the connection.
///
/// # Errors
/// If there is no complete response.
pub async fn raw(address: &str, bytes: &[u8]) -> Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // A server that refuses a request early may close before it has read all bytes. Its response counts nevertheless.
        let written = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        if answer.is_empty() {
            written?;
            read?;
        }
        parse(&answer)
    };
    timeout(PATIENCE, exchange).await.context("no answer")?
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no end of headers")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Ok(Answer { status, headers, body })
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Some(chunk) = usize::from_str_radix(size.trim(), 16).ok().and_then(|size| after.get(..size))
        else {
            break;
        };
        body.push_str(chunk);
        rest = after[chunk.len()..].trim_start_matches("\r\n");
        if chunk.is_empty() {
            break;
        }
    }
    body
}
