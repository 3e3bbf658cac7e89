//! Who is let through to a TURN server alone: told of it and of credentials that end, in studio and watch page.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::server::{PUBLISH_KEY, Setup};
use harness::turn::Turn;
use serde::Deserialize;

const STEP_MAX: Duration = Duration::from_secs(120);
const SECRET: &str = "canary-of-the-turn-servers";
/// What the draft recommends, in seconds.
const LAST_S: u64 = 24 * 60 * 60;

/// Out of Chromium.
const WHIP_OFFER: &str = include_str!("../../ingest/src/whip/offer/chromium.sdp");

#[derive(Debug, Deserialize)]
struct Connected {
    relayed: bool,
    /// Of the TURN server's.
    user: String,
    problems: Vec<String>,
    #[serde(default)]
    player: Option<String>,
}

#[test]
fn who_gets_through_to_a_turn_server_alone_publishes_and_watches_by_it() -> Result<()> {
    let turn = Turn::start(SECRET)?;
    let server = Setup::default()
        .set("webrtc.ice_servers", &format!("stun:127.0.0.1:9, {}", turn.url()))
        .set("webrtc.turn_secret", SECRET)
        .start()?;
    let origin = server.page_url("");
    let browser = Browser::run_with("turn.mjs", &[&origin, "live/tab"], &[("KEY", PUBLISH_KEY)])?;
    for event in ["live", "watched"] {
        let connected: Connected = browser.wait_for(event, STEP_MAX)?;
        println!("{event}: {connected:?}");
        ensure!(connected.relayed && connected.problems.is_empty(), "{event}: {connected:?}");
        ensure!(connected.player.is_none_or(|player| player == "webrtc"), "{event}: by HLS");
        turn.wait_for_allocation(|user| user == connected.user, STEP_MAX)?;
        let until: u64 = connected.user.parse()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        ensure!((now + LAST_S - 300..=now + LAST_S).contains(&until), "until {until}, and it is {now}");
    }
    // Only what opens the TURN server is told, and nothing of what it was made of.
    let authorization = format!("Bearer {PUBLISH_KEY}");
    let headers = [("content-type", "application/sdp"), ("authorization", &*authorization)];
    let created = server.viewer_http().send("POST", "/whip/live/other", &headers, WHIP_OFFER.as_bytes())?;
    let links: Vec<_> = created.all("link");
    ensure!(links.len() == 2 && links[0] == "<stun:127.0.0.1:9>; rel=\"ice-server\"", "{links:?}");
    let begin = format!("<{}>; rel=\"ice-server\"; username=\"", turn.url());
    ensure!(
        links[1].starts_with(&begin) && links[1].ends_with("; credential-type=\"password\""),
        "{links:?}"
    );
    ensure!(!server.log().join("\n").contains(SECRET), "the secret is in the log");
    server.stop()
}
