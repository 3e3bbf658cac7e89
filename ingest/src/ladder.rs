//! What a publisher's tracks are made into besides: a question that whoever transcodes answers.

use media::StreamId;
use relay::TrackRecord;

/// Chooses the tracks that a transcode worker shall make of a publisher's own. `server` plugs in the real one.
pub trait Ladder: Send + Sync {
    /// For a stream of these `tracks`, the lead first, and its video's frames per second. The answers are derived, with
    /// ids after those of `tracks` and names that nobody else has: they stay for the session, whether a worker ever
    /// makes them or not.
    fn derive(&self, id: &StreamId, tracks: &[TrackRecord], frame_rate: Option<f64>) -> Vec<TrackRecord>;

    /// Whether it makes anything of a stream's pictures, if the machine has room.
    fn transcodes(&self, id: &StreamId) -> bool;
}

/// Nothing is transcoded.
pub struct PassThrough;

impl Ladder for PassThrough {
    fn derive(&self, _: &StreamId, _: &[TrackRecord], _: Option<f64>) -> Vec<TrackRecord> {
        Vec::new()
    }

    fn transcodes(&self, _: &StreamId) -> bool {
        false
    }
}

/// PART-HOLD-BACK of a stream of these tracks, equal in all its playlists: three times the largest part target.
pub(crate) fn part_hold_back_ms(tracks: &[TrackRecord]) -> u32 {
    3 * tracks.iter().map(|track| track.part_target_ms).max().unwrap_or(0)
}
