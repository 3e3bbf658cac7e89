//! Names and headers that mean something to whoever reads them next: threats 9 and 16.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::rtmp::{self, Rtmp};
use harness::server::{PUBLISH_KEY, Tidecast};

use crate::scene::Scene;

const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The answer to a request that no HTTP library would send.
fn ask(server: &Tidecast, target: &[u8], headers: &str) -> Result<String> {
    let mut socket = TcpStream::connect(server.http_address())?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    socket.write_all(
        &[b"GET ", target, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", headers.as_bytes(), b"\r\n"]
            .concat(),
    )?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "..",
        "%2e%2e",
        "%252e%252e",
        "a/../b",
        "/etc/passwd",
        "a\\b",
        "a\0b",
        "\u{2025}",
        "\u{ff0e}\u{ff0e}",
        "*",
        ">",
        ".",
        "$x",
        "a b",
        "a#b",
        "a%00b",
        "<script>",
        "a\r\nx: y",
        "a%0d%0ax:%20y",
        "~token",
    ]
    .map(str::to_owned)
    .into();
    names.push("a".repeat(65));
    names.push("a".repeat(60_000));
    names
}

/// A name leads out of its folder, into another's, or to no end.
#[test]
fn threat_9_no_name_is_a_path() -> Result<()> {
    let scene = Scene::start()?;
    for name in names() {
        let told = format!("{:.40}", name.escape_debug().to_string());
        // By RTMP: as the application, and as the stream.
        for (app, stream) in [("live", name.as_str()), (name.as_str(), "x")] {
            let mut rtmp = Rtmp::connect(scene.server.rtmp_address())?;
            rtmp.raw(&rtmp::opening(app, &format!("{stream}?key={PUBLISH_KEY}")))?;
            let words = rtmp.until_closed(ANSWER_MAX)?;
            ensure!(!words.contains("NetStream.Publish.Start"), "{told} was published");
        }
        // By HTTP, where a name has one spelling and everything else is nothing. There these two end the path.
        if name.contains(['?', '#']) {
            continue;
        }
        for folder in ["/hls/live/", "/hls/", "/state/live/", "/watch/live/", "/assets/", "/"] {
            let target = format!("{folder}{name}/index.m3u8");
            let answer = ask(&scene.server, target.as_bytes(), "")?;
            ensure!(
                !answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.1 5"),
                "{folder}{told}: {answer:.200}"
            );
            ensure!(!answer.contains("root:"), "{folder}{told}: a file of the machine");
        }
    }
    let state = scene.http.get_ok("/state")?.text();
    ensure!(state.matches("\"stream\":").count() == 1, "more is live than was published: {state}");
    scene.is_sound()
}

/// What a stranger writes comes back as a header, or as markup.
#[test]
fn threat_16_nothing_of_a_request_is_in_an_answer() -> Result<()> {
    let scene = Scene::start()?;
    let canary = "canary16";
    let targets = [
        format!("/hls/live/x%0d%0aSet-Cookie:{canary}/index.m3u8"),
        format!("/hls/live/honest/index.m3u8?callback={canary}"),
        format!("/hls/~{canary}%0d%0a/live/honest/index.m3u8"),
        format!("/watch/live/<script>{canary}</script>"),
        format!("/watch/live/{canary}%22onload=x"),
        format!("/state?jsonp={canary}"),
        format!("//{canary}.example/"),
        format!("/{canary}<img>"),
    ];
    for target in &targets {
        for headers in [
            "",
            "Origin: https://canary16.example\r\n",
            "Accept: text/html, canary16\r\nReferer: canary16\r\n",
        ] {
            let answer = ask(&scene.server, target.as_bytes(), headers)?;
            ensure!(!answer.contains(canary), "{target} with {headers:?}: {answer:.400}");
            if !answer.starts_with("HTTP/1.1 400") {
                ensure!(
                    answer.contains("\r\nx-content-type-options: nosniff")
                        || answer.contains("mpegurl")
                        || target.starts_with("/hls/"),
                    "{target}: {answer:.400}"
                );
            }
        }
    }
    // A header in the middle of another is no header of ours.
    let answer = ask(&scene.server, b"/", "X: a\rSet-Cookie: canary16\r\n")?;
    ensure!(answer.starts_with("HTTP/1.1 4") && !answer.contains(canary), "{answer:.400}");
    scene.is_sound()
}
