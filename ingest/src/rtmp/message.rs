//! What RTMP messages say, once they are whole (RTMP 1.0, §5.4 and §7.1).

use bytes::{Buf, Bytes};

use super::amf::{self, AmfError, Value};
use super::chunk::RawMessage;
use crate::Announced;

/// Message type ids (§5.4, §7.1). Set Chunk Size (1) and Abort (2) stay in the chunk layer.
pub(super) mod kind {
    pub(in super::super) const ACKNOWLEDGEMENT: u8 = 3;
    pub(in super::super) const USER_CONTROL: u8 = 4;
    pub(in super::super) const WINDOW_ACK_SIZE: u8 = 5;
    pub(in super::super) const SET_PEER_BANDWIDTH: u8 = 6;
    pub(in super::super) const AUDIO: u8 = 8;
    pub(in super::super) const VIDEO: u8 = 9;
    pub(in super::super) const DATA_AMF3: u8 = 15;
    pub(in super::super) const COMMAND_AMF3: u8 = 17;
    pub(in super::super) const DATA: u8 = 18;
    pub(in super::super) const COMMAND: u8 = 20;
    pub(in super::super) const AGGREGATE: u8 = 22;
}

/// User control events (§7.1.7).
pub(super) const PING_REQUEST: u16 = 6;
pub(super) const PING_RESPONSE: u16 = 7;

/// Tags in one aggregate message. A second of everything an encoder makes is about 110; more would only make one
/// read into a heap of events.
const AGGREGATE_TAGS_MAX: usize = 1_024;

/// Has no `Debug` outside tests: a command holds the publish key.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) enum Message {
    /// The publisher has received so many bytes from us. We send too little to care.
    Acknowledgement,
    /// We are to acknowledge every so many bytes.
    WindowAckSize(u32),
    Ping {
        stamp: u32,
    },
    Command(Command),
    /// `onMetaData`: which tracks the publisher means to send.
    Metadata(Announced),
    Audio {
        stamp: u32,
        body: Bytes,
    },
    Video {
        stamp: u32,
        body: Bytes,
    },
    /// Tags of an aggregate message, with the message type and stamp each would have alone.
    Aggregate(Vec<RawMessage>),
    /// Everything that a publisher may send and nobody here needs: cue points, shared objects, bandwidths.
    Other,
}

/// A remote call (§7.1.1): its name, transaction id and arguments.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct Command {
    pub(super) name: String,
    /// 0 if the caller wants no answer.
    pub(super) transaction: f64,
    /// The message stream it came on.
    pub(super) stream: u32,
    /// The command object, then the rest.
    pub(super) arguments: Vec<Value>,
}

/// Why a message makes no sense. The publisher's encoder must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("protocol control message {kind} of {bytes} bytes is too short")]
    Control { kind: u8, bytes: usize },
    #[error("a command begins with its name")]
    NamelessCommand,
    #[error("an aggregate message is not a row of at most {AGGREGATE_TAGS_MAX} FLV tags")]
    Aggregate,
    #[error(transparent)]
    Amf(#[from] AmfError),
}

impl Message {
    pub(super) fn parse(raw: RawMessage) -> Result<Self, MessageError> {
        let RawMessage { kind, stream, stamp, body } = raw;
        let short = MessageError::Control { kind, bytes: body.len() };
        Ok(match kind {
            kind::ACKNOWLEDGEMENT => Self::Acknowledgement,
            kind::WINDOW_ACK_SIZE => Self::WindowAckSize((&body[..]).try_get_u32().map_err(|_| short)?),
            kind::USER_CONTROL => user_control(&body).ok_or(short)?,
            kind::COMMAND => Self::Command(command(stream, &body)?),
            kind::COMMAND_AMF3 => Self::Command(command(stream, without_format_byte(&body))?),
            kind::DATA => data(&body),
            kind::DATA_AMF3 => data(without_format_byte(&body)),
            kind::AUDIO => Self::Audio { stamp, body },
            kind::VIDEO => Self::Video { stamp, body },
            kind::AGGREGATE => {
                Self::Aggregate(aggregate(stream, stamp, &body).ok_or(MessageError::Aggregate)?)
            }
            _ => Self::Other,
        })
    }
}

fn user_control(mut body: &[u8]) -> Option<Message> {
    match body.try_get_u16().ok()? {
        PING_REQUEST => Some(Message::Ping { stamp: body.try_get_u32().ok()? }),
        _ => Some(Message::Other),
    }
}

/// "AMF3" messages carry a byte that says 0, and then AMF0 all the same, with single values switched to AMF3. Some
/// encoders leave the byte out.
fn without_format_byte(body: &[u8]) -> &[u8] {
    body.strip_prefix(&[0]).unwrap_or(body)
}

fn command(stream: u32, body: &[u8]) -> Result<Command, MessageError> {
    let mut values = amf::decode(body)?.into_iter();
    let Some(Value::String(name)) = values.next() else { return Err(MessageError::NamelessCommand) };
    let transaction = match values.next() {
        Some(Value::Number(transaction)) => transaction,
        _ => 0.0,
    };
    Ok(Command { name, transaction, stream, arguments: values.collect() })
}

/// Metadata that cannot be read costs only its hints: tracks also announce themselves by arriving.
fn data(body: &[u8]) -> Message {
    let values = amf::decode(body).unwrap_or_default();
    announced(&values).map_or(Message::Other, Message::Metadata)
}

/// Encoders wrap `onMetaData` in `@setDataFrame`, an order to keep it for viewers (FMS, "Adding metadata to a
/// live stream"); some send it bare. A codec id is a number or, from some, a name; 0 and "" are no track.
fn announced(values: &[Value]) -> Option<Announced> {
    let values = match values {
        [Value::String(order), rest @ ..] if order == "@setDataFrame" => rest,
        values => values,
    };
    let [Value::String(event), metadata, ..] = values else { return None };
    if event != "onMetaData" {
        return None;
    }
    let says = |name| match metadata.get(name) {
        Some(Value::Number(number)) => *number > 0.0,
        Some(Value::String(text)) => !text.is_empty(),
        _ => false,
    };
    // In kbit/s; `as` saturates, and makes zero of what is no number.
    let rate = |name| match metadata.get(name) {
        Some(Value::Number(kilobits)) => (kilobits * 1000.0) as u32,
        _ => 0,
    };
    let bits_per_second = rate("videodatarate").saturating_add(rate("audiodatarate"));
    Some(Announced {
        video: says("videocodecid") || says("width"),
        audio: says("audiocodecid") || says("audiosamplerate"),
        bits_per_second: (bits_per_second > 0).then_some(bits_per_second),
        frames_per_second: match metadata.get("framerate") {
            Some(Value::Number(rate)) if *rate >= 1.0 => Some(rate.round() as u32),
            _ => None,
        },
        layers: 0,
    })
}

/// Splits an aggregate into its FLV tags (§7.1.6). Its own stamp replaces the first tag's, and the others keep
/// their distance from it. Bodies are copied, so that a small tag does not keep its neighbours in memory.
fn aggregate(stream: u32, stamp: u32, mut body: &[u8]) -> Option<Vec<RawMessage>> {
    let mut tags = Vec::new();
    let mut first_stamp = None;
    while !body.is_empty() {
        if tags.len() == AGGREGATE_TAGS_MAX {
            return None;
        }
        let kind = body.try_get_u8().ok()?;
        let bytes = body.try_get_uint(3).ok()? as usize;
        // 24 bits, then the upper eight (FLV 10.1, §E.4.1).
        let low = body.try_get_uint(3).ok()? as u32;
        let tag_stamp = u32::from(body.try_get_u8().ok()?) << 24 | low;
        let _stream = body.try_get_uint(3).ok()?;
        let (payload, rest) = body.split_at_checked(bytes)?;
        body = rest;
        let _back_pointer = body.try_get_u32().ok()?;
        if kind == kind::AGGREGATE {
            return None;
        }
        let shift = tag_stamp.wrapping_sub(*first_stamp.get_or_insert(tag_stamp));
        let body = Bytes::copy_from_slice(payload);
        tags.push(RawMessage { kind, stream, stamp: stamp.wrapping_add(shift), body });
    }
    Some(tags)
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;

    use super::*;

    fn raw(kind: u8, body: &[u8]) -> RawMessage {
        RawMessage { kind, stream: 1, stamp: 0, body: Bytes::copy_from_slice(body) }
    }

    fn flv_tag(kind: u8, stamp: u32, payload: &[u8]) -> BytesMut {
        let mut tag = BytesMut::new();
        tag.put_u8(kind);
        tag.put_uint(payload.len() as u64, 3);
        tag.put_uint(u64::from(stamp & 0x00FF_FFFF), 3);
        tag.put_u8((stamp >> 24) as u8);
        tag.put_uint(0, 3);
        tag.put_slice(payload);
        tag.put_u32(11 + payload.len() as u32);
        tag
    }

    #[test]
    fn a_command_is_the_same_with_and_without_the_amf3_byte() {
        let body = amf::encode(&[Value::string("createStream"), Value::Number(4.0), Value::Null]);
        let plain = Message::parse(raw(kind::COMMAND, &body)).unwrap();
        let prefixed: Vec<u8> = std::iter::once(0).chain(body.iter().copied()).collect();
        assert_eq!(Message::parse(raw(kind::COMMAND_AMF3, &prefixed)).unwrap(), plain);
        assert_eq!(Message::parse(raw(kind::COMMAND_AMF3, &body)).unwrap(), plain);
        let Message::Command(command) = plain else { panic!("a command") };
        assert_eq!((command.name.as_str(), command.transaction), ("createStream", 4.0));
        assert_eq!(command.arguments, [Value::Null]);
    }

    #[test]
    fn metadata_announces_the_tracks() {
        let announced = |wrapped: bool, metadata: Value| {
            let mut values = vec![Value::string("onMetaData"), metadata];
            if wrapped {
                values.insert(0, Value::string("@setDataFrame"));
            }
            match Message::parse(raw(kind::DATA, &amf::encode(&values))).unwrap() {
                Message::Metadata(Announced { video, audio, .. }) => Some((video, audio)),
                _ => None,
            }
        };
        let obs = Value::EcmaArray(vec![
            ("width".to_owned(), Value::Number(1920.0)),
            ("videocodecid".to_owned(), Value::Number(7.0)),
            ("audiocodecid".to_owned(), Value::Number(10.0)),
        ]);
        assert_eq!(announced(true, obs.clone()), Some((true, true)));
        assert_eq!(announced(false, obs), Some((true, true)));
        let audio_only =
            Value::object([("audiosamplerate", Value::Number(44_100.0)), ("width", Value::Number(0.0))]);
        assert_eq!(announced(true, audio_only), Some((false, true)));
        let by_name = Value::object([("videocodecid", Value::string("avc1"))]);
        assert_eq!(announced(true, by_name), Some((true, false)));
        assert_eq!(announced(true, Value::Null), Some((false, false)));
    }

    #[test]
    fn announced_rates_add_up_whatever_they_say() {
        let rate = |video: f64, audio: f64| {
            let rates = [("videodatarate", Value::Number(video)), ("audiodatarate", Value::Number(audio))];
            announced(&[Value::string("onMetaData"), Value::object(rates)]).unwrap().bits_per_second
        };
        assert_eq!(rate(2_500.0, 128.0), Some(2_628_000));
        assert_eq!(rate(0.0, -1.0), None);
        assert_eq!(rate(f64::NAN, 0.0), None);
        assert_eq!(rate(f64::INFINITY, 128.0), Some(u32::MAX));
    }

    #[test]
    fn other_and_broken_data_is_passed_over() {
        let text = amf::encode(&[Value::string("onTextData"), Value::Null]);
        assert_eq!(Message::parse(raw(kind::DATA, &text)), Ok(Message::Other));
        assert_eq!(Message::parse(raw(kind::DATA, &text[..4])), Ok(Message::Other));
    }

    /// The aggregate's stamp is on the connection's clock, its tags' stamps on a file's: only distances count.
    #[test]
    fn an_aggregate_is_its_tags_on_the_connections_clock() {
        let mut body = flv_tag(kind::VIDEO, 0x0100_0000, b"key");
        body.put(flv_tag(kind::AUDIO, 0x0100_0017, b"aac"));
        let aggregate = RawMessage { stamp: 5_000, ..raw(kind::AGGREGATE, &body) };
        let tags =
            |kind, stamp, body: &'static [u8]| RawMessage { kind, stream: 1, stamp, body: body.into() };
        assert_eq!(
            Message::parse(aggregate),
            Ok(Message::Aggregate(vec![tags(kind::VIDEO, 5_000, b"key"), tags(kind::AUDIO, 5_023, b"aac")]))
        );
    }

    #[test]
    fn broken_aggregates_are_refused() {
        let whole = flv_tag(kind::VIDEO, 0, b"key");
        for cut in 1..whole.len() {
            assert_eq!(Message::parse(raw(kind::AGGREGATE, &whole[..cut])), Err(MessageError::Aggregate));
        }
        let nested = flv_tag(kind::AGGREGATE, 0, &whole);
        assert_eq!(Message::parse(raw(kind::AGGREGATE, &nested)), Err(MessageError::Aggregate));
        let many = flv_tag(kind::AUDIO, 0, b"").repeat(AGGREGATE_TAGS_MAX + 1);
        assert_eq!(Message::parse(raw(kind::AGGREGATE, &many)), Err(MessageError::Aggregate));
    }

    #[test]
    fn short_control_messages_are_refused() {
        for kind in [kind::WINDOW_ACK_SIZE, kind::USER_CONTROL] {
            assert_eq!(Message::parse(raw(kind, &[0])), Err(MessageError::Control { kind, bytes: 1 }));
        }
        let ping = [0, PING_REQUEST as u8, 0, 0, 1, 0];
        assert_eq!(Message::parse(raw(kind::USER_CONTROL, &ping)), Ok(Message::Ping { stamp: 256 }));
        assert!(Message::parse(raw(kind::USER_CONTROL, &ping[..5])).is_err());
    }

    proptest! {
        #[test]
        fn random_bodies_never_panic(kind in 0..30_u8, body in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Message::parse(raw(kind, &body));
        }
    }
}
