//! A viewer's HTTP connection: GET, one after the other, kept alive. No more of HTTP/1.1 than our own server and
//! nginx answer with, so that it costs the machine next to nothing.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;

/// Above every hold of the server.
const ANSWER_MAX: Duration = Duration::from_secs(40);

pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    request: String,
    /// For the Host field: the admin listener answers to no other name than its own.
    server: SocketAddr,
}

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    gzip: bool,
    body_bytes: Option<usize>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    gzip: bool,
    /// As it came.
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).with_context(|| format!("cannot connect to {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream: BufReader::new(stream), request: String::new(), server })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Answer> {
        self.exchange(path).with_context(|| format!("GET {path}"))
    }

    /// As [`Self::get`], and nothing but 200 will do.
    pub(crate) fn get_ok(&mut self, path: &str) -> Result<Answer> {
        let answer = self.get(path)?;
        ensure!(answer.status == 200, "GET {path}: status {}", answer.status);
        Ok(answer)
    }

    fn exchange(&mut self, path: &str) -> Result<Answer> {
        let Self { request, server, .. } = self;
        request.clear();
        write!(request, "GET {path} HTTP/1.1\r\nHost: {server}\r\nAccept-Encoding: gzip\r\n\r\n")?;
        self.stream.get_mut().write_all(self.request.as_bytes())?;

        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let mut head = Head::of_status(&line)?;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            if !head.take(&line)? {
                break;
            }
        }
        let mut body = vec![0; head.body_bytes()?];
        self.stream.read_exact(&mut body)?;
        Ok(head.with_body(body))
    }
}

impl Head {
    pub(crate) fn of_status(line: &str) -> Result<Self> {
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("not a status line: {line:?}"))?;
        Ok(Self { status, gzip: false, body_bytes: None })
    }

    /// Takes the next line. False for the empty one, behind which the body begins.
    pub(crate) fn take(&mut self, line: &str) -> Result<bool> {
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(false) };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => self.body_bytes = value.trim().parse().ok(),
            "content-encoding" => self.gzip = value.trim() == "gzip",
            "transfer-encoding" => bail!("chunks are not understood here"),
            _ => {}
        }
        Ok(true)
    }

    pub(crate) fn body_bytes(&self) -> Result<usize> {
        self.body_bytes.context("no Content-Length")
    }

    pub(crate) fn with_body(self, body: Vec<u8>) -> Answer {
        Answer { status: self.status, gzip: self.gzip, body }
    }
}

impl Answer {
    /// Without its compression.
    pub(crate) fn plain(&self) -> Result<Vec<u8>> {
        if !self.gzip {
            return Ok(self.body.clone());
        }
        let mut plain = Vec::new();
        GzDecoder::new(self.body.as_slice()).read_to_end(&mut plain)?;
        Ok(plain)
    }

    pub(crate) fn text(&self) -> Result<String> {
        Ok(String::from_utf8(self.plain()?)?)
    }
}
