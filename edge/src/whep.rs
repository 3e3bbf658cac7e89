//! WebRTC to viewers (WHEP).
mod place;
mod programme;
mod rendition;
mod ring;
mod shard;
mod viewer;
