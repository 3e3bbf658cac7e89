//! A viewer's HTTP connection where there are many: as `http.rs`, without a thread for each.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::http::{Answer, Head};

/// Room for a head; bodies are read past it.
const BUFFER_BYTES: usize = 1024;

/// Of those who share one: as many as the server must expect.
const CLIENTS_PER_ADDRESS: usize = 20;

/// The address of the client with this number. They come from many, and loopback has sixteen million.
pub(crate) fn address_of(number: usize) -> Ipv4Addr {
    let [.., high, low] = (number / CLIENTS_PER_ADDRESS + 1).to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    text: String,
}

impl Client {
    /// `receive_bytes` bounds what the system takes in for a reader that is slow.
    pub(crate) async fn open(server: SocketAddr, from: Ipv4Addr, receive_bytes: Option<u32>) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind((from, 0).into())?;
        let stream = socket.connect(server).await.with_context(|| format!("{from} to {server}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(BUFFER_BYTES, stream), text: String::new() })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer> {
        self.ask(path).await?;
        self.answer().await.with_context(|| format!("GET {path}"))
    }

    pub(crate) async fn post(&mut self, path: &str, kind: &str, body: &str) -> Result<Answer> {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        self.answer().await.with_context(|| format!("POST {path}"))
    }

    /// Sends a request, and does not wait.
    pub(crate) async fn ask(&mut self, path: &str) -> Result<()> {
        self.text.clear();
        self.text.extend(["GET ", path, " HTTP/1.1\r\nHost: bench\r\n\r\n"]);
        Ok(self.stream.get_mut().write_all(self.text.as_bytes()).await?)
    }

    pub(crate) async fn answer(&mut self) -> Result<Answer> {
        let head = self.head().await?;
        let mut body = vec![0; head.body_bytes()?];
        self.stream.read_exact(&mut body).await?;
        Ok(head.with_body(body))
    }

    pub(crate) async fn head(&mut self) -> Result<Head> {
        self.line().await?;
        let mut head = Head::of_status(&self.text)?;
        loop {
            self.line().await?;
            if !head.take(&self.text)? {
                return Ok(head);
            }
        }
    }

    /// Some of a body, into all of `bytes`.
    pub(crate) async fn some(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.stream.read_exact(bytes).await?;
        Ok(())
    }

    async fn line(&mut self) -> Result<()> {
        self.text.clear();
        self.stream.read_line(&mut self.text).await?;
        Ok(())
    }
}
