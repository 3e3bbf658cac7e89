//! nginx with its RTMP module, as Debian has it: what we compare ourselves with.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::media::root;
use tempfile::TempDir;

use crate::process::{Process, wait_for};

const START_MAX: Duration = Duration::from_secs(10);

/// Where `peers.sh` unpacks Debian's packages; nothing is installed.
pub(crate) struct Peers {
    folder: PathBuf,
}

pub(crate) struct Nginx {
    pub(crate) process: Process,
    pub(crate) rtmp: SocketAddr,
    pub(crate) http: SocketAddr,
    /// Files here are served under `/kept/`; they are kept open, so they must not change.
    pub(crate) kept: PathBuf,
    _files: TempDir,
}

impl Peers {
    /// Fetches what is missing.
    pub(crate) fn get() -> Result<Self> {
        let folder = root().canonicalize()?.join("target/tools/peers");
        let script = root().join("bench/peers.sh");
        let status =
            Command::new(&script).arg(&folder).status().with_context(|| script.display().to_string())?;
        ensure!(status.success(), "nginx and wrk are not to be had; see above");
        Ok(Self { folder })
    }

    /// RTMP in, HLS and files out. One worker; fragments of 2 s in a window of 12 s.
    pub(crate) fn nginx(&self) -> Result<Nginx> {
        let files = TempDir::new()?;
        // A master that runs as root starts its worker as somebody who may not read a private folder.
        let prefix = files.path().join("nginx");
        // A folder of its own: the module deletes what is old, and folders without anything, from where it writes.
        let (hls, kept) = (files.path().join("hls"), files.path().join("kept"));
        for folder in [&prefix, &hls, &kept] {
            fs::create_dir(folder)?;
        }
        let (rtmp, http) = (free_port()?, free_port()?);
        fs::write(prefix.join("nginx.conf"), config(&self.folder, files.path(), rtmp, http))?;
        let mut command = Command::new(self.folder.join("usr/sbin/nginx"));
        command.arg("-p").arg(&prefix).args(["-c", "nginx.conf", "-e", "error.log"]);
        let process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        wait_for("nginx", START_MAX, || TcpStream::connect(http).ok())
            .with_context(|| fs::read_to_string(prefix.join("error.log")).unwrap_or_default())?;
        Ok(Nginx { process, rtmp, http, kept, _files: files })
    }

    /// `wrk` on one URL. Returns the requests that were answered with success, and the bytes of all answers.
    pub(crate) fn wrk(&self, url: &str, headers: &[&str], seconds: u64) -> Result<(f64, f64)> {
        let mut command = Command::new(self.folder.join("usr/bin/wrk"));
        command.env("LD_LIBRARY_PATH", self.folder.join("lib"));
        command.args(["-t1", "-c50", "--timeout", "10s", &format!("-d{seconds}s")]);
        for header in headers {
            command.args(["-H", header]);
        }
        // The figures of the run as they are, without units that depend on their size.
        command.arg("-s").arg(root().join("bench/wrk.lua")).arg(url);
        let output = command.output().context("wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("measured "));
        let figures: Vec<f64> =
            line.unwrap_or_default().split(' ').filter_map(|figure| figure.parse().ok()).collect();
        let [requests, bytes, errors] = figures[..] else {
            anyhow::bail!("wrk said: {text}{}", String::from_utf8_lossy(&output.stderr));
        };
        ensure!(errors == 0.0, "{errors} of {requests} requests to {url} failed");
        Ok((requests, bytes))
    }
}

impl Nginx {
    pub(crate) fn publish_url(&self, stream: &str) -> String {
        format!("rtmp://{}/live/{stream}", self.rtmp)
    }
}

fn config(peers: &Path, files: &Path, rtmp: SocketAddr, http: SocketAddr) -> String {
    let (peers, files) = (peers.display(), files.display());
    // The account of whoever runs this, so that a root's nginx does not change to one that may not read here.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "load_module {peers}/usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off; worker_processes 1; pid nginx.pid; error_log error.log warn; {user}
events {{ worker_connections 1024; }}
rtmp {{ access_log off; server {{ listen {rtmp}; chunk_size 4096; application live {{
    live on; hls on; hls_path {files}/hls; hls_fragment 2s; hls_playlist_length 12s;
}} }} }}
http {{
    sendfile on; tcp_nopush on; keepalive_requests 1000000; access_log off;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
    types {{ application/vnd.apple.mpegurl m3u8; video/mp2t ts; video/mp4 m4s; }}
    server {{ listen {http}; root {files}/hls; location /kept/ {{ root {files}; open_file_cache max=64; }} }}
}}
"
    )
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
