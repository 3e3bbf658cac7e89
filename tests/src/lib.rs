//! What the scenarios in `tests/` are written with: the real binary, real publishers, and viewers that check everything.
//!
//!   [`server`]      one `tidecast` process of one's own, on free [`ports`]
//!   [`cluster`]     several of them that read streams from each other
//!   [`nats`]        the servers by which nodes find each other, and [`line`], a way to them that can be cut
//!   [`peer`]        who knocks at the relay of a node
//!   [`publisher`]   ffmpeg, as a broadcaster runs it
//!   [`captions`]    those of television, in a clip to publish
//!   [`rtmp`]        a publisher that is as rude as it is told to be, and [`crowd`], many strangers
//!   [`viewer`]      follows a stream by blocking reloads, as a player does, and keeps every playlist and byte
//!   [`player`]      another, who comes back for as long as it is told to, and misses nothing
//!   [`audience`]    many, who go to another node when theirs is drained
//!   [`strict`]      an independent reader of playlists that forgives nothing
//!   [`ffprobe`]     what a foreign demuxer sees in what was kept, and [`fmp4`] what is written there
//!   [`browser`]     Chromium on the watch page, [`aiortc`], WebRTC that is no browser's; both told of by a [`script`]
//!   [`chaos`]       what befalls nodes and children, by number
//!   [`lanes`]       for tests that need a machine's time, some at once
//!   [`network`]     a bad one, for a browser to be in, and [`turn`], a relay around a firewall
//!   [`router`]      hosts of their own for nodes, whose ways to each other can be cut
//!   [`tls`]         certificates, and viewers that look at them; [`pebble`], an authority that signs them
//!
//! A black box: nothing here knows the crates under test.

pub mod aiortc;
pub mod audience;
pub mod browser;
pub mod captions;
pub mod chaos;
pub mod cluster;
pub mod crowd;
pub mod ffprobe;
pub mod fmp4;
pub mod http;
pub mod lanes;
pub mod line;
pub mod media;
mod namespace;
pub mod nats;
pub mod network;
pub mod pebble;
pub mod peer;
pub mod player;
pub mod poll;
pub mod ports;
mod process;
pub mod publisher;
pub mod router;
pub mod rtmp;
pub mod script;
pub mod server;
pub mod strict;
pub mod tls;
pub mod turn;
pub mod viewer;
pub mod watched;
