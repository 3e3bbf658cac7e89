//! The shipped binary from outside: started as an operator starts it, judged by what it prints, answers and
//! returns. No test waits for a time; each waits for a line, an answer or the end of the process.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const CANARY: &str = "canary-4711-canary-4711";
/// Far above what anything here takes, so that a hang fails the test instead of the whole run.
const PATIENCE: Duration = Duration::from_secs(30);

/// The binary with nothing of this machine's environment but a home of its own, listening on free ports.
fn tidecast(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidecast"));
    command.env_clear().env("HOME", home).current_dir(home);
    for key in ["HTTP", "RTMP", "WEBRTC", "ADMIN"] {
        command.env(format!("TIDECAST__{key}__LISTEN"), "127.0.0.1:0");
    }
    command
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn kept_key(home: &Path) -> std::path::PathBuf {
    home.join(".local/share/tidecast/publish_key")
}

/// Runs a command that ends by itself.
fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// A running server; killed if the test ends early.
struct Server {
    child: Child,
    lines: Receiver<String>,
    /// Everything it has printed and we have read.
    printed: String,
    ready: String,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines() {
                    // The test has seen enough when nobody receives any more.
                    let _ = sender.send(line.unwrap());
                }
            });
        }
        let mut server = Self { child, lines, printed: String::new(), ready: String::new() };
        server.ready = server.line_with("ready: ");
        server
    }

    /// The next line that holds `words`.
    fn line_with(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {words:?} in:\n{}", self.printed);
            };
            self.printed += &line;
            self.printed += "\n";
            if line.contains(words) {
                return line;
            }
        }
    }

    /// A bound address, from the line that says the server is ready.
    fn addr(&self, key: &str) -> SocketAddr {
        let (_, after) = self.ready.split_once(&format!("{key}=")).unwrap();
        after.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn get(&self, path: &str) -> Answer {
        let mut admin = TcpStream::connect(self.addr("admin.listen")).unwrap();
        write!(admin, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        Answer::read(admin)
    }

    /// A request whose last line is still missing. Accepted when this returns, so a drain has to wait for it.
    fn half_a_request(&self, path: &str) -> TcpStream {
        let mut admin = TcpStream::connect(self.addr("admin.listen")).unwrap();
        write!(admin, "GET {path} HTTP/1.1\r\nHost: localhost\r\n").unwrap();
        // Connections are accepted in order, and this answer comes from a later one.
        self.get("/healthz");
        admin
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end and returns the exit code and everything that was printed.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        // Both outputs are closed when the process has ended.
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.printed += &line;
            self.printed += "\n";
        }
        assert!(Instant::now() < deadline, "still running after {PATIENCE:?}:\n{}", self.printed);
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.printed))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it has ended already, which is the usual case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Answer {
    fn read(mut stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let (status_line, headers) = head.split_once("\r\n").unwrap();
        let header =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Self {
            status: status_line.split(' ').nth(1).unwrap().parse().unwrap(),
            headers: headers.lines().filter_map(header).collect(),
            body: body.to_owned(),
        }
    }
}

#[test]
fn health_readiness_and_metrics_answer_once_it_is_ready() {
    let home = home();
    let server = Server::start(&mut tidecast(home.path()));

    assert_eq!(server.get("/healthz").status, 200);
    let ready = server.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, "{\"ready\":true}\n"));
    let metrics = server.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(metrics.body.contains("\ntidecast_build_info{version=\""), "{}", metrics.body);
    assert!(metrics.body.ends_with("# EOF\n"));
    assert_eq!(server.get("/api/v1/streams").body, "{\"expected\":[],\"streams\":[]}\n");
    assert_eq!(server.get("/api/v2/streams").status, 404);

    for listener in ["http.listen", "rtmp.listen"] {
        TcpStream::connect(server.addr(listener)).unwrap();
    }
    let http = server.addr("http.listen");
    assert!(
        server.ready.contains(&format!("watch at http://{http}/watch/{{app}}/{{stream}}")),
        "{}",
        server.ready
    );
}

#[test]
fn one_signal_drains_and_exits_clean() {
    for signal in [Signal::TERM, Signal::INT] {
        let home = home();
        let server = Server::start(&mut tidecast(home.path()));
        server.signal(signal);
        let (code, printed) = server.end();
        assert_eq!(code, Some(0), "{printed}");
        assert_eq!(printed.matches("drained: clean").count(), 1, "{printed}");
    }
}

#[test]
fn a_drain_tells_that_it_is_one_and_finishes_what_is_open() {
    let home = home();
    let mut server = Server::start(&mut tidecast(home.path()));
    let mut open = server.half_a_request("/readyz");
    server.signal(Signal::TERM);
    server.line_with("draining");
    open.write_all(b"\r\n").unwrap();
    let answer = Answer::read(open);
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("\"ready\":false") && answer.body.contains("draining"), "{}", answer.body);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_second_signal_stops_at_once_and_the_exit_code_says_so() {
    let home = home();
    let mut server = Server::start(&mut tidecast(home.path()));
    let _open = server.half_a_request("/readyz");
    server.signal(Signal::TERM);
    server.line_with("draining");
    let asked = Instant::now();
    server.signal(Signal::TERM);
    let (code, printed) = server.end();
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("drained: not clean, stopped by a second signal"), "{printed}");
    // The open request alone would have held the drain for 5 s.
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
}

#[test]
fn a_port_in_use_is_one_line_with_key_and_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for key in ["HTTP", "RTMP", "ADMIN"] {
        let home = home();
        let output = output(tidecast(home.path()).env(format!("TIDECAST__{key}__LISTEN"), &addr));
        assert_eq!(output.status.code(), Some(1));
        let errors: Vec<_> = stderr(&output).lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), 1, "{}", stderr(&output));
        let expected =
            format!("{}.listen: cannot listen on {addr}: another program listens there", key.to_lowercase());
        assert!(errors[0].contains(&expected), "{}", errors[0]);
    }
}

#[test]
fn the_first_start_makes_a_key_that_only_keys_show_prints() {
    let home = home();
    let before = output(tidecast(home.path()).args(["keys", "show"]));
    assert_eq!(before.status.code(), Some(1));
    assert!(stderr(&before).contains("there is no publish key"), "{}", stderr(&before));

    let start_and_stop = || {
        let server = Server::start(tidecast(home.path()).env("TIDECAST_LOG", "trace"));
        server.get("/metrics");
        server.signal(Signal::TERM);
        server.end().1
    };
    let first = start_and_stop();
    assert!(
        first.contains("publish key: made and kept in") && first.contains("tidecast keys show"),
        "{first}"
    );
    assert_eq!(fs::metadata(kept_key(home.path())).unwrap().permissions().mode() & 0o777, 0o600);

    let shown = output(tidecast(home.path()).args(["keys", "show"]));
    let key = stdout(&shown).trim();
    assert_eq!((key.len(), stderr(&shown)), (26, ""));
    let second = start_and_stop();
    assert!(second.contains("publish key: kept in"), "{second}");
    assert!(!first.contains(key) && !second.contains(key), "the key is in the log");
}

#[test]
fn keys_new_replaces_the_kept_key_and_refuses_when_one_is_configured() {
    let home = home();
    let old = output(tidecast(home.path()).args(["keys", "new"]));
    let new = output(tidecast(home.path()).args(["keys", "new"]));
    assert!(stderr(&new).contains("within seconds"), "{}", stderr(&new));
    assert_ne!(old.stdout, new.stdout);
    assert_eq!(output(tidecast(home.path()).args(["keys", "show"])).stdout, new.stdout);

    let mut configured = tidecast(home.path());
    configured.env("TIDECAST__AUTH__PUBLISH_KEY", CANARY);
    let refused = output(configured.args(["keys", "new"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("auth.publish_key is configured (environment TIDECAST__AUTH__PUBLISH_KEY)"),
        "{}",
        stderr(&refused)
    );
    assert!(!stderr(&refused).contains(CANARY));
    assert_eq!(output(tidecast(home.path()).args(["keys", "show"])).stdout, new.stdout);

    let mut configured = tidecast(home.path());
    configured.env("TIDECAST__AUTH__PUBLISH_KEY", CANARY);
    assert_eq!(stdout(&output(configured.args(["keys", "show"]))), format!("{CANARY}\n"));
}

#[test]
fn a_configured_key_is_used_and_never_printed() {
    let home = home();
    fs::write(home.path().join("tidecast.toml"), format!("[auth]\npublish_key = \"{CANARY}\"\n")).unwrap();
    let with_file = |arguments: &[&str]| {
        let mut command = tidecast(home.path());
        command.args(["--config", "tidecast.toml"]).args(arguments).env("TIDECAST_LOG", "trace");
        command
    };
    let server = Server::start(&mut with_file(&[]));
    let metrics = server.get("/metrics").body;
    server.get(&format!("/{CANARY}"));
    server.signal(Signal::TERM);
    let (_, printed) = server.end();
    assert!(printed.contains("publish key: configured"), "{printed}");
    assert!(!kept_key(home.path()).exists());

    let shown = output(&mut with_file(&["config", "show"]));
    assert!(stdout(&shown).contains("auth.publish_key = \"(hidden)\""), "{}", stdout(&shown));
    assert!(stdout(&shown).contains("# tidecast.toml:2:15"), "{}", stdout(&shown));
    for text in [&metrics, &printed, stdout(&shown), stderr(&shown)] {
        assert!(!text.contains(CANARY));
    }
}

#[test]
fn check_tells_all_mistakes_of_a_file_with_their_lines() {
    let home = home();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../tidecast.sample.toml");
    // The environment is wrong here, and not asked.
    let good = output(tidecast(home.path()).args(["check", sample]).env("TIDECAST__NO_SUCH_KEY", "1"));
    assert_eq!((good.status.code(), stdout(&good), stderr(&good)), (Some(0), "OK\n", ""));

    let file = home.path().join("wrong.toml");
    fs::write(&file, format!("[http]\nlisen = \":80\"\n[auth]\npublish_key = \"{CANARY}&\"\n")).unwrap();
    let wrong = output(tidecast(home.path()).args(["check", "wrong.toml"]));
    assert_eq!(wrong.status.code(), Some(1));
    assert_eq!(
        stderr(&wrong),
        "wrong.toml:2:1: http.lisen: unknown key; did you mean http.listen?\n\
         wrong.toml:4:15: auth.publish_key: has a character that a URL query would change; allowed: 16 to 128 of \
         the characters A-Z a-z 0-9 - . _ ~\n\
         2 problems\n"
    );

    let missing = output(tidecast(home.path()).args(["check", "missing.toml"]));
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).starts_with("cannot read missing.toml: "), "{}", stderr(&missing));
}

/// What an operator asks before a restart, and after a renewal that did not work.
#[test]
fn tls_check_says_whom_a_certificate_names_and_what_is_wrong_with_it() {
    let home = home();
    let path = |name: &str| home.path().join(name);
    let make = |not_after: i32| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["live.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(not_after, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let (certificate, key) = make(2100);
    fs::write(path("good.pem"), &certificate).unwrap();
    fs::write(path("key.pem"), key).unwrap();
    fs::write(path("other.pem"), make(2100).1).unwrap();
    let (expired, key) = make(2001);
    fs::write(path("expired.pem"), expired + &key).unwrap();
    let asked = |certificate: &str, key: &str, arguments: &[&str]| {
        let mut command = tidecast(home.path());
        for (variable, file) in [("CERTIFICATE", certificate), ("KEY", key)] {
            if !file.is_empty() {
                command.env(format!("TIDECAST__TLS__{variable}"), path(file));
            }
        }
        output(command.args(arguments))
    };
    let good = asked("good.pem", "key.pem", &["tls", "check"]);
    assert!(good.status.success(), "{}", stderr(&good));
    let told = stdout(&good);
    assert!(
        told.contains("live.example") && told.contains("2100-01-01") && told.contains("the key fits"),
        "{told}"
    );
    for (certificate, key, words) in [
        ("", "", "no certificate is configured"),
        ("good.pem", "other.pem", "the key is not the one of the certificate"),
        ("absent.pem", "key.pem", "cannot read "),
        ("expired.pem", "", "expired on 2001-01-01"),
    ] {
        let refused = asked(certificate, key, &["tls", "check"]);
        assert_eq!(refused.status.code(), Some(1), "{certificate}");
        assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
    }
    // Nothing is served under a wrong name, or half.
    let start = asked("good.pem", "other.pem", &[]);
    assert_eq!(start.status.code(), Some(1));
    assert!(stderr(&start).contains("the key is not the one of the certificate"), "{}", stderr(&start));
}

#[test]
fn a_wrong_configuration_does_not_start() {
    let home = home();
    let output = output(
        tidecast(home.path()).env("TIDECAST__ADMIN__LISTEN", "0.0.0.0:9090").env("TIDECAST__HTTP", "x"),
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).lines().count(), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("can be reached from other machines"), "{}", stderr(&output));
    assert!(!kept_key(home.path()).exists(), "nothing is written before the configuration is right");
}

#[test]
fn a_data_dir_that_cannot_be_made_is_told_with_the_way_out() {
    let home = home();
    fs::write(home.path().join("file"), "").unwrap();
    let output = output(tidecast(home.path()).env("TIDECAST__DATA_DIR", home.path().join("file/data")));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("set data_dir (TIDECAST__DATA_DIR)"), "{}", stderr(&output));
}

#[test]
fn json_logs_are_objects_one_per_line() {
    let home = home();
    let server = Server::start(tidecast(home.path()).args(["--log-format", "json"]));
    assert!(server.ready.contains("\"http.listen\":\"127.0.0.1:"), "{}", server.ready);
    server.signal(Signal::TERM);
    let (_, printed) = server.end();
    for line in printed.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].is_string(), "{line}");
    }
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let home = home();
    let output = output(tidecast(home.path()).env("TIDECAST_LOG", "info,tidecast=loud"));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("TIDECAST_LOG: "), "{}", stderr(&output));
}

#[test]
fn help_and_version_answer() {
    let home = home();
    let version = output(tidecast(home.path()).arg("--version"));
    assert!(
        stdout(&version).starts_with(concat!("tidecast ", env!("CARGO_PKG_VERSION"), " (")),
        "{}",
        stdout(&version)
    );
    let help = output(tidecast(home.path()).arg("--help"));
    for words in ["First steps", "TIDECAST__HTTP__LISTEN", "Exit codes", "keys", "check"] {
        assert!(stdout(&help).contains(words), "{words} is missing in\n{}", stdout(&help));
    }
    for wrong in [&["--no-such"][..], &["keys"], &["--config", "a.toml", "check", "b.toml"]] {
        assert_eq!(output(tidecast(home.path()).args(wrong)).status.code(), Some(2), "{wrong:?}");
    }
}
