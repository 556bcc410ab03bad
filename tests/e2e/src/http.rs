//! Requests over HTTP as a script would send them.
//!
//! Owns: one request and its answer, read to the end or line by line. Must not: know what the server means by them.
//! Next: `server.rs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::PATIENCE;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// What follows them.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}\n{text}", self.head))
    }

    /// A header's value.
    ///
    /// # Panics
    /// When the answer does not have it.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| panic!("no {name} in {}", self.head)).1
    }
}

/// Sends a request, whose headers are whole lines, and reads the answer.
///
/// # Panics
/// When the server does not answer.
#[must_use]
pub fn send(address: &str, request_line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = begin(address, request_line, headers, body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server answers and closes");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an HTTP response has a head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an HTTP status");
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

/// Sends a request whose answer does not end, and reads it by lines.
///
/// # Panics
/// When the server cannot be reached.
pub fn lines(address: &str, request_line: &str, headers: &[(&str, &str)]) -> impl Iterator<Item = String> + use<> {
    BufReader::new(begin(address, request_line, headers, b"")).lines().map_while(Result::ok)
}

fn begin(address: &str, request_line: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server accepts connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{request_line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).expect("the server reads the request");
    stream
}
