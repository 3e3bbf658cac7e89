//! A viewer's offer, as a browser makes it, and what the answer says.

use anyhow::{Context, Result};
use rtc::dtls::Fingerprint;
use rtc::peer::Credentials;

/// Identifiers of the header extensions, as the offer has them.
pub(super) const ABS_SEND_TIME: u8 = 2;
pub(super) const TRANSPORT_CC: u8 = 3;
/// Of H.264.
pub(super) const PAYLOAD_TYPE: u8 = 102;

pub(super) fn offer(credentials: &Credentials, fingerprint: &Fingerprint) -> String {
    let Credentials { ufrag, password } = credentials;
    let transport = format!(
        "c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\n\
         a=ice-options:trickle\r\na=fingerprint:{fingerprint}\r\na=setup:actpass\r\n"
    );
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF {PAYLOAD_TYPE} 103\r\n{transport}a=mid:0\r\n\
         a=extmap:{ABS_SEND_TIME} http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
         a=extmap:{TRANSPORT_CC} http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
         a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n\
         a=recvonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
         a=rtpmap:{PAYLOAD_TYPE} H264/90000\r\na=rtcp-fb:{PAYLOAD_TYPE} transport-cc\r\n\
         a=rtcp-fb:{PAYLOAD_TYPE} ccm fir\r\na=rtcp-fb:{PAYLOAD_TYPE} nack\r\na=rtcp-fb:{PAYLOAD_TYPE} nack pli\r\n\
         a=fmtp:{PAYLOAD_TYPE} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f\r\n\
         a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt={PAYLOAD_TYPE}\r\n"
    )
}

pub(super) struct Answer {
    pub(super) credentials: Credentials,
    pub(super) fingerprint: Fingerprint,
}

impl Answer {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let attribute = |name: &str| {
            let value =
                text.lines().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'));
            value.with_context(|| format!("no {name} in the answer"))
        };
        let credentials = Credentials {
            ufrag: attribute("ice-ufrag")?.to_owned(),
            password: attribute("ice-pwd")?.to_owned(),
        };
        Ok(Self { credentials, fingerprint: attribute("fingerprint")?.parse()? })
    }
}
